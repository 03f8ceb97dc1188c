"""The English words that no query searches for."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from stair_es.errors import ModelError

DATA = Path(str(files("stair_es.model"))) / "data"
STOP_FILE = "stop_words.txt"


def load_stop_words() -> frozenset[str]:
    """Return the stop words.

    Raises:
        ModelError: The packaged file is missing.
    """
    return frozenset(read_packaged_lines(DATA / STOP_FILE))


def is_meaningful(word: str, stop_words: frozenset[str]) -> bool:
    """Return whether a token of a vocabulary may stand for a text: no stop word, punctuation, `[UNK]` or the like."""
    special = word.startswith("[") and word.endswith("]") and len(word) > 2
    return not special and word not in stop_words and any(map(str.isalnum, word))


def read_packaged_lines(path: Path) -> list[str]:
    """Return the lines of a text file of the package.

    Raises:
        ModelError: It is missing.
    """
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise ModelError(f"the packaged file {path.name} can't be read: {error}", "Install stair-es again.") from error
