"""List objects, folders of objects and globs as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.errors import SourceError, StairError, UsageError
from stair_es.sources.files import Found, LeftOut
from stair_es.sources.item import Unlisted, Walk
from stair_es.sources.object_places import ObjectAt
from stair_es.sources.paths import has_suffix, is_hidden, suffix_of
from stair_es.sources.patterns import MAGIC, Pattern
from stair_es.sources.remote import clean, file_system, names_nothing, reason_of, url_in, version_of

_PAGE = 1000


class RemoteFiles:
    """Lists the objects of a URL: the object itself, all below it, or the matches of a glob. Reads no content."""

    def __init__(self, argument: str, suffixes: frozenset[str], walk: Walk | None = None) -> None:
        self._argument = argument
        self._hidden = bool(walk and walk.hidden)
        self.left_out = Counter[LeftOut]()
        self._suffixes = suffixes
        self.ignored = Counter[str]()
        self.uri = clean(argument).rstrip("/")

    def found(self) -> Iterator[Found | Unlisted]:
        """Yield the objects, and the folders that cannot be listed."""
        if names_nothing(self._argument):
            raise UsageError(
                f"no bucket is named in {self._argument!r}", "Write s3://BUCKET/PREFIX, or the like of another store."
            )
        try:
            fs, path = file_system(self._argument)  # connects to the server
            info = _info(fs, path)
            if info is not None and info.get("type") == "file":
                yield self._one(fs, info)
                return
            globbed = info is None and bool(MAGIC.search(path))
            parts = path.split("/")
            first = next((i for i, part in enumerate(parts) if MAGIC.search(part)), len(parts)) if globbed else len(parts)
            top, pattern = "/".join(parts[:first]), Pattern(parts[first:] if globbed else ["**"], hidden=self._hidden)
            nothing = True
            for each in self._below(fs, top, pattern):
                nothing = False
                yield each
        except StairError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"nothing at {self.uri!r}", "Check the spelling of bucket and path.") from None
        except Exception as error:
            raise SourceError(
                f"{self.uri} can't be listed: {reason_of(error)}", "Check credentials, region and endpoint of the store."
            ) from error
        if nothing and not self.ignored and not self.left_out:
            raise UsageError(f"nothing at {self.uri!r}", "Check the spelling of bucket and path.")

    def _below(self, fs: Any, top: str, pattern: Pattern) -> Iterator[Found | Unlisted]:  # noqa: ANN401
        prefix = top.rstrip("/") + "/"
        for info in _entries(fs, top):
            if isinstance(info, tuple):
                yield Unlisted(clean(url_in(self._argument, info[0])), self.uri, f"folder can't be listed: {info[1]}")
                continue
            name = str(info["name"])
            parts = (name[len(prefix) :] if name.startswith(prefix) else name).split("/")
            matched = _match(pattern, parts)
            if matched is None:
                continue
            wanted = has_suffix(parts[-1], self._suffixes)
            if not self._hidden and any(map(is_hidden, parts[matched:])):
                self.left_out["hidden"] += wanted
            elif wanted:
                yield self._one(fs, info)
            else:
                self.ignored[suffix_of(name)] += 1

    def _one(self, fs: Any, info: Mapping[str, Any]) -> Found:  # noqa: ANN401
        url, size, version = url_in(self._argument, str(info["name"])), info.get("size"), version_of(info)
        return Found(clean(url), ObjectAt.of(url, size=size), size, version)


def _info(fs: Any, path: str) -> Mapping[str, Any] | None:  # noqa: ANN401
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError:
        return None
    return info


def _match(pattern: Pattern, parts: Sequence[str]) -> int | None:
    """Return how many parts of a name the glob matches, all or those of a parent folder; None if it does not match."""
    states = pattern.start
    for i, part in enumerate(parts):
        if pattern.matched(states):
            return i
        states = pattern.step(states, part)
    return len(parts) if pattern.matched(states) else None


def _entries(fs: Any, top: str) -> Iterator[Mapping[str, Any] | tuple[str, str]]:  # noqa: ANN401
    """Yield the objects below `top`, or (folder, reason) for a folder that cannot be listed."""
    if hasattr(fs, "_iterdir") and hasattr(fs, "split_path"):
        yield from _pages(fs, top)
        return
    waiting, first = [top], True
    while waiting:
        folder = waiting.pop()
        try:
            entries = fs.ls(folder, detail=True)
        except Exception as error:
            if first:
                raise
            yield folder, reason_of(error)
            continue
        finally:
            first = False
        files = [entry for entry in entries if entry["type"] == "file" and not str(entry["name"]).endswith("/")]
        yield from sorted(files, key=lambda entry: str(entry["name"]))
        folders = {str(entry["name"]) for entry in entries if entry["type"] == "directory"} - {folder}
        waiting += sorted(folders, reverse=True)


def _pages(fs: Any, top: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    """List a bucket of S3 page by page, flat and by key, so that a folder of millions is never in memory."""
    from fsspec.asyn import sync  # type: ignore[import-untyped]

    bucket, key, _ = fs.split_path(top)
    stream = fs._iterdir(bucket, delimiter="", prefix=key.rstrip("/") + "/" if key else "")

    async def page() -> list[Mapping[str, Any]]:
        taken = list[Mapping[str, Any]]()
        async for entry in stream:
            taken.append(entry)
            if len(taken) == _PAGE:
                break
        return taken

    while entries := sync(fs.loop, page):
        yield from (entry for entry in entries if entry.get("type") == "file" and not str(entry["name"]).endswith("/"))
