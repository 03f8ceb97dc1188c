"""Retrieval: methods, exactly and on a cluster, and their report."""
