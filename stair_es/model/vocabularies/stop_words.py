"""English stop words, and the path of the packaged model data."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from stair_es.errors import ModelError

MODEL_DATA = Path(str(files("stair_es.model"))) / "data"
STOP_WORDS_FILE = "stop_words.txt"


@lru_cache(maxsize=1)
def load_stop_words() -> frozenset[str]:
    """Return the stop words; the file is read once per process.

    Raises:
        ModelError: If the packaged file is missing.
    """
    return frozenset(read_packaged_lines(MODEL_DATA / STOP_WORDS_FILE))


def is_content_token(token: str, stop_words: frozenset[str]) -> bool:
    """Return whether a token can represent a text: not a stop word, punctuation, `[UNK]` or the like."""
    special = token.startswith("[") and token.endswith("]") and len(token) > 2
    return not special and token not in stop_words and any(map(str.isalnum, token))


def read_packaged_lines(path: Path) -> list[str]:
    """Return the lines of a packaged text file.

    Raises:
        ModelError: If the file is missing.
    """
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise ModelError(f"the packaged file {path.name} can't be read: {error}", "Reinstall stair-es.") from error
