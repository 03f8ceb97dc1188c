"""Distillation: a checkpoint with tokens from a dense model and images of the user's own."""
