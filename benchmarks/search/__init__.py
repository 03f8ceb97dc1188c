"""The indices, queries and measurements of the search benchmarks."""
