"""List objects, folders of objects and globs as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.errors import SourceError, StairError, UsageError
from stair_es.sources.base import ListingFailure, WalkOptions
from stair_es.sources.io.files import LeftOutReason, ListedFile
from stair_es.sources.io.glob import GLOB_MAGIC, GlobPattern
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.remote import (
    build_object_url,
    describe_store_error,
    get_modification_time,
    get_object_version,
    has_no_bucket,
    open_file_system,
    strip_credentials,
)
from stair_es.sources.io.uris import get_suffix, has_suffix, is_hidden

_PAGE = 1000


class RemoteFileLister:
    """Lists the objects of a URL: the object itself, all below it, or the matches of a glob. Reads no content."""

    def __init__(self, argument: str, suffixes: frozenset[str], walk: WalkOptions | None = None) -> None:
        self._argument = argument
        self._hidden = bool(walk and walk.hidden)
        self.left_out = Counter[LeftOutReason]()
        self._suffixes = suffixes
        self.ignored = Counter[str]()
        self.uri = strip_credentials(argument).rstrip("/")

    def list_files(self) -> Iterator[ListedFile | ListingFailure]:
        """Yield the objects, and the folders that cannot be listed."""
        if has_no_bucket(self._argument):
            raise UsageError(f"no bucket in {self._argument!r}", "Write s3://BUCKET/PREFIX, or the equivalent of another store.")
        try:
            fs, path = open_file_system(self._argument)  # connects to the server
            info = _get_info(fs, path)
            if info is not None and info.get("type") == "file":
                yield self._build_listed_file(info)
                return
            globbed = info is None and bool(GLOB_MAGIC.search(path))
            parts = path.split("/")
            first = next((i for i, part in enumerate(parts) if GLOB_MAGIC.search(part)), len(parts)) if globbed else len(parts)
            top, pattern = "/".join(parts[:first]), GlobPattern(parts[first:] if globbed else ["**"], hidden=self._hidden)
            empty = True
            for listed in self._list_below(fs, top, pattern):
                empty = False
                yield listed
        except StairError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"nothing at {self.uri!r}", "Check the spelling of bucket and path.") from None
        except Exception as error:
            raise SourceError(
                f"{self.uri} can't be listed: {describe_store_error(error)}",
                "Check credentials, region and endpoint of the store.",
            ) from error
        if empty and not self.ignored and not self.left_out:
            raise UsageError(f"nothing at {self.uri!r}", "Check the spelling of bucket and path.")

    def _list_below(self, fs: Any, top: str, pattern: GlobPattern) -> Iterator[ListedFile | ListingFailure]:  # noqa: ANN401
        prefix = top.rstrip("/") + "/"
        for info in _list_entries(fs, top):
            if isinstance(info, tuple):
                yield ListingFailure(
                    strip_credentials(build_object_url(self._argument, info[0])), self.uri, f"folder can't be listed: {info[1]}"
                )
                continue
            name = str(info["name"])
            parts = (name[len(prefix) :] if name.startswith(prefix) else name).split("/")
            matched = _count_matched_parts(pattern, parts)
            if matched is None:
                continue
            is_included = has_suffix(parts[-1], self._suffixes)
            if not self._hidden and any(map(is_hidden, parts[matched:])):
                self.left_out["hidden"] += is_included
            elif is_included:
                yield self._build_listed_file(info)
            else:
                self.ignored[get_suffix(name)] += 1

    def _build_listed_file(self, info: Mapping[str, Any]) -> ListedFile:
        url, size, version = build_object_url(self._argument, str(info["name"])), info.get("size"), get_object_version(info)
        locator = ObjectLocator.from_url(url, size, get_modification_time(info))
        return ListedFile(strip_credentials(url), locator, size, version)


def _get_info(fs: Any, path: str) -> Mapping[str, Any] | None:  # noqa: ANN401
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError:
        return None
    return info


def _count_matched_parts(pattern: GlobPattern, parts: Sequence[str]) -> int | None:
    """Return how many parts of a name the glob matches, all or those of a parent folder; None if it does not match."""
    states = pattern.start_states
    for i, part in enumerate(parts):
        if pattern.is_complete(states):
            return i
        states = pattern.match_name(states, part)
    return len(parts) if pattern.is_complete(states) else None


def _list_entries(fs: Any, top: str) -> Iterator[Mapping[str, Any] | tuple[str, str]]:  # noqa: ANN401
    """Yield the objects below `top`, or (folder, reason) for a folder that cannot be listed."""
    if hasattr(fs, "_iterdir") and hasattr(fs, "split_path"):
        yield from _list_s3_pages(fs, top)
        return
    pending, first = [top], True
    while pending:
        folder = pending.pop()
        try:
            entries = fs.ls(folder, detail=True)
        except Exception as error:
            if first:
                raise
            yield folder, describe_store_error(error)
            continue
        finally:
            first = False
        files = [entry for entry in entries if entry["type"] == "file" and not str(entry["name"]).endswith("/")]
        yield from sorted(files, key=lambda entry: str(entry["name"]))
        folders = {str(entry["name"]) for entry in entries if entry["type"] == "directory"} - {folder}
        pending += sorted(folders, reverse=True)


def _list_s3_pages(fs: Any, top: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    """List a bucket of S3 page by page, flat and by key, so that a folder of millions is never in memory."""
    from fsspec.asyn import sync  # type: ignore[import-untyped]

    bucket, key, _ = fs.split_path(top)
    stream = fs._iterdir(bucket, delimiter="", prefix=key.rstrip("/") + "/" if key else "")

    async def fetch_page() -> list[Mapping[str, Any]]:
        page = list[Mapping[str, Any]]()
        async for entry in stream:
            page.append(entry)
            if len(page) == _PAGE:
                break
        return page

    while entries := sync(fs.loop, fetch_page):
        yield from (entry for entry in entries if entry.get("type") == "file" and not str(entry["name"]).endswith("/"))
