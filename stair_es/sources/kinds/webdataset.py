"""The source kind `webdataset`: tars of samples, each an image and the files that share its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from stair_es.errors import ReadError, SourceError, UsageError
from stair_es.optional import import_optional
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.image.isolated import get_readable_suffixes
from stair_es.sources.io.files import LeftOutReason, ListedFile
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.io.local_listing import LocalFileLister
from stair_es.sources.io.open_file import check_not_stdin, create_file_lister
from stair_es.sources.io.remote import strip_credentials
from stair_es.sources.io.uris import TAR_SUFFIXES, get_scheme, has_source_suffix, is_hidden
from stair_es.sources.kinds.fields import describe_row_error, select_fields
from stair_es.sources.kinds.table import ColumnTracker
from stair_es.sources.kinds.tar import BrokenMember, MemberKind, TarMember, read_tar_members
from stair_es.sources.limits import (
    MAX_SAMPLE_BYTES,
    MAX_SAMPLE_IMAGES,
    MAX_SAMPLE_TEXT_BYTES,
    MEMBER_COST,
    NameCounter,
    check_size,
)

_TEXTS = ("txt", "text", "caption", "json", "cls")


@dataclass(kw_only=True)
class _Sample:
    """Consecutive members with the same key."""

    key: str
    images: dict[str, TarMember] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    image_bytes: int = 0
    text_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Return whether no more images should wait for the texts of the sample."""
        return len(self.images) >= MAX_SAMPLE_IMAGES or self.image_bytes >= MAX_SAMPLE_BYTES


