"""Files of taught words: token policies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from stair_es.config.policy_file import load_policy
from stair_es.errors import UsageError
from stair_es.taught_words import TaughtWord
from stair_es.token_policy import TokenPolicy


def load_words(file: Path) -> Mapping[str, TaughtWord]:
    """Load the taught words of a file.

    Raises:
        ResourceError: If it can't be read or isn't a token policy.
        UsageError: If it has no taught words.
    """
    words = load_policy(file).teach
    if not words:
        raise UsageError(f"{file} has no taught words", "Write it with: stair-es teach WORD --local FILE", code="no-taught-words")
    return words


def add_words(file: Path, words: Mapping[str, TaughtWord]) -> None:
    """Add taught words to a file, which may be new; what else it has stays.

    Raises:
        ResourceError: If it exists and isn't a token policy, or has another rule for a word.
        UsageError: If it can't be written.
    """
    former = load_policy(file) if file.exists() else TokenPolicy(name=file.stem)
    text = json.dumps(former.change_words(words).to_json(), ensure_ascii=False, indent=1) + "\n"
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise UsageError(
            f"{file} can't be written: {error.strerror}", "Name another file.", code="output-not-writable"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
