"""Evaluation on a caption set, both ways: exact dot products beside the rankings of a real cluster, method beside method."""
