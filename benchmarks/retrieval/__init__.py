"""Galleries of pictures with texts, and ranks of the right ones, for `model_quality.py` and `stop_words.py`."""