class WebdatasetSource:
    """The samples of tars. `argument` is the argument with its braces, `arguments` its expansion.

    With `stream`, an item's locator has the bytes of its image, and each tar is read once from begin to end.
    """

    def __init__(self, arguments: list[str], argument: str, options: SourceOptions, *, stream: bool = False) -> None:
        self._files = [
            create_file_lister(argument, TAR_SUFFIXES, options.walk, check=len(arguments) == 1) for argument in arguments
        ]
        self._options, self._stream = options, stream
        self._image_suffixes = get_readable_suffixes()
        self._ignored = NameCounter()
        self._hidden = 0
        self._expected = ColumnTracker(options.columns.values())
        self.uri = _build_source_uri(argument) if len(arguments) > 1 else self._files[0].uri

    @property
    def ignored(self) -> Mapping[str, int]:
        """Return suffix -> number of members and files that are neither images nor text."""
        total = self._ignored.copy()
        for files in self._files:
            for suffix, count in files.ignored.items():
                total.add_name(suffix, count)
        return total

    @property
    def left_out(self) -> Mapping[LeftOutReason, int]:
        """Return reason -> number of files, folders and members left out."""
        total = Counter[LeftOutReason]({"hidden": self._hidden})
        for files in self._files:
            total.update(files.left_out)
        return total

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per image. A tar that cannot be read to its end yields a `ListingFailure`; the others are read."""
        for item in self._list_all():
            yield item
            self._expected.check_missing(self.uri)
        self._expected.check_missing(self.uri, at_end=True)

    def _list_all(self) -> Iterator[SourceItem | ListingFailure]:
        for files in self._files:
            try:
                for file in files.list_files():
                    yield from [file] if isinstance(file, ListingFailure) else self._read_samples(file)
            except (UsageError, SourceError) as error:
                if len(self._files) == 1:
                    raise
                yield ListingFailure(files.uri, self.uri, error.message)  # one of many shards is missing

    def _read_samples(self, tar: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        sample = _Sample(key="")
        for member in read_tar_members(tar, self._options.read_limits.max_bytes, self._find_kind, stream=self._stream):
            if self._is_left_out(member.name):
                continue
            if isinstance(member, BrokenMember):
                if not member.name:
                    yield from self._build_items(sample, tar)
                    sample = _Sample(key="")
                yield ListingFailure(f"{tar.uri}#{quote(member.name)}" if member.name else tar.uri, self.uri, member.reason)
                continue
            key, suffix = split_sample_key(member.name)
            if key != sample.key:
                yield from self._build_items(sample, tar)
                sample = _Sample(key=key)
            elif sample.is_full:
                yield from self._build_items(sample, tar)
                sample.images, sample.image_bytes = {}, 0
            reason = self._add_member(sample, suffix, member)
            if reason:
                yield ListingFailure(f"{tar.uri}#{quote(member.name)}", self.uri, reason)
        yield from self._build_items(sample, tar)

    def _add_member(self, sample: _Sample, suffix: str, member: TarMember) -> str | None:
        """Add a member to the sample, or return why it cannot be added."""
        if self._is_image(suffix):
            if suffix in sample.images:
                return "duplicate name in its sample"
            sample.images[suffix] = member
            sample.image_bytes += len(member.locator.data) if isinstance(member.locator, InlineBytes) else 0
        elif member.data is not None:
            sample.text_bytes += len(member.data) + MEMBER_COST
            try:
                check_size(sample.text_bytes, MAX_SAMPLE_TEXT_BYTES)
                self._add_text(sample, suffix, member.data)
            except (ValueError, ReadError) as error:
                return f"not included in its sample's fields: {error}"
        else:
            self._count_ignored(suffix)
        return None

    def _add_text(self, sample: _Sample, suffix: str, data: bytes) -> None:
        if suffix.rpartition(".")[2] != "json":
            sample.columns[suffix] = data.decode().strip()
            return
        value = orjson.loads(data)
        if isinstance(value, dict):
            sample.columns |= value
        else:
            sample.columns[suffix] = value

    def _build_items(self, sample: _Sample, tar: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        if not sample.images:
            return
        columns = {"__key__": sample.key, **sample.columns} if self._options.columns else sample.columns
        self._expected.observe_row(columns)
        try:
            fields = select_fields(columns, self._options.columns, None)
        except Exception as error:  # noqa: BLE001  the following samples must be read
            for member in sample.images.values():
                yield ListingFailure(f"{tar.uri}#{quote(member.name)}", self.uri, describe_row_error(error))
            return
        for member in sample.images.values():
            version = f"{tar.version}#{member.name}" if tar.version else None
            yield SourceItem(f"{tar.uri}#{quote(member.name)}", self.uri, member.locator, version, fields)

    def _is_left_out(self, name: str) -> bool:
        """Return whether a member is hidden; count it if it would be used otherwise."""
        if self._options.walk.hidden or not any(map(is_hidden, name.split("/"))):
            return False
        suffix = split_sample_key(name)[1]
        if self._find_kind(name):
            self._hidden += 1
        else:
            self._count_ignored(suffix)
        return True

    def _count_ignored(self, suffix: str) -> None:
        self._ignored.add_name("." + suffix.rpartition(".")[2] if suffix else "")

    def _is_image(self, suffix: str) -> bool:
        if self._options.image_column:
            return suffix == self._options.image_column.lower().lstrip(".")
        return "." + suffix.rpartition(".")[2] in self._image_suffixes

    def _find_kind(self, name: str) -> MemberKind | None:
        suffix = split_sample_key(name)[1]
        if self._is_image(suffix):
            return "image"
        return "text" if suffix.rpartition(".")[2] in _TEXTS else None


def _build_source_uri(argument: str) -> str:
    """Return the URI of tars in braces, unexpanded, so that another folder has another URI, and without credentials."""
    if get_scheme(argument) not in ("", "file"):
        return strip_credentials(argument)
    uri = LocalFileLister(argument, TAR_SUFFIXES).uri
    return uri.replace("%7B", "{").replace("%7D", "}").replace("%2C", ",")


def split_sample_key(name: str) -> tuple[str, str]:
    """Split a member's name into key and suffix, at the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


class WebdatasetKind:
    """Opens `webdataset` sources."""

    name = "webdataset"
    description = "webdataset tars (.tar, .tar.gz), {0000..0127} for many; local or remote, globs"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument has a tar suffix."""
        return has_source_suffix(argument, TAR_SUFFIXES)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        check_not_stdin(argument, "a tar")
        return WebdatasetSource(expand_braces(argument), argument, options)


def expand_braces(argument: str) -> list[str]:
    """Return the arguments that one with braces stands for: `{0000..0127}` or `{a,b}`.

    Raises:
        MissingExtra: If it has braces, and braceexpand isn't installed.
        UsageError: If the braces don't match.
    """
    if "{" not in argument:
        return [argument]
    braceexpand = import_optional("braceexpand", "webdataset")
    try:
        return list(braceexpand.braceexpand(argument))
    except ValueError as error:
        raise UsageError(
            f"can't expand {strip_credentials(argument)!r}: {error}", "Write {0000..0127} or {a,b}.", code="invalid-brace-pattern"
        ) from None


KIND = WebdatasetKind()
