"""Entries of caption datasets, common to all formats, and invalid entries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stair_es.sources.base import Locator
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import to_file_uri

CAPTION_COLUMNS = ("captions", "caption", "texts", "text", "txt", "sentences", "sentence")
"""Names of columns, keys and members with captions, in order of precedence; case-insensitive."""
TAG_COLUMNS = ("tags", "keywords")
ACCEPTED_KEY = "accepted"
"""Key of accepted words in JSON Lines."""


@dataclass(frozen=True, slots=True)
class CaptionEntry:
    """An image as a dataset lists it."""

    name: str
    candidate_paths: tuple[str, ...]
    """Candidate paths relative to the folder of images, most likely first."""
    captions: tuple[str, ...]
    """None if the dataset has none for it."""
    tags: tuple[str, ...] = ()
    locator: Locator | None = None
    """Locator of the bytes, if the dataset contains them or the file was found already."""
    accepted: tuple[str, ...] = ()
    """Words that a person accepts for the image, in a list of them."""

    def find_image(self, folder: str) -> Locator | None:
        """Return the locator of the bytes; None if there is no such file in `folder`."""
        if self.locator is not None:
            return self.locator
        paths = (os.path.join(folder, each) for each in self.candidate_paths)  # noqa: PTH118  a million times: three times as fast
        path = next(filter(os.path.isfile, paths), None)
        return None if path is None else FileLocator(to_file_uri(path))

    def merge_with(self, other: CaptionEntry) -> CaptionEntry:
        """Return the entry with the captions, tags and accepted words of another entry of the same image added."""
        pairs = (self.captions, other.captions), (self.tags, other.tags), (self.accepted, other.accepted)
        captions, tags, accepted = (tuple(dict.fromkeys((*ours, *theirs))) for ours, theirs in pairs)
        return CaptionEntry(self.name, self.candidate_paths, captions, tags, self.locator, accepted)


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """An entry that can't be used."""

    where: str
    """A line, a number, or a name; empty for several."""
    reason: str
    """Identical for all entries with the same problem."""
    detail: str = ""
    count: int = 1

    def __str__(self) -> str:
        text = f"{self.where[:300]}: {self.reason}" if self.where else f"{self.count} {self.reason}"
        return f"{text}: {self.detail[:300]}" if self.detail else text


def extract_captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the captions of a row, from the first column that has any."""
    return next((texts for column in _match_columns(row, CAPTION_COLUMNS) if (texts := extract_texts(row[column]))), ())


def extract_tags(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tags of a row: a list, or comma-separated text."""
    value = next((row[column] for column in _match_columns(row, TAG_COLUMNS)), None)
    return tuple(dict.fromkeys(extract_texts(value.split(",") if isinstance(value, str) else value)))


def extract_accepted(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words that a person accepts for the image of a row; none unless they are a list of texts only."""
    value = row.get(ACCEPTED_KEY)
    return extract_texts(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else ()


def extract_texts(value: object) -> tuple[str, ...]:
    """Return the distinct texts in a value: a text, a list of texts, or a list of `{"raw": text}`; whitespace is collapsed."""
    values = value if isinstance(value, (list, tuple)) else [value]
    raw = (value.get("raw") if isinstance(value, Mapping) else value for value in values)
    return tuple(dict.fromkeys(text for each in raw if isinstance(each, str) and (text := " ".join(each.split()))))


def select_caption_columns(names: Iterable[str]) -> list[str]:
    """Return the column names that can hold captions or tags."""
    return [name for name in names if name.lower() in CAPTION_COLUMNS or name.lower() in TAG_COLUMNS]


def _match_columns(row: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    exact = [name for name in names if name in row]
    if exact:
        return exact
    lower = {str(name).lower(): name for name in row}
    return [lower[name] for name in names if name in lower]
