"""What all benchmarks share: their command line, results, clusters, images and ways to measure."""
