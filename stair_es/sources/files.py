"""Files of one sort below a SOURCE argument, wherever they are: what folders of images and folders of tables share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from stair_es.sources.item import Place, Unlisted

LeftOut: TypeAlias = Literal["hidden", "links"]
"""Why a file or a folder is left out: its name is hidden, or a link leads to it out of the source."""


@dataclass(frozen=True)
class Found:
    """One file."""

    uri: str
    place: Place
    size: int | None = None
    version: str | None = None
    named: bool = False
    """SOURCE names this file on this machine itself: it may be a pipe."""


class Files(Protocol):
    """The files below a SOURCE argument."""

    @property
    def uri(self) -> str:
        """Of the argument, without credentials."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Suffix -> files passed over; grows while `found` runs."""

    @property
    def left_out(self) -> Mapping[LeftOut, int]:
        """What was left out on purpose, by the reason; grows while `found` runs."""

    def found(self) -> Iterator[Found | Unlisted]:
        """The files, one after another.

        Raises:
            UsageError: Nothing is there.
            SourceError: It can't be listed on.
        """


class OfFiles:
    """What sources of files have in common."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @property
    def uri(self) -> str:
        """What its items have as `source`."""
        return self._files.uri

    @property
    def ignored(self) -> Mapping[str, int]:
        """Suffix -> how many files were passed over."""
        return self._files.ignored

    @property
    def left_out(self) -> Mapping[LeftOut, int]:
        """Reason -> how many files and folders were left out."""
        return self._files.left_out
