"""The source kind `folder`: images on this machine, by file, folder or glob."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stair_es.sources.arguments import names_container, scheme_of
from stair_es.sources.files import OfFiles
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.local_files import LocalFiles
from stair_es.sources.paths import IMAGE_SUFFIXES


class ImageFiles(OfFiles):
    """A source whose images are files of their own."""

    def items(self) -> Iterator[Item | Unlisted]:
        """The images; see `Source.items`."""
        for each in self._files.found():
            yield each if isinstance(each, Unlisted) else Item(each.uri, self.uri, each.place, each.version)


@dataclass(frozen=True)
class FolderKind:
    """Opens `folder` sources."""

    name: str = "folder"
    description: str = "files, folders and globs on this machine, file:// URIs"

    def claims(self, argument: str) -> bool:
        """Whether it is a local path that doesn't look like a table, a tar or a list."""
        return argument != "-" and scheme_of(argument) in ("", "file") and not names_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """The source; nothing is read yet.

        Raises:
            UsageError: Nothing is there.
        """
        files = LocalFiles(argument, IMAGE_SUFFIXES, options.walk)
        files.check()
        return ImageFiles(files)


KIND = FolderKind()
