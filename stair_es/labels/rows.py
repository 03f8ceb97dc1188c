"""Rows of label files, in the forms that services and catalogs write. Pure, except for the sources that read them.

A row is about one image, or has a part per image (`outputs`, `responses`). The labels of a part are the first list or object
under one of `_LIST_NAMES`, at most `_MAX_DEPTH` levels deep, or one label in columns of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from stair_es.errors import UsageError
from stair_es.feature_names import normalize_label
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.io.open_file import create_file_lister
from stair_es.sources.io.uris import CSV_SUFFIXES, JSONL_SUFFIXES, has_source_suffix
from stair_es.sources.kinds.csv import CsvSource
from stair_es.sources.kinds.jsonl import JsonLinesSource
from stair_es.types import is_utf8

MAX_LABELS = 1000
"""Of an image. Services give some dozens."""
MAX_LABEL_CHARS = 200
_DIGITS, _MIN_CONFIDENCE = 6, 1e-6
_MAX_REFERENCES, _MAX_COLUMNS = 20, 1000
_MAX_DEPTH = 5
_PARTS = ("outputs", "responses")
_LIST_NAMES = ("labels", "tags", "concepts", "labelannotations", "keywords", "subject", "categories", "predictions", "values")
_NAMES = ("name", "label", "labelname", "description", "tag", "class", "keyword")
_WEIGHTS = ("confidence", "score", "accuracy", "probability", "weight", "value")
_REFERENCES = (
    *("uri", "image_url", "url", "sourcefile", "image_path", "path", "image", "file", "file_name", "filename", "key"),
    *("id", "image_id", "imageid"),
)
_REQUESTS = ("image", "s3object", "context", "input", "data", "request")
_REKOGNITION = {"Name", "Confidence"}
"""The keys of a label of Rekognition, which writes percentages."""
_SEPARATOR = re.compile(r"\s*[;|,]\s*")
_WEIGHTED_TEXT = re.compile(r"(?P<name>.+):(?P<weight>[01]|0?\.\d+)")


@dataclass(frozen=True, kw_only=True)
class LabeledImage:
    """The labels of an image."""

    where: str
    """The row, such as `labels.jsonl#line=7`."""
    references: tuple[str, ...]
    """What may name the image: URIs, paths, file names or ids, the most exact one first."""
    labels: Mapping[str, float]
    """Label as `normalize_label` returns it -> weight, above 0 and at most 1."""


@dataclass(frozen=True)
class RowFailure:
    """A row, or a part of one, that can't be read."""

    where: str
    reason: str
    row: Mapping[str, Any]


class _Entry(NamedTuple):
    name: str
    weight: float | None
    """As written; None for a label without a confidence, which a person gave."""
    is_percent: bool = False
    """Whether the form alone says that it is a percentage."""


class _RawImage(NamedTuple):
    where: str
    references: tuple[str, ...]
    entries: list[_Entry]
    row: Mapping[str, Any]

    def build(self, scale: float | None) -> LabeledImage | RowFailure:
        """Convert the labels, once all of them are known: the largest confidence tells whether they are percentages."""
        try:
            labels = _convert_entries(self.entries, scale)
        except ValueError as error:
            return RowFailure(self.where, str(error), self.row)
        return LabeledImage(where=self.where, references=self.references, labels=labels)


def parse_label_row(row: Mapping[str, Any], where: str, scale: float | None = None) -> Iterator[LabeledImage | RowFailure]:
    """Yield the images of a row with their labels.

    Args:
        row: The row.
        where: Its place, for messages.
        scale: The largest confidence that is possible: 1 or 100. By default 100 for Rekognition, and for images with a confidence
            above 1.
    """
    for raw in _split_row(row, where):
        yield raw if isinstance(raw, RowFailure) else raw.build(scale)


