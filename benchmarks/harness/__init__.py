"""Shared parts of the benchmarks: command line, results, clusters, images and measurements."""
