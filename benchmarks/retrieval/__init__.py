"""Galleries of pictures with texts, and the ranks of the right ones: for `model_quality.py` and `stop_words.py`."""
