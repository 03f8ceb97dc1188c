"""The loops of `encode.py`."""
