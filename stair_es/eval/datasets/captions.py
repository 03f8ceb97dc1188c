"""Caption datasets: images with the texts that describe them. The formats on disk are read in `datasets.detect`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from stair_es.errors import DatasetError
from stair_es.eval.datasets.detect import get_image_folder, read_entries
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry
from stair_es.sources.base import Locator


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """One image with its captions."""

    name: str
    """Name in the dataset."""
    locator: Locator
    """Locator of the bytes: a file, a tar member, or a table cell."""
    captions: tuple[str, ...]
    """Distinct captions, at least one."""


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """One image with the words that a person accepts for it."""

    name: str
    """Name in the list."""
    locator: Locator | None
    """None if the list was read without its images."""
    accepted: tuple[str, ...]
    """Distinct words, at least one."""


Problem: TypeAlias = str


@dataclass(frozen=True, kw_only=True)
class WordLists:
    """Images with lists of accepted words."""

    name: str
    images: tuple[ListedImage, ...]
    problems: tuple[Problem, ...] = ()
    """Entries that were skipped, and why."""


@dataclass(frozen=True, kw_only=True)
class CaptionDataset:
    """A dataset to evaluate on."""

    name: str
    form: str
    """`JSON Lines`, `COCO`, `Karpathy` with the split, `TSV`, `CSV`, `Parquet`, `webdataset` or `folder`."""
    images: tuple[CaptionedImage, ...]
    problems: tuple[Problem, ...] = ()
    """Entries that were skipped, and why."""

    def exclude_images(self, names: Iterable[str], problems: Iterable[Problem]) -> CaptionDataset:
        """Return the dataset without some images, with the reasons."""
        excluded = set(names)
        kept = tuple(image for image in self.images if image.name not in excluded)
        return CaptionDataset(name=self.name, form=self.form, images=kept, problems=(*self.problems, *problems))


def read_captions(
    path: Path, *, images: Path | None = None, split: str | None = None, limit: int | None = None
) -> CaptionDataset:
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
    form, entries = read_entries(path, split)
    problems: list[Problem] = []
    folder = images or get_image_folder(path)
    found = _locate_images(_merge_entries(entries, problems), folder, problems)
    kept = tuple(islice(_iterate_captioned(found, problems), limit))
    if not kept:
        first = f": {problems[0]}" if problems else ""
        raise DatasetError(
            f"no image with a caption in {path}{first}",
            "Specify the folder that the images are in with --images FOLDER. See docs/evaluate.md for the forms of caption sets.",
        )
    return CaptionDataset(name=path.name, form=form, images=kept, problems=tuple(problems))


def read_word_lists(path: Path, *, images: Path | None = None, limit: int | None = None, with_images: bool = True) -> WordLists:
    """Read lists of accepted words: JSON Lines of `{image, accepted: [word, ...]}`.

    Args:
        path: The file.
        images: Folder that image names are relative to; None for the folder of the file.
        limit: Maximum number of images; the first ones are used.
        with_images: Whether the images must exist.

    Raises:
        UsageError: If the file can't be read, or no entry is usable.
    """
    problems: list[Problem] = []
    merged = _merge_entries(read_entries(path)[1], problems)
    found = (
        _locate_images(merged, images or get_image_folder(path), problems) if with_images else ((each, None) for each in merged)
    )
    kept = tuple(islice(_iterate_listed(found, problems), limit))
    if not kept:
        first = f": {problems[0]}" if problems else ""
        raise DatasetError(
            f"no image with accepted words in {path}{first}",
            'Write one line per image: {"image": "a.jpg", "accepted": ["sky", "cloud"]}. See docs/readability.md.',
        )
    return WordLists(name=path.name, images=kept, problems=tuple(problems))


def _merge_entries(entries: Iterable[CaptionEntry | InvalidEntry], problems: list[Problem]) -> list[CaptionEntry]:
    """Merge the entries of the same image, in the order of their first occurrence."""
    merged: dict[str, CaptionEntry] = {}
    for entry in entries:
        if isinstance(entry, InvalidEntry):
            problems.append(str(entry))
        else:
            previous = merged.get(entry.name)
            merged[entry.name] = previous.merge_with(entry) if previous else entry
    return list(merged.values())


def _locate_images(
    entries: Iterable[CaptionEntry], folder: Path, problems: list[Problem]
) -> Iterator[tuple[CaptionEntry, Locator]]:
    for entry in entries:
        locator = entry.find_image(str(folder))
        if locator is None:
            problems.append(str(InvalidEntry(entry.name, f"no such file in {folder}")))
        else:
            yield entry, locator


def _iterate_captioned(found: Iterable[tuple[CaptionEntry, Locator]], problems: list[Problem]) -> Iterator[CaptionedImage]:
    for entry, locator in found:
        if entry.captions:
            yield CaptionedImage(name=entry.name, locator=locator, captions=tuple(dict.fromkeys(entry.captions)))
        else:
            problems.append(str(InvalidEntry(entry.name, "no caption")))


def _iterate_listed(found: Iterable[tuple[CaptionEntry, Locator | None]], problems: list[Problem]) -> Iterator[ListedImage]:
    for entry, locator in found:
        if entry.accepted:
            yield ListedImage(name=entry.name, locator=locator, accepted=entry.accepted)
        else:
            problems.append(str(InvalidEntry(entry.name, "no accepted words")))
