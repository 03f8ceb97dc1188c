"""Nothing is held that grows with the number of entries."""

from __future__ import annotations

import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support.corpora.hostile_files import END, build_tar_member

from stair_es.ingest.source_stream import SourceStream
from stair_es.sources.base import SourceItem, SourceOptions
from stair_es.sources.registry import open_source

ENTRIES = 5_000
MAX_BYTES = 1_500_000
"""Items alone would be three times that, headers of tars ten times."""


def write_urls(folder: Path) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(f'{{"url": "https://example.com/{i}.jpg", "caption": "picture {i}"}}\n' for i in range(ENTRIES)))
    return path


def write_tar(folder: Path) -> Path:
    path = folder / "t.tar"
    with path.open("wb") as file:
        for i in range(ENTRIES):
            info = tarfile.TarInfo(f"{i}.jpg")
            file.write(info.tobuf())
        file.write(bytes(1024))
    return path


def write_tar_with_suffixes(folder: Path) -> Path:
    path = folder / "suffixes.tar"
    with path.open("wb") as file:
        for i in range(ENTRIES):
            file.write(build_tar_member(f"{i}.jpg"))
            file.write(build_tar_member("x", f"{i}.{i}{'x' * 4000}".encode(), kind=tarfile.GNUTYPE_LONGNAME))
            file.write(build_tar_member("x"))
        file.write(END)
    return path


def write_columns(folder: Path) -> Path:
    path = folder / "columns.jsonl"
    path.write_text("".join(f'{{"url": "https://example.com/{i}.jpg", "a..{"x" * 4000}{i}": 1}}\n' for i in range(ENTRIES)))
    return path


@pytest.mark.parametrize("write_source", [write_urls, write_tar, write_tar_with_suffixes, write_columns])
def test_listing_uses_constant_memory(tmp_path: Path, write_source: Callable[[Path], Path]) -> None:
    items = iter(SourceStream([open_source(str(write_source(tmp_path)), SourceOptions(columns={"*": "*"}))]))
    assert isinstance(next(items), SourceItem)
    tracemalloc.start()
    try:
        assert sum(isinstance(each, SourceItem) for each in items) == ENTRIES - 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES
