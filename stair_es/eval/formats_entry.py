"""What every form of a caption set is read into: entries, and what is wrong with the others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stair_es.sources.item import Place
from stair_es.sources.local_file import FileAt
from stair_es.sources.paths import uri_of

CAPTION_COLUMNS = ("captions", "caption", "texts", "text", "txt", "sentences", "sentence")
"""Names that columns, keys and members with captions have, the first that has one; capitals or not."""
TAG_COLUMNS = ("tags", "keywords")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image as a set names it."""

    name: str
    places: tuple[str, ...]
    """Where it may be, relative to the folder of images, likeliest first."""
    captions: tuple[str, ...]
    tags: tuple[str, ...] = ()
    place: Place | None = None
    """Where its bytes are, if the set has them or they are found already."""

    def found(self, folder: str) -> Place | None:
        """Where its bytes are; None if there is no such file in `folder`."""
        if self.place is not None:
            return self.place
        paths = (os.path.join(folder, each) for each in self.places)  # noqa: PTH118  a million times: three times as fast
        path = next(filter(os.path.isfile, paths), None)
        return None if path is None else FileAt(uri_of(path))

    def plus(self, other: Entry) -> Entry:
        """With the captions and tags that another entry of the same image adds."""
        captions, tags = dict.fromkeys((*self.captions, *other.captions)), dict.fromkeys((*self.tags, *other.tags))
        return Entry(self.name, self.places, tuple(captions), tuple(tags), self.place)


@dataclass(frozen=True, slots=True)
class Bad:
    """An entry that can't be used."""

    where: str
    """A line, a number, a name; empty for several."""
    reason: str
    """The same for all entries with the same fault."""
    detail: str = ""
    count: int = 1

    def __str__(self) -> str:
        text = f"{self.where[:300]}: {self.reason}" if self.where else f"{self.count} {self.reason}"
        return f"{text}: {self.detail[:300]}" if self.detail else text


def captions_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a row, of the first column that has any."""
    return next((texts for column in _columns(row, CAPTION_COLUMNS) if (texts := texts_of(row[column]))), ())


def tags_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The tags of a row: a list, or one text with commas."""
    value = next((row[column] for column in _columns(row, TAG_COLUMNS)), None)
    return tuple(dict.fromkeys(texts_of(value.split(",") if isinstance(value, str) else value)))


def texts_of(value: object) -> tuple[str, ...]:
    """The different texts in a value: a text, a list of texts, or of `{"raw": text}`; white space is made single."""
    values = value if isinstance(value, (list, tuple)) else [value]
    raw = (each.get("raw") if isinstance(each, Mapping) else each for each in values)
    return tuple(dict.fromkeys(text for each in raw if isinstance(each, str) and (text := " ".join(each.split()))))


def wanted(names: Iterable[str]) -> list[str]:
    """Those of the names of columns that captions and tags may be in."""
    return [name for name in names if name.lower() in CAPTION_COLUMNS or name.lower() in TAG_COLUMNS]


def _columns(row: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    plain = [name for name in names if name in row]
    if plain:
        return plain
    lower = {str(name).lower(): name for name in row}
    return [lower[name] for name in names if name in lower]
