"""Label scoring: a dense model and a list of words give token weights without training."""
