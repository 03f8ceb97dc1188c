"""The indices, queries and measurements of the benchmarks of search."""
