"""List local files, folders and globs as a stream: one folder is open at a time, its names are read in batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from stair_es.errors import UsageError
from stair_es.sources.base import ListingFailure, WalkOptions
from stair_es.sources.io.files import LeftOutReason, ListedFile
from stair_es.sources.io.glob import GLOB_MAGIC, GlobPattern, GlobStates, split_glob
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import from_file_uri, get_file_version, get_suffix, has_suffix, is_hidden, join_uri
from stair_es.sources.limits import NameCounter

SORT_BATCH = 10_000
"""Names of a folder that are sorted together: ordered by name in folders of usual size, bounded memory in larger ones."""
_REMEDY = "SOURCE is a file, a folder or a glob on this machine, or a URL (docs/sources.md has them all)."


class PathSelection:
    """Selected paths and everything below them, in a walk of their folders."""

    def __init__(self, paths: Iterable[str], *, by_stem: bool = False) -> None:
        """Select paths; with `by_stem`, also the files next to one that differ in the suffix only."""
        self._paths = frozenset(paths)
        self._ways = frozenset(str(folder) for path in self._paths for folder in Path(path).parents)
        self._stems = frozenset(path.rpartition(".")[0] for path in self._paths) if by_stem else frozenset[str]()

    def is_on_way(self, path: str) -> bool:
        """Return whether a path is selected, or leads to one that is."""
        return path in self._ways or path in self._paths or path.rpartition(".")[0] in self._stems or self._is_below(path)

    def _is_below(self, path: str) -> bool:
        return any(str(folder) in self._paths for folder in Path(path).parents)


class LocalFileLister:
    """Lists the files of a path: the file itself, all files below a folder, or the matches of a glob.

    Hidden names and links that lead out of the folder are left out, unless `walk` includes them. Links to folders are followed
    after the real folders, each real folder once: loops end, and a new link never gives an old file a new URI. A file that
    the argument names itself is included with any suffix.
    """

    def __init__(self, argument: str, suffixes: frozenset[str], walk: WalkOptions | None = None) -> None:
        self._argument, self._walk = argument, walk or WalkOptions()
        self.left_out = Counter[LeftOutReason]()
        self._suffixes = suffixes
        self.ignored = NameCounter()
        text = str(from_file_uri(argument)) if argument.startswith("file://") else os.path.expanduser(argument)  # noqa: PTH111
        self._path = os.path.abspath(text)  # noqa: PTH100  resolves `..` without following links
        self._is_glob = not argument or (not os.path.lexists(self._path) and GLOB_MAGIC.search(text) is not None)
        self._folder, parts = split_glob(self._path) if self._is_glob else (self._path, [])
        self._pattern = GlobPattern(parts, hidden=self._walk.hidden)
        self._real = os.path.realpath(self._folder)
        self.selection: PathSelection | None = None
        """What to list; None for everything."""
        self.uri = Path(self._folder).as_uri() + "".join("/" + quote(part, safe="*?[]!") for part in parts)

    def check_exists(self) -> None:
        """Raise UsageError if the file, or the folder of a glob, does not exist."""
        if not self._argument or not os.path.lexists(self._folder):
            raise UsageError(f"no such file or folder: {self._argument!r}", _REMEDY, code="no-such-file")

    @property
    def folder(self) -> str | None:
        """Return the folder that is listed; None for a single file."""
        return self._folder if self._is_glob or os.path.isdir(self._path) else None  # noqa: PTH112

    def locate_change(self, path: str) -> str:
        """Return the path under which a walk comes to a changed file or folder: without links that lead back into the folder."""
        head, name = os.path.split(path)
        real = os.path.realpath(head)
        inside = Path(real).is_relative_to(self._real)
        return os.path.normpath(os.path.join(self._folder, os.path.relpath(real, self._real), name)) if inside else path  # noqa: PTH118

    def list_files(self) -> Iterator[ListedFile | ListingFailure]:
        """Yield the files, and the folders that cannot be listed."""
        self.check_exists()
        if not self._is_glob and not os.path.isdir(self._path):  # noqa: PTH112  Path.is_dir raises for what may not be looked at
            yield replace(_build_listed_file(Path(self._path).as_uri(), self._path), is_named=True)
            return
        empty, start = True, self._pattern.start_states
        for listed in self._walk_folders(None if self._pattern.is_complete(start) else start):
            empty = False
            yield listed
        if self._is_glob and empty and not self.ignored and not self.left_out and self.selection is None:
            raise UsageError(
                f"nothing matches {self._argument!r}",
                "Quote the pattern, and use ** to match subfolders.",
                code="nothing-matches",
            )

    def _walk_folders(self, states: GlobStates | None) -> Iterator[ListedFile | ListingFailure]:
        """Yield the files below the folder.

        `states`: of the pattern in a folder; None if everything below matches.
        """
        entered, unreadable = set[tuple[int, int, GlobStates | None]](), set[str]()
        folders: list[tuple[str, GlobStates | None]] = [(self._folder, states)]
        links: list[tuple[str, GlobStates | None]] = []
        while folders or links:
            path, states = folders.pop() if folders else links.pop(0)
            below: list[tuple[str, GlobStates | None]] = []
            try:
                status = os.stat(path)  # noqa: PTH116
                identity = (status.st_dev, status.st_ino)
                if (*identity, None) in entered or (*identity, states) in entered:
                    continue
                entered.add((*identity, states))
                yield from self._list_folder(path, states, below, links)
            except OSError as error:
                if path not in unreadable:
                    unreadable.add(path)
                    yield ListingFailure(Path(path).as_uri(), self.uri, f"folder can't be listed: {error.strerror or error}")
            folders += sorted(below, key=lambda folder: folder[0], reverse=True)

    def _list_folder(
        self,
        path: str,
        states: GlobStates | None,
        below: list[tuple[str, GlobStates | None]],
        links: list[tuple[str, GlobStates | None]],
    ) -> Iterator[ListedFile]:
        folder_uri = Path(path).as_uri()
        with os.scandir(path) as entries:
            while batch := list(islice(entries, SORT_BATCH)):
                for entry in sorted(batch, key=lambda entry: entry.name):
                    if self.selection is not None and not self.selection.is_on_way(entry.path):
                        continue
                    after = None if states is None else self._pattern.match_name(states, entry.name)
                    if after is not None and not after:
                        continue
                    whole = after is None or self._pattern.is_complete(after)
                    is_folder = _is_folder(entry)
                    if not is_folder and not whole:
                        continue
                    if not is_folder and not has_suffix(entry.name, self._suffixes):
                        self.ignored.add_name(get_suffix(entry.name))
                    elif reason := self._find_reason(entry, whole=after is None):
                        self.left_out[reason] += 1
                    elif is_folder:
                        (links if entry.is_symlink() else below).append((entry.path, None if whole else after))
                    else:
                        yield _build_listed_file(join_uri(folder_uri, entry.name), entry)

    def _find_reason(self, entry: os.DirEntry[str], *, whole: bool) -> LeftOutReason | None:
        """Return why a file or folder is left out, or None; `whole`: no part of a pattern names it."""
        if whole and not self._walk.hidden and is_hidden(entry.name):
            return "hidden"
        if self._walk.follow_links or not entry.is_symlink() or not os.path.exists(entry.path):  # noqa: PTH110  as is_dir above
            return None  # a broken link: reading it reports the reason
        return None if Path(os.path.realpath(entry.path)).is_relative_to(self._real) else "links"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a broken link: reading it reports the reason


def _build_listed_file(uri: str, file: str | os.DirEntry[str]) -> ListedFile:
    """Return the file with size and version. A file without status is included too; reading it reports the reason."""
    try:
        status = file.stat() if isinstance(file, os.DirEntry) else os.stat(file)  # noqa: PTH116
    except OSError:
        return ListedFile(uri, FileLocator(uri))
    return ListedFile(uri, FileLocator(uri), status.st_size, get_file_version(status))
