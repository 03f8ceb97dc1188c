"""Captions as BLIP reads them."""

from __future__ import annotations

_BLANKED = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
_MAX_WORDS = 50


def clean_caption(text: str) -> str:
    """Return a caption as BLIP's and LAVIS's training prepared it: in lower case, some punctuation blank, at most 50 words."""
    return " ".join(text.lower().translate(_BLANKED).split()[:_MAX_WORDS])
