"""Files with certain suffixes below a SOURCE argument, local or remote: shared by folders of images and of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from stair_es.sources.base import ListingFailure, Locator

LeftOutReason: TypeAlias = Literal["hidden", "links", "pairs"]
"""Why a file or folder is left out: a hidden name, a link out of the source, a RAW file with a picture beside it."""


@dataclass(frozen=True)
class ListedFile:
    """One file."""

    uri: str
    locator: Locator
    size: int | None = None
    version: str | None = None
    is_named: bool = False
    """The SOURCE argument names this local file itself: it may be a pipe."""


class FileLister(Protocol):
    """Lists the files below a SOURCE argument."""

    @property
    def uri(self) -> str:
        """Return the URI of the argument, without credentials."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Return suffix -> number of files skipped; grows while `list_files` runs."""

    @property
    def left_out(self) -> Mapping[LeftOutReason, int]:
        """Return reason -> number of files and folders left out on purpose; grows while `list_files` runs."""

    def list_files(self) -> Iterator[ListedFile | ListingFailure]:
        """Yield the files one by one.

        Raises:
            UsageError: If nothing is found.
            SourceError: If listing cannot continue.
        """


class FileSource:
    """Base of sources that consist of files."""

    def __init__(self, files: FileLister) -> None:
        self._files = files

    @property
    def uri(self) -> str:
        """Return the `source` of its items."""
        return self._files.uri

    @property
    def ignored(self) -> Mapping[str, int]:
        """Return suffix -> number of files skipped."""
        return self._files.ignored

    @property
    def left_out(self) -> Mapping[LeftOutReason, int]:
        """Return reason -> number of files and folders left out."""
        return self._files.left_out
