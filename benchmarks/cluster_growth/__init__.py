"""The documents, the index and the measurements of `growth.py`."""
