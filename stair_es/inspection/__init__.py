"""Inspection of an index: the tokens of one image, and token statistics of all of them."""
