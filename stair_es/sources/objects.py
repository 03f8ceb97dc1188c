"""The source kind `objects`: images in object stores and whatever else fsspec reaches."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.sources.arguments import names_container, scheme_of
from stair_es.sources.folder import ImageFiles
from stair_es.sources.item import Source, SourceOptions
from stair_es.sources.paths import IMAGE_SUFFIXES
from stair_es.sources.remote_files import RemoteFiles

NOT_STORES = ("", "file", "http", "https", "hf-dataset")


@dataclass(frozen=True)
class ObjectsKind:
    """Opens `objects` sources."""

    name: str = "objects"
    description: str = "objects, folders and globs of s3://, gs://, az://, hf:// and other fsspec URLs"

    def claims(self, argument: str) -> bool:
        """Whether it is the URL of a store and doesn't look like a table, a tar or a list."""
        return scheme_of(argument) not in NOT_STORES and not names_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """The source; nothing is read yet."""
        return ImageFiles(RemoteFiles(argument, IMAGE_SUFFIXES, options.walk))


KIND = ObjectsKind()
