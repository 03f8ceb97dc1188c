"""The source kinds `folder` and `objects`: individual image files, local or in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stair_es.sources.files import OfFiles
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.local_files import LocalFiles
from stair_es.sources.paths import IMAGE_SUFFIXES, names_container, scheme_of
from stair_es.sources.remote_files import RemoteFiles


class ImageFiles(OfFiles):
    """A source whose images are individual files."""

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield one item per file."""
        for each in self._files.found():
            yield each if isinstance(each, Unlisted) else Item(each.uri, self.uri, each.place, each.version)


@dataclass(frozen=True)
class FolderKind:
    """Opens `folder` sources."""

    name: str = "folder"
    description: str = "files, folders and globs on this machine, file:// URIs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument is a local path that does not look like a table, a tar or a list."""
        return argument != "-" and scheme_of(argument) in ("", "file") and not names_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without listing it.

        Raises:
            UsageError: If the path does not exist.
        """
        files = LocalFiles(argument, IMAGE_SUFFIXES, options.walk)
        files.check()
        return ImageFiles(files)


FOLDER_KIND = FolderKind()


NOT_STORES = ("", "file", "http", "https", "hf-dataset")


@dataclass(frozen=True)
class ObjectsKind:
    """Opens `objects` sources."""

    name: str = "objects"
    description: str = "objects, folders and globs of s3://, gs://, az://, hf:// and other fsspec URLs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument is a URL of a store and does not look like a table, a tar or a list."""
        return scheme_of(argument) not in NOT_STORES and not names_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without listing it."""
        return ImageFiles(RemoteFiles(argument, IMAGE_SUFFIXES, options.walk))


OBJECTS_KIND = ObjectsKind()
