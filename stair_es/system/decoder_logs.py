"""Logs of image decoders. They are set for a whole process, so only for one that is ours: the command line, a worker of Ray."""

from __future__ import annotations

import ctypes
import logging
import warnings
from functools import cache
from importlib.util import find_spec


@cache
def disable_decoder_logs() -> None:
    """Disable the warnings of Pillow and libtiff about damaged files, thousands of lines: a `DecodeError` is enough.

    Not Pillow's warning about very large images.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    found = find_spec("PIL._imaging")
    try:
        libtiff = ctypes.CDLL(found.origin if found else None)  # or a library linked with it
        for kind in ("Error", "Warning"):
            getattr(libtiff, f"TIFFSet{kind}Handler")(None)
    except (AttributeError, OSError):
        pass  # built without libtiff, or with its symbols hidden
