"""Evaluation of models: retrieval, zero-shot, linear probe, sparsity, interpretability; and of an index by a log of searches."""
