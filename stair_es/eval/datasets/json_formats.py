"""Caption datasets in JSON: JSON Lines, COCO, Karpathy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from stair_es.errors import DatasetError, SourceError
from stair_es.eval.datasets.entry import (
    ACCEPTED_KEY,
    CaptionEntry,
    InvalidEntry,
    extract_accepted,
    extract_captions,
    extract_tags,
    extract_texts,
)
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.open_file import open_unpacked
from stair_es.sources.io.uris import to_file_uri
from stair_es.sources.kinds.table import IMAGE_COLUMNS
from stair_es.sources.limits import join_names

MAX_CAPTION_LINE = 1 << 24


def read_json_lines(path: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of a JSON Lines file, compressed or not, line by line."""
    try:
        with open_unpacked(ListedFile(to_file_uri(path), FileLocator(to_file_uri(path)))) as file:
            yield from _read_lines(file)
    except SourceError as error:
        yield InvalidEntry(path.name, "the rest can't be read", error.message)


def _read_lines(file: BinaryIO) -> Iterator[CaptionEntry | InvalidEntry]:
    for number, line in read_numbered_lines(file, MAX_CAPTION_LINE):
        if line is None:
            yield InvalidEntry(f"line {number}", "too long")
        elif line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield InvalidEntry(f"line {number}", "not JSON", str(error))
                continue
            yield _parse_row(row, number)


def _parse_row(row: object, number: int) -> CaptionEntry | InvalidEntry:
    if not isinstance(row, dict):
        return InvalidEntry(f"line {number}", "not a JSON object")
    image = next((row[name] for name in IMAGE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)
    if image is None:
        return InvalidEntry(f"line {number}", "no image (a path in `image` or `file`)")
    captions, accepted = extract_captions(row), extract_accepted(row)
    if ACCEPTED_KEY in row and not captions and not accepted:
        return InvalidEntry(f"line {number}", "`accepted` is no list of words, or an empty one", image)
    return CaptionEntry(image, (image,), captions, extract_tags(row), accepted=accepted)


def parse_coco(images: list[Any], annotations: list[Any]) -> Iterator[CaptionEntry | InvalidEntry]:
    """Parse the images of COCO's `captions_*.json`."""
    captions, invalid = defaultdict[object, list[str]](list), 0
    for annotation in annotations:
        if isinstance(annotation, dict) and extract_texts(annotation.get("caption")) and _is_key(annotation.get("image_id")):
            captions[annotation["image_id"]] += extract_texts(annotation["caption"])
        else:
            invalid += 1
    if invalid:
        yield InvalidEntry("", "annotations without image_id or caption", count=invalid)
    for number, image in enumerate(images, 1):
        if not (isinstance(image, dict) and isinstance(image.get("file_name"), str) and _is_key(image.get("id"))):
            yield InvalidEntry(f"image {number}", "no id or file_name")
        else:
            yield CaptionEntry(image["file_name"], (image["file_name"],), tuple(captions.get(image["id"], ())))


def parse_karpathy(path: Path, images: list[Any], split: str) -> Iterator[CaptionEntry | InvalidEntry]:
    """Parse the images of some splits of Karpathy's `dataset_*.json`.

    Args:
        path: The file, for error messages.
        images: The list `images`.
        split: Splits, as in `train+restval`.

    Raises:
        UsageError: If there is no such split.
    """
    splits = {image["split"] for image in images if isinstance(image, dict) and isinstance(image.get("split"), str)}
    requested = split.split("+")
    for name in requested:
        if name not in splits:
            available = join_names(sorted(splits)) or "none"
            raise DatasetError(
                f"{path} has no split {name!r}", f"It has: {available}. Choose one with --split, or several joined by +."
            )
    return _select_splits(images, frozenset(requested))


def _select_splits(images: list[Any], splits: frozenset[str]) -> Iterator[CaptionEntry | InvalidEntry]:
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            yield InvalidEntry(f"image {number}", "no filename")
        elif isinstance(image.get("split"), str) and image["split"] in splits:
            name = image["filename"]
            folder = image.get("filepath")
            paths = (f"{folder}/{name}", name) if isinstance(folder, str) and folder else (name,)
            sentences = image.get("sentences")
            rows = [sentence for sentence in sentences if isinstance(sentence, dict)] if isinstance(sentences, list) else []
            yield CaptionEntry(paths[0], paths, extract_texts(rows))


def _is_key(value: object) -> bool:
    return isinstance(value, (int, str))
