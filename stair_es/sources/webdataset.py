"""The source kind `webdataset`: tars of samples, each an image and the files that share its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from stair_es.errors import ReadError, SourceError, UsageError
from stair_es.extras import need
from stair_es.sources.files import Found, LeftOut
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.limits import MEMBER_COST, SAMPLE_BYTES, SAMPLE_IMAGES, SAMPLE_TEXT_BYTES, within
from stair_es.sources.local_file import Inline
from stair_es.sources.local_files import LocalFiles
from stair_es.sources.opened import files_at, not_stdin
from stair_es.sources.paths import IMAGE_SUFFIXES, TAR, ends_with, is_hidden, scheme_of
from stair_es.sources.remote import clean
from stair_es.sources.tables import Expected
from stair_es.sources.tar import Broken, Member, MemberKind, members
from stair_es.sources.values import chosen, explain

_TEXTS = ("txt", "text", "caption", "json", "cls")


@dataclass(kw_only=True)
class _Sample:
    """Consecutive members with the same key."""

    key: str
    images: dict[str, Member] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    image_bytes: int = 0
    """In memory."""
    text_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Return whether no more images should wait for the texts of the sample."""
        return len(self.images) >= SAMPLE_IMAGES or self.image_bytes >= SAMPLE_BYTES


class Tars:
    """The samples of tars. `argument` is the argument with its braces, `arguments` its expansion."""

    def __init__(self, arguments: list[str], argument: str, options: SourceOptions) -> None:
        self._files = [files_at(argument, TAR, options.walk, check=len(arguments) == 1) for argument in arguments]
        self._options = options
        self._ignored: dict[str, int] = {}
        self._hidden = 0
        self._expected = Expected(options.columns.values())
        self.uri = _uri_of(argument) if len(arguments) > 1 else self._files[0].uri

    @property
    def ignored(self) -> Mapping[str, int]:
        """Return suffix -> number of members and files that are neither images nor text."""
        total = dict(self._ignored)
        for files in self._files:
            for suffix, count in files.ignored.items():
                total[suffix] = total.get(suffix, 0) + count
        return total

    @property
    def left_out(self) -> Mapping[LeftOut, int]:
        """Return reason -> number of files, folders and members left out."""
        total = Counter[LeftOut]({"hidden": self._hidden})
        for files in self._files:
            total.update(files.left_out)
        return total

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield one item per image. A tar that cannot be read to its end yields a `ListingFailure`; the others are read."""
        for each in self._all():
            yield each
            self._expected.check(self.uri)
        self._expected.check(self.uri, at_end=True)

    def _all(self) -> Iterator[Item | Unlisted]:
        for files in self._files:
            try:
                for each in files.found():
                    yield from [each] if isinstance(each, Unlisted) else self._samples(each)
            except (UsageError, SourceError) as error:
                if len(self._files) == 1:
                    raise
                yield Unlisted(files.uri, self.uri, error.message)  # one of many shards is missing

    def _samples(self, tar: Found) -> Iterator[Item | Unlisted]:
        sample = _Sample(key="")
        for each in members(tar, self._options.reading.max_bytes, self._find_kind):
            if self._is_left_out(each.name):
                continue
            if isinstance(each, Broken):
                if not each.name:
                    yield from self._taken(sample, tar)
                    sample = _Sample(key="")
                yield Unlisted(f"{tar.uri}#{quote(each.name)}" if each.name else tar.uri, self.uri, each.reason)
                continue
            key, suffix = split_key(each.name)
            if key != sample.key:
                yield from self._taken(sample, tar)
                sample = _Sample(key=key)
            elif sample.is_full:
                yield from self._taken(sample, tar)
                sample.images, sample.image_bytes = {}, 0
            reason = self._add(sample, suffix, each)
            if reason:
                yield Unlisted(f"{tar.uri}#{quote(each.name)}", self.uri, reason)
        yield from self._taken(sample, tar)

    def _add(self, sample: _Sample, suffix: str, member: Member) -> str | None:
        """Add a member to the sample, or return why it cannot be added."""
        if self._is_image(suffix):
            if suffix in sample.images:
                return "duplicate name in its sample"
            sample.images[suffix] = member
            sample.image_bytes += len(member.place.data) if isinstance(member.place, Inline) else 0
        elif member.data is not None:
            sample.text_bytes += len(member.data) + MEMBER_COST
            try:
                within(sample.text_bytes, SAMPLE_TEXT_BYTES)
                self._text(sample, suffix, member.data)
            except (ValueError, ReadError) as error:
                return f"not included in its sample's fields: {error}"
        else:
            self._count_ignored(suffix)
        return None

    def _text(self, sample: _Sample, suffix: str, data: bytes) -> None:
        if suffix.rpartition(".")[2] != "json":
            sample.columns[suffix] = data.decode().strip()
            return
        value = orjson.loads(data)
        if isinstance(value, dict):
            sample.columns |= value
        else:
            sample.columns[suffix] = value

    def _taken(self, sample: _Sample, tar: Found) -> Iterator[Item | Unlisted]:
        if not sample.images:
            return
        columns = {"__key__": sample.key, **sample.columns} if self._options.columns else sample.columns
        self._expected.saw(columns)
        try:
            fields = chosen(columns, self._options.columns, None)
        except Exception as error:  # noqa: BLE001  the following samples must be read
            for member in sample.images.values():
                yield Unlisted(f"{tar.uri}#{quote(member.name)}", self.uri, explain(error))
            return
        for member in sample.images.values():
            version = f"{tar.version}#{member.name}" if tar.version else None
            yield Item(f"{tar.uri}#{quote(member.name)}", self.uri, member.place, version, fields)

    def _is_left_out(self, name: str) -> bool:
        """Return whether a member is hidden; count it if it would be used otherwise."""
        if self._options.walk.hidden or not any(map(is_hidden, name.split("/"))):
            return False
        suffix = split_key(name)[1]
        if self._find_kind(name):
            self._hidden += 1
        else:
            self._count_ignored(suffix)
        return True

    def _count_ignored(self, suffix: str) -> None:
        last = "." + suffix.rpartition(".")[2] if suffix else ""
        self._ignored[last] = self._ignored.get(last, 0) + 1

    def _is_image(self, suffix: str) -> bool:
        if self._options.image_column:
            return suffix == self._options.image_column.lower().lstrip(".")
        return "." + suffix.rpartition(".")[2] in IMAGE_SUFFIXES

    def _find_kind(self, name: str) -> MemberKind | None:
        suffix = split_key(name)[1]
        if self._is_image(suffix):
            return "image"
        return "text" if suffix.rpartition(".")[2] in _TEXTS else None


def _uri_of(argument: str) -> str:
    """Return the URI of tars in braces, unexpanded, so that another folder has another URI, and without credentials."""
    if scheme_of(argument) not in ("", "file"):
        return clean(argument)
    uri = LocalFiles(argument, TAR).uri
    return uri.replace("%7B", "{").replace("%7D", "}").replace("%2C", ",")


def split_key(name: str) -> tuple[str, str]:
    """Split a member's name into key and suffix, at the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


@dataclass(frozen=True)
class WebdatasetKind:
    """Opens `webdataset` sources."""

    name: str = "webdataset"
    description: str = "webdataset tars (.tar, .tar.gz), {0000..0127} for many; local or remote, globs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument has a tar suffix."""
        return ends_with(argument, TAR)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            MissingExtra: If the argument has braces and braceexpand is not installed.
            UsageError: If braces are unbalanced, or the argument is standard input or a path that does not exist.
        """
        not_stdin(argument, "a tar")
        arguments = [argument]
        if "{" in argument:
            braceexpand = need("braceexpand", "webdataset")
            try:
                arguments = list(braceexpand.braceexpand(argument))
            except ValueError as error:
                raise UsageError(f"can't expand {clean(argument)!r}: {error}", "Write {0000..0127} or {a,b}.") from None
        return Tars(arguments, argument, options)


KIND = WebdatasetKind()
