"""Sources of ingests in tests: old copies of the example photos, and a list of items."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from stair_es.sources.base import ListingFailure, SourceItem

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
LONG_AGO = 1_700_000_000
"""Modification time: a file that has just changed is read again, and gets another version."""


def copy_photo(photo: Path, to: Path, modified_at: float = LONG_AGO) -> None:
    """Copy a photo into a folder or to a path, as a file that was modified long ago."""
    os.utime(shutil.copy(photo, to), (modified_at, modified_at))


def copy_photos(folder: Path, count: int) -> Path:
    """Create a folder with the first photos, as files that were modified long ago."""
    folder.mkdir()
    for photo in sorted(PHOTOS.glob("*.jpg"))[:count]:
        copy_photo(photo, folder)
    return folder


class ListSource:
    """A source that lists the given items, and then fails with the given error, if any."""

    def __init__(self, items: Sequence[SourceItem | ListingFailure], uri: str = "given:", error: Exception | None = None) -> None:
        self._items, self.uri, self._error = items, uri, error
        self.ignored: dict[str, int] = {}

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """List the items."""
        yield from self._items
        if self._error:
            raise self._error
