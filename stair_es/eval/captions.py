"""A caption set: images, each with the texts that describe it. The three forms it may have on disk are read in `formats`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from stair_es.errors import UsageError
from stair_es.eval.formats import Entry, entries
from stair_es.sources.item import Place
from stair_es.sources.paths import uri_of
from stair_es.sources.places import FileAt


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """One image."""

    name: str
    """As the set has it."""
    place: Place
    """Where its bytes are: a file, a member of a tar, a cell of a table."""
    captions: tuple[str, ...]
    """Different ones, at least one."""


Problem: TypeAlias = str


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """What is to be evaluated on."""

    name: str
    form: str
    """`JSON Lines`, `COCO` or `Karpathy`, and the split."""
    images: tuple[Captioned, ...]
    problems: tuple[Problem, ...] = ()
    """Entries that were left out, and why."""

    def without(self, names: Iterable[str], problems: Iterable[Problem]) -> CaptionSet:
        """The set without some images, and with the reasons."""
        gone = set(names)
        kept = tuple(image for image in self.images if image.name not in gone)
        return CaptionSet(name=self.name, form=self.form, images=kept, problems=(*self.problems, *problems))


def read_captions(path: Path, *, images: Path | None = None, split: str | None = None, limit: int | None = None) -> CaptionSet:
    """The caption set in a file.

    Args:
        path: JSON Lines of `{image, captions}`, COCO's `captions_*.json`, or Karpathy's `dataset_*.json`.
        images: The folder that the names of images belong to; None for the file's own.
        split: Of Karpathy's form; None for `test`.
        limit: Only so many images, the first ones.

    Raises:
        UsageError: Not one of these forms, or nothing in it can be used.
    """
    form, found = entries(path, split)
    problems: list[Problem] = []
    folder = images or path.parent
    kept = tuple(islice(_usable(_merged(found, problems), folder, problems), limit))
    if not kept:
        first = f": {problems[0]}" if problems else ""
        raise UsageError(
            f"no image with a caption in {path}{first}",
            "Name the folder that the images are in with --images DIR; docs/evaluate.md shows what a caption set looks like.",
        )
    return CaptionSet(name=path.name, form=form, images=kept, problems=tuple(problems))


def _merged(found: Iterable[Entry | Problem], problems: list[Problem]) -> list[Entry]:
    """One entry an image, in the order of their first mention."""
    merged: dict[str, Entry] = {}
    for entry in found:
        if isinstance(entry, str):
            problems.append(entry)
            continue
        known = merged.get(entry.name)
        captions = dict.fromkeys((*(known.captions if known else ()), *entry.captions))
        merged[entry.name] = Entry(entry.name, entry.places, tuple(captions))
    return list(merged.values())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a folder that can't be looked into, a null byte
        return False


def _usable(found: Iterable[Entry], folder: Path, problems: list[Problem]) -> Iterator[Captioned]:
    for entry in found:
        path = next((path for place in entry.places if _is_file(path := folder / place)), None)
        if path is None:
            problems.append(f"{entry.name}: no such file in {folder}")
        elif not entry.captions:
            problems.append(f"{entry.name}: no caption")
        else:
            yield Captioned(name=entry.name, place=FileAt(uri_of(path)), captions=entry.captions)
