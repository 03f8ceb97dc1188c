"""Vocabularies: WordPiece, whole words, stop words, readable tokens."""
