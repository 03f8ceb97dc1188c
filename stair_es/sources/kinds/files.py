"""The source kinds `folder` and `objects`: individual image files, local or in an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.image.isolated import get_readable_suffixes
from stair_es.sources.image.pages import list_pages
from stair_es.sources.io.files import FileLister, FileSource, LeftOutReason, ListedFile
from stair_es.sources.io.local_listing import LocalFileLister, PathSelection
from stair_es.sources.io.remote_listing import RemoteFileLister
from stair_es.sources.io.uris import IMAGE_SUFFIXES, RAW_SUFFIXES, get_scheme, has_suffix, is_container


class ImageFileSource(FileSource):
    """A source whose images are individual files."""

    def __init__(self, files: FileLister, options: SourceOptions) -> None:
        super().__init__(files)
        self._skip_raw_pairs, self._read_limits = options.walk.skip_raw_pairs, options.read_limits
        self._pairs = 0

    @property
    def is_partial(self) -> bool:
        """Return whether only changed files are listed: then others aren't gone."""
        return isinstance(self._files, LocalFileLister) and self._files.selection is not None

    @property
    def watched_folder(self) -> str | None:
        """Return the local folder in which changes can be watched, if it is one."""
        return self._files.folder if isinstance(self._files, LocalFileLister) else None

    def select_changed(self, paths: Iterable[str]) -> None:
        """List only these local files and folders, as far as they belong to the source."""
        assert isinstance(self._files, LocalFileLister)
        located = map(self._files.locate_change, paths)
        self._files.selection = PathSelection(located, by_stem=self._skip_raw_pairs)

    @property
    def left_out(self) -> Mapping[LeftOutReason, int]:
        """Return reason -> number of files and folders left out."""
        return {**super().left_out, "pairs": self._pairs}

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per file, of a document one per page."""
        files = self._files.list_files()
        for file in self._drop_raw_pairs(files) if self._skip_raw_pairs else files:
            yield from [file] if isinstance(file, ListingFailure) else list_pages(file, self.uri, self._read_limits)

    def _drop_raw_pairs(self, files: Iterable[ListedFile | ListingFailure]) -> Iterator[ListedFile | ListingFailure]:
        """Yield the files without the RAW files of groups with another picture; those of a group are listed one after another."""
        for _, group in groupby(files, lambda file: file.uri.rpartition(".")[0]):
            found = list(group)  # a few suffixes
            has_picture = any(has_suffix(file.uri, IMAGE_SUFFIXES - RAW_SUFFIXES) for file in found)
            kept = [file for file in found if not (has_picture and has_suffix(file.uri, RAW_SUFFIXES))]
            self._pairs += len(found) - len(kept)
            yield from kept


class FolderKind:
    """Opens `folder` sources."""

    name = "folder"
    description = "files, folders and globs on this machine, file:// URIs"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument is a local path that does not look like a table, a tar or a list."""
        return argument != "-" and get_scheme(argument) in ("", "file") and not is_container(argument)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without listing it."""
        files = LocalFileLister(argument, get_readable_suffixes(with_documents=True), options.walk)
        files.check_exists()
        return ImageFileSource(files, options)


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
        files = RemoteFileLister(argument, get_readable_suffixes(with_documents=True), options.walk)
        return ImageFileSource(files, options)


OBJECTS_KIND = ObjectsKind()
