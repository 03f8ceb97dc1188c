"""Vocabularies: WordPiece, whole words, stop words, readable tokens, tables of token weights."""