def _split_row(row: Mapping[str, Any], where: str) -> Iterator[_RawImage | RowFailure]:
    parts = next((value for name, value in row.items() if name in _PARTS and isinstance(value, list)), None)
    if parts is None:
        yield _parse_image(row, row, where)
        return
    for part in parts:
        if not isinstance(part, Mapping):
            yield RowFailure(where, f"not an object but a {type(part).__name__}", row)
        else:
            yield _parse_image(part, row if len(parts) == 1 else {}, where)


def _parse_image(part: Mapping[str, Any], row: Mapping[str, Any], where: str) -> _RawImage | RowFailure:
    try:
        references = find_references(part) or find_references(row)
        if not references:
            return RowFailure(where, f"it names no image; there are: {', '.join(map(str, list(part)[:20]))}", row)
        return _RawImage(where, references, _list_labels(part), part)
    except ValueError as error:
        return RowFailure(where, str(error), part)


def find_references(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Find what names the image of a row, at most `_MAX_REFERENCES`; also in the request that a service repeats."""
    return tuple(islice(dict.fromkeys(_walk_references(part, _MAX_DEPTH)), _MAX_REFERENCES))


def _walk_references(part: Mapping[str, Any], depth: int) -> Iterator[str]:
    lower = {str(name).lower(): value for name, value in islice(part.items(), _MAX_COLUMNS)}
    given = lower.get("references")
    yield from (text for text in (given if isinstance(given, list) else ()) if isinstance(text, str))
    yield from (value.strip() for name in _REFERENCES if isinstance(value := lower.get(name), str) and value.strip())
    for name in _REQUESTS if depth else ():
        if isinstance(inner := lower.get(name), Mapping):
            bucket, key = inner.get("Bucket"), inner.get("Name")
            if isinstance(bucket, str) and isinstance(key, str):
                yield f"s3://{bucket}/{key}"
            yield from _walk_references(inner, depth - 1)


def _convert_entries(entries: Sequence[_Entry], scale: float | None) -> dict[str, float]:
    if len(entries) > MAX_LABELS:
        raise ValueError(f"more than {MAX_LABELS:,} labels")
    is_percent = any(entry.is_percent or (entry.weight or 0.0) > 1 for entry in entries)
    largest = scale or (100.0 if is_percent else 1.0)
    labels: dict[str, float] = {}
    for text, weight, _ in entries:
        label = normalize_label(text)
        if not label or not is_utf8(label) or len(label) > MAX_LABEL_CHARS:
            raise ValueError(f"not a label of 1 to {MAX_LABEL_CHARS} letters and digits: {text[:50]!r}")
        if weight is not None and not (math.isfinite(weight) and 0 <= weight <= largest):
            raise ValueError(f"the confidence of {label!r} is {weight:g}, not between 0 and {largest:g}")
        confidence = 1.0 if weight is None else round(weight / largest, _DIGITS)
        if confidence >= _MIN_CONFIDENCE:
            labels[label] = max(confidence, labels.get(label, 0.0))
    return labels


def _list_labels(part: Mapping[str, Any]) -> list[_Entry]:
    found = _find_list(part, _MAX_DEPTH)
    if found is None:
        single = _parse_entry(part)
        if single is None:
            raise ValueError(f"it has no labels; there are: {', '.join(map(str, list(part)[:20]))}")
        return [single]
    if isinstance(found, str):
        return [_parse_text(text) for text in _SEPARATOR.split(found.strip()) if text]
    if isinstance(found, Mapping):
        return [_Entry(str(name), _parse_weight(weight)) for name, weight in found.items()]
    entries = [_Entry(entry, None) if isinstance(entry, str) else _parse_entry(entry) for entry in found]
    if any(entry is None for entry in entries):
        raise ValueError("an entry of its labels has no name")
    are_percent = [isinstance(entry, Mapping) and entry.keys() >= _REKOGNITION for entry in found]
    return [entry._replace(is_percent=each) for entry, each in zip(entries, are_percent, strict=True) if entry is not None]


def _find_list(value: object, depth: int) -> Any:  # noqa: ANN401  JSON
    """Find the labels in a row: under a name for them, or in an inner object."""
    if not isinstance(value, Mapping) or depth == 0:
        return None
    lower = {str(name).lower(): inner for name, inner in value.items()}
    for name in _LIST_NAMES:
        inner = lower.get(name)
        if isinstance(inner, (list, str)) or (isinstance(inner, Mapping) and _find_list(inner, depth - 1) is None):
            return inner
    return next((found for inner in value.values() if (found := _find_list(inner, depth - 1)) is not None), None)


def _parse_text(text: str) -> _Entry:
    """Parse a label in a cell of a table, with or without a confidence of 0 to 1: `dog:0.9`, but not `16:9`."""
    weighted = _WEIGHTED_TEXT.fullmatch(text)
    return _Entry(weighted["name"], float(weighted["weight"])) if weighted else _Entry(text, None)


def _parse_entry(entry: object) -> _Entry | None:
    """Parse an object with a label and perhaps its confidence."""
    if not isinstance(entry, Mapping):
        return None
    lower = {str(name).lower(): value for name, value in entry.items()}
    name = next((lower[key] for key in _NAMES if isinstance(lower.get(key), str)), None)
    weight = next((lower[key] for key in _WEIGHTS if lower.get(key) not in (None, "")), None)
    return None if name is None else _Entry(name, _parse_weight(weight))


def _parse_weight(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"not a confidence: {str(value)[:50]!r}")


class _JsonLabels(JsonLinesSource):
    """Rows of JSON Lines; the items keep them whole."""

    def _build_item(self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str) -> SourceItem:
        return _build_row_item(self.uri, row, table, position)


class _TableLabels(CsvSource):
    """Rows of CSV or TSV; the items keep them whole."""

    def _build_item(self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str) -> SourceItem:
        return _build_row_item(self.uri, row, table, position)


def _build_row_item(source: str, row: Mapping[str, Any], table: ListedFile, position: str) -> SourceItem:
    return SourceItem(f"{table.uri}#{position}", source, InlineBytes(b""), None, row)


def open_label_source(argument: str) -> Source:
    """Open the source of a FILE argument: a path, a glob, or a URL supported by fsspec.

    Raises:
        UsageError: If there is no such file, or its name shows no format.
    """
    if has_source_suffix(argument, JSONL_SUFFIXES) or argument == "-":
        return _JsonLabels(create_file_lister(argument, JSONL_SUFFIXES), SourceOptions())
    if has_source_suffix(argument, CSV_SUFFIXES):
        return _TableLabels(create_file_lister(argument, CSV_SUFFIXES), SourceOptions())
    raise UsageError(
        f"can't detect the format of {argument!r} from its name",
        "Labels come from .jsonl, .csv and .tsv (.gz, too), or as JSON Lines from stdin. One JSON array becomes JSON Lines with: "
        "jq -c '.[]' labels.json",
        code="unknown-label-format",
    )


def read_label_files(sources: Sequence[Source], scale: float | None = None) -> Iterator[LabeledImage | RowFailure]:
    """Yield the images of label files with their labels; rows in a row that are about the same image are one."""
    current: _RawImage | None = None
    for source in sources:
        for item in source.list_items():
            if isinstance(item, ListingFailure):
                yield RowFailure(item.uri, item.reason, {})
                continue
            for raw in _split_row(item.fields, item.uri):
                if isinstance(raw, RowFailure):
                    yield raw
                elif current is not None and raw.references == current.references and len(current.entries) <= MAX_LABELS:
                    current.entries.extend(raw.entries)
                else:
                    if current is not None:
                        yield current.build(_choose_scale(current, scale))
                    current = raw
    if current is not None:
        yield current.build(_choose_scale(current, scale))


def _choose_scale(image: _RawImage, scale: float | None) -> float | None:
    """Choose the scale; the dead letters of an import say theirs."""
    return 1.0 if image.row.get("scale") == 1 and "references" in image.row else scale
