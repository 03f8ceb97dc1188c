"""Models: from pixels and texts to word weights."""
