"""Models: from pixels and texts to token weights."""
