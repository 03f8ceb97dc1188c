"""The configuration of a training."""
