"""Caption datasets: images with the texts that describe them. The formats on disk are read in `datasets.detect`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from stair_es.errors import UsageError
from stair_es.eval.formats import entries, folder_of
from stair_es.eval.formats_entry import Bad, Entry
from stair_es.sources.item import Place


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """One image with its captions."""

    name: str
    """Name in the dataset."""
    place: Place
    """Locator of the bytes: a file, a tar member, or a table cell."""
    captions: tuple[str, ...]
    """Distinct captions, at least one."""


Problem: TypeAlias = str


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """A dataset to evaluate on."""

    name: str
    form: str
    """`JSON Lines`, `COCO`, `Karpathy` with the split, `TSV`, `CSV`, `Parquet`, `webdataset` or `folder`."""
    images: tuple[Captioned, ...]
    problems: tuple[Problem, ...] = ()
    """Entries that were skipped, and why."""

    def without(self, names: Iterable[str], problems: Iterable[Problem]) -> CaptionSet:
        """Return the dataset without some images, with the reasons.

        Args:
            names: Names of the images.
            problems: Reasons.
        """
        gone = set(names)
        kept = tuple(image for image in self.images if image.name not in gone)
        return CaptionSet(name=self.name, form=self.form, images=kept, problems=(*self.problems, *problems))


def read_captions(path: Path, *, images: Path | None = None, split: str | None = None, limit: int | None = None) -> CaptionSet:
    """Read a caption dataset from a file or a folder.

    Args:
        path: JSON Lines of `{image, captions}`, COCO's `captions_*.json`, Karpathy's `dataset_*.json`, TSV, CSV, Parquet,
            webdataset tars (`shards/{0000..0127}.tar`), or a folder of images with a text file next to each.
        images: Folder that image names are relative to; None for the folder of the file.
        split: Split, for Karpathy's format; None for `test`. Several are written `train+restval`.
        limit: Maximum number of images; the first ones are used.

    Raises:
        UsageError: If the format isn't one of these, or no entry is usable.
        MissingExtra: If a library for the format isn't installed.
    """
    form, found = entries(path, split)
    problems: list[Problem] = []
    folder = images or folder_of(path)
    kept = tuple(islice(_usable(_merged(found, problems), folder, problems), limit))
    if not kept:
        first = f": {problems[0]}" if problems else ""
        raise UsageError(
            f"no image with a caption in {path}{first}",
            "Name the folder that the images are in with --images DIR; docs/evaluate.md shows what a caption set looks like.",
        )
    return CaptionSet(name=path.name, form=form, images=kept, problems=tuple(problems))


def _merged(found: Iterable[Entry | Bad], problems: list[Problem]) -> list[Entry]:
    """Merge the entries of the same image, in the order of their first occurrence."""
    merged: dict[str, Entry] = {}
    for entry in found:
        if isinstance(entry, Bad):
            problems.append(str(entry))
        else:
            known = merged.get(entry.name)
            merged[entry.name] = known.plus(entry) if known else entry
    return list(merged.values())


def _usable(found: Iterable[Entry], folder: Path, problems: list[Problem]) -> Iterator[Captioned]:
    for entry in found:
        place = entry.found(str(folder))
        if place is None:
            problems.append(str(Bad(entry.name, f"no such file in {folder}")))
        elif not entry.captions:
            problems.append(str(Bad(entry.name, "no caption")))
        else:
            yield Captioned(name=entry.name, place=place, captions=tuple(dict.fromkeys(entry.captions)))
