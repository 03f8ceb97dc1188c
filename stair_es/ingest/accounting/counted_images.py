"""The failed images of a source that share a dead letter: a small file can have millions of broken entries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from stair_es.ingest.state import IngestStage, Outcome
from stair_es.system.user_files import parse_json

LETTER_BYTES = 1000
"""Bytes that a letter counts at least."""
_SOURCE_BYTES, STORED_BYTES = 1000 * LETTER_BYTES, 10 * LETTER_BYTES
"""Bytes of letters that a source may have, and in addition for each of its images that is stored. Beyond, images are counted."""
_MAX_GROUPS = 20
"""Groups of counted images of a source."""
_MAX_REASON_CHARS, _MAX_URI_CHARS = 300, 1000
"""Of a group."""
_BETWEEN = ".."
"""Between the first and the last URI of a group."""
_POSITION = re.compile(r"(.*)#(row|line)=(\d+)(?:&text=\d+)?", re.DOTALL)
_NUMBERS = re.compile(r"\d+")
_NAMES = re.compile(r"'[^']*'|\"[^\"]*\"")
_HOST = re.compile(r"\S+: ")
"""Prefix of a failed request: numbers in it distinguish hosts."""


def generalize_reason(reason: str) -> str:
    """Return the beginning of a reason without what differs from image to image: quoted names and numbers, except in a host."""
    return _generalize_text(reason[:_MAX_REASON_CHARS])


@lru_cache(maxsize=256)
def _generalize_text(reason: str) -> str:
    host = _HOST.match(reason)
    start = host.end() if host else 0
    return reason[:start] + _NUMBERS.sub("#", _NAMES.sub("'#'", reason[start:]))


def redact_letter(line: bytes, is_removed: Callable[[str], bool]) -> bytes:
    """Return the line of a letter without what names a removed image: nothing if the letter is about that image alone."""
    try:
        letter = parse_json(line.decode())
        uri, source, reason = (str(letter[name]) for name in ("uri", "source", "reason"))
    except (ValueError, TypeError, KeyError):
        return line
    if "images" not in letter:
        return b"" if is_removed(uri) else line
    places = [place.start() for place in re.finditer(re.escape(_BETWEEN), uri)]
    if not any(is_removed(uri[:place]) or is_removed(uri[place + len(_BETWEEN) :]) for place in places):
        return line
    return json.dumps({**letter, "uri": source, "reason": generalize_reason(reason)}).encode() + b"\n"


@dataclass
class CountedImages:
    """Failed images that share one letter."""

    stage: IngestStage
    reason: str
    first: str
    last: str
    images: int = 0

    @property
    def uri(self) -> str:
        """Return the URIs from the first to the last."""
        first, last = _POSITION.fullmatch(self.first), _POSITION.fullmatch(self.last)
        if first and last and first[1] == last[1]:
            rows = sorted((int(first[3]), int(last[3])))
            return f"{first[1]}#{first[2]}s={rows[0]}-{rows[1]}"
        return f"{self.first[:_MAX_URI_CHARS]}{_BETWEEN}{self.last.rpartition('#')[2][-_MAX_URI_CHARS:]}"


@dataclass
class SourceLetters:
    """The letters of one source."""

    bytes_left: int = _SOURCE_BYTES
    groups: dict[tuple[str, IngestStage, str], CountedImages] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Return whether further images are only counted."""
        return self.bytes_left < LETTER_BYTES

    def count_image(self, outcome: Outcome) -> None:
        """Count an image instead of writing its letter."""
        uri, reason = outcome.item.uri, outcome.reason[:_MAX_REASON_CHARS]
        key: tuple[str, IngestStage, str] = (uri.rpartition("#")[0], outcome.stage, generalize_reason(reason))
        if key not in self.groups and len(self.groups) >= _MAX_GROUPS:
            key, reason = ("", "list", ""), f"different reasons, such as: {reason}"
        group = self.groups.setdefault(key, CountedImages(outcome.stage, reason, uri, uri))
        group.last, group.images = uri, group.images + 1
