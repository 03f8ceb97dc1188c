"""English stop words, the words that carry the content of a text, and the path of the packaged model data."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.model.vocabularies.whole_words import list_uncovered_words

MODEL_DATA = Path(str(files("stair_es.model"))) / "data"
STOP_WORDS_FILE = "stop_words.txt"


@lru_cache(maxsize=1)
def load_stop_words() -> frozenset[str]:
    """Return the stop words; the file is read once per process."""
    return frozenset(read_packaged_lines(MODEL_DATA / STOP_WORDS_FILE))


def is_content_token(token: str, stop_words: frozenset[str]) -> bool:
    """Return whether a token can represent a text: not a stop word, punctuation, `[UNK]` or the like."""
    special = token.startswith("[") and token.endswith("]") and len(token) > 2
    return not special and token not in stop_words and any(map(str.isalnum, token))


def list_content_words(text: str) -> AbstractSet[str]:
    """Return the words of a text without stop words, in lower case and in order."""
    stop_words = load_stop_words()
    return {word: None for word in list_uncovered_words(text, ()) if word not in stop_words}.keys()


def read_packaged_lines(path: Path) -> list[str]:
    """Return the lines of a packaged text file."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise ModelError(
            f"the packaged file {path.name} can't be read: {error}", "Reinstall stair-es.", code="package-file-unreadable"
        ) from error
