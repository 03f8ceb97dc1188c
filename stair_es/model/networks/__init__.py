"""Networks of the shipped model: their graphs, weights and runtimes."""
