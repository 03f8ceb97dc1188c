"""Evaluation of models: retrieval, exactly and on a cluster, zero-shot, linear probe, sparsity, interpretability."""
