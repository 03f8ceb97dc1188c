"""The source kinds `folder` and `objects`: individual image files, local or in an object store."""

from __future__ import annotations

from collections.abc import Iterator

from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import FileSource
from stair_es.sources.io.local_listing import LocalFileLister
from stair_es.sources.io.remote_listing import RemoteFileLister
from stair_es.sources.io.uris import IMAGE_SUFFIXES, get_scheme, is_container


class ImageFileSource(FileSource):
    """A source whose images are individual files."""

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per file."""
        for file in self._files.list_files():
            yield file if isinstance(file, ListingFailure) else SourceItem(file.uri, self.uri, file.locator, file.version)


class FolderKind:
    """Opens `folder` sources."""

    name = "folder"
    description = "files, folders and globs on this machine, file:// URIs"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument is a local path that does not look like a table, a tar or a list."""
        return argument != "-" and get_scheme(argument) in ("", "file") and not is_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without listing it."""
        files = LocalFileLister(argument, IMAGE_SUFFIXES, options.walk)
        files.check_exists()
        return ImageFileSource(files)


FOLDER_KIND = FolderKind()


NON_STORE_SCHEMES = ("", "file", "http", "https", "hf-dataset")


class ObjectsKind:
    """Opens `objects` sources."""

    name = "objects"
    description = "objects, folders and globs of s3://, gs://, az://, hf:// and other fsspec URLs"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument is a URL of a store and does not look like a table, a tar or a list."""
        return get_scheme(argument) not in NON_STORE_SCHEMES and not is_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without listing it."""
        return ImageFileSource(RemoteFileLister(argument, IMAGE_SUFFIXES, options.walk))


OBJECTS_KIND = ObjectsKind()
