"""The page of all benchmarks: the runs, the machine, and the rendering."""
