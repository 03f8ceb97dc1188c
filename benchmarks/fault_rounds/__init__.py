"""The rounds of `faults.py`: the disturbances of an ingest, and the checks afterwards."""
