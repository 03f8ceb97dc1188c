"""List objects, folders of objects and globs as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.errors import SourceError, StairError, UsageError
from stair_es.sources.base import ListingFailure, WalkOptions
from stair_es.sources.io.files import LeftOutReason, ListedFile
from stair_es.sources.io.glob import GLOB_MAGIC, GlobPattern, split_glob
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
from stair_es.sources.limits import NameCounter

_MAX_EMPTY_PAGES = 1000
"""Consecutive pages of a bucket's listing without an object."""
_MAX_FOLDER_DEPTH = 100
"""Folders within each other, below the listed one: a link on a server may lead back to a folder above it."""


class RemoteFileLister:
    """Lists the objects of a URL: the object itself, all below it, or the matches of a glob. Reads no content."""

    def __init__(self, argument: str, suffixes: frozenset[str], walk: WalkOptions | None = None) -> None:
        self._argument = argument
        self._hidden = bool(walk and walk.hidden)
        self.left_out = Counter[LeftOutReason]()
        self._suffixes = suffixes
        self.ignored = NameCounter()
        self.uri = strip_credentials(argument).rstrip("/")

    def list_files(self) -> Iterator[ListedFile | ListingFailure]:
        """Yield the objects, and the folders that cannot be listed."""
        if has_no_bucket(self._argument):
            raise UsageError(
                f"no bucket in {self._argument!r}",
                "Write s3://BUCKET/PREFIX, or the equivalent of another store.",
                code="no-bucket",
            )
        try:
            fs, path = open_file_system(self._argument)  # connects to the server
            info = _get_info(fs, path)
            if info is not None and info.get("type") == "file":
                yield self._build_listed_file(info)
                return
            is_glob = info is None and GLOB_MAGIC.search(path) is not None
            top, parts = split_glob(path) if is_glob else (path, ["**"])
            empty = True
            for listed in self._list_below(fs, top, GlobPattern(parts, hidden=self._hidden)):
                empty = False
                yield listed
        except StairError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"nothing at {self.uri!r}", "Check the spelling of bucket and path.", code="nothing-matches"
            ) from None
        except Exception as error:
            raise SourceError(
                f"{self.uri} can't be listed: {describe_store_error(error)}",
                "Check credentials, region and endpoint of the store.",
                code="listing-failed",
            ) from error
        if empty and not self.ignored and not self.left_out:
            raise UsageError(f"nothing at {self.uri!r}", "Check the spelling of bucket and path.", code="nothing-matches")

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
                self.ignored.add_name(get_suffix(name))

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
    if hasattr(fs, "call_s3") and hasattr(fs, "split_path"):
        yield from _list_s3_objects(fs, top)
        return
    pending, first = [top], True
    while pending:
        folder = pending.pop()
        if folder.count("/") - top.count("/") > _MAX_FOLDER_DEPTH:
            yield folder, f"more than {_MAX_FOLDER_DEPTH} folders within each other (a link to a folder above it?)"
            continue
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
        names = {str(entry["name"]) for entry in entries if entry["type"] == "directory"}
        below = (name for name in names if len(name.rstrip("/")) > len(folder.rstrip("/")))  # neither itself nor one above it
        pending += sorted(below, reverse=True)


def _list_s3_objects(fs: Any, top: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    """List a bucket of S3 page by page, flat and by key, so that a folder of millions is never in memory."""
    bucket, key, _ = fs.split_path(top)
    request = {"Bucket": bucket, "Prefix": key.rstrip("/") + "/" if key else "", **getattr(fs, "req_kw", {})}
    pages = empty_pages = 0
    kept_key, kept_until = None, 1
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        objects, pages = page.get("Contents") or [], pages + 1
        empty_pages = 0 if objects else empty_pages + 1
        # Brent's algorithm: keeps the first key of one page, and finds a cycle of any length.
        if empty_pages > _MAX_EMPTY_PAGES or (objects and objects[0]["Key"] == kept_key):
            raise SourceError(
                f"s3://{bucket} can't be listed to its end: the store repeats a page or sends empty ones ({pages:,} so far)",
                "The store is faulty. Specify a longer prefix, or a list of the objects.",
                code="listing-incomplete",
            )
        if objects and pages >= kept_until:
            kept_key, kept_until = objects[0]["Key"], 2 * pages
        for found in objects:
            if not found["Key"].endswith("/"):
                yield {**found, "name": f"{bucket}/{found['Key']}", "type": "file", "size": found["Size"]}
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
