"""Distilled checkpoints: a dense model, and a dictionary of words that gives its vectors token weights."""
