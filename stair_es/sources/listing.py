"""Which images a run is about: files, folders and globs become `file://` URIs, each exactly once."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from stair_es.errors import UsageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".avifs"}
    | {".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)


@dataclass(frozen=True)
class ImageRef:
    """One image to take in."""

    uri: str
    source: str
    """URI of the SOURCE argument that it was found under."""


@dataclass(kw_only=True)
class Listing:
    """What the sources hold."""

    images: list[ImageRef] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Files of folders and globs that are no images by their suffix: how many of each."""
    unlisted: list[tuple[ImageRef, str]] = field(default_factory=list)
    """Folders that couldn't be read, with the reason: what is in them is unknown, so they must not pass in silence."""


def list_images(sources: Sequence[str]) -> Listing:
    """The images of `sources`: a file as it is, a folder with all below it, a glob (`**` too), a `file://` URI.

    Links to folders are followed, each real folder once, so a loop ends. Order is by name.

    Raises:
        UsageError: A source doesn't exist, matches nothing, or has a scheme that isn't read.
    """
    listing, taken, entered = Listing(), set[str](), set[tuple[int, int]]()
    for source in sources:
        for path, named in _paths(source):
            root = path.as_uri()
            if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for what may not be looked at
                _walk(path, root, listing, taken, entered)
            else:
                _take(path, root if named else path.parent.as_uri(), listing, taken, any_suffix=named)
    return listing


def uri_of(path: str | Path) -> str:
    """The `file://` URI of a local path, links in it left as they are."""
    return Path(os.path.abspath(path)).as_uri()  # noqa: PTH100  resolves `..` without following links


def path_of(uri: str) -> Path:
    """The local path of a `file://` URI, whatever bytes are in its name."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))


def _paths(source: str) -> Iterator[tuple[Path, bool]]:
    """The paths that a SOURCE argument stands for, and whether it names them itself."""
    if source.startswith("file://"):
        source = str(path_of(source))
    elif "://" in source:
        raise UsageError(f"can't read {source!r}", "SOURCE is a file, a folder or a glob on this machine.")
    expanded = os.path.expanduser(source)  # noqa: PTH111  Path would normalise what the user's glob means
    path = Path(os.path.abspath(expanded))  # noqa: PTH100  resolves `..` without following links
    if source and os.path.lexists(path):
        yield path, True
        return
    if source and glob.has_magic(expanded):
        matches = sorted(glob.glob(expanded, recursive=True))  # noqa: PTH207  absolute patterns, recursive links
        if matches:
            yield from ((Path(os.path.abspath(match)), False) for match in matches)  # noqa: PTH100
            return
        raise UsageError(f"nothing matches {source!r}", "Quote the pattern, and use ** to go into folders.")
    raise UsageError(f"no such file or folder: {source!r}", "SOURCE is a file, a folder or a glob on this machine.")


def _walk(top: Path, root: str, listing: Listing, taken: set[str], entered: set[tuple[int, int]]) -> None:
    """Take what is below `top`: real folders, then linked ones, so that a new link never gives an old image a new URI."""

    def unlisted(error: OSError) -> None:
        uri = Path(error.filename).as_uri()
        if uri not in taken:
            taken.add(uri)
            listing.unlisted.append((ImageRef(uri, root), f"folder can't be listed: {error.strerror}"))

    waiting = [os.fspath(top)]
    while waiting:
        for folder, subfolders, files in os.walk(waiting.pop(0), onerror=unlisted):
            try:
                status = os.stat(folder)  # noqa: PTH116
            except OSError as error:
                unlisted(error)
                subfolders.clear()
                continue
            if (status.st_dev, status.st_ino) in entered:
                subfolders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            subfolders.sort()
            waiting += [path for name in subfolders if os.path.islink(path := os.path.join(folder, name))]  # noqa: PTH114, PTH118
            for name in sorted(files):
                _take(Path(folder, name), root, listing, taken, any_suffix=False)


def _take(path: Path, root: str, listing: Listing, taken: set[str], *, any_suffix: bool) -> None:
    suffix = path.suffix.lower()
    if not any_suffix and suffix not in IMAGE_SUFFIXES:
        listing.ignored[suffix] += 1
        return
    uri = path.as_uri()
    if uri not in taken:
        taken.add(uri)
        listing.images.append(ImageRef(uri, root))
