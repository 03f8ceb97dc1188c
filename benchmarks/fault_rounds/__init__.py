"""The rounds of `faults.py`: what is done to an ingest, and what must be true afterwards."""
