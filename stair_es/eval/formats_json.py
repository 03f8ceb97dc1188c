"""Caption datasets in JSON: JSON Lines, COCO, Karpathy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from stair_es.errors import SourceError, UsageError
from stair_es.eval.formats_entry import Bad, Entry, captions_in, tags_in, texts_of
from stair_es.sources.files import Found
from stair_es.sources.lines import numbered
from stair_es.sources.local_file import FileAt
from stair_es.sources.opened import opened
from stair_es.sources.paths import uri_of
from stair_es.sources.tables import IMAGE_COLUMNS

LONGEST_LINE = 1 << 24


def json_lines(path: Path) -> Iterator[Entry | Bad]:
    """Read the images of a JSON Lines file, compressed or not, line by line."""
    try:
        with opened(Found(uri_of(path), FileAt(uri_of(path)))) as file:
            yield from _lines(file)
    except SourceError as error:
        yield Bad(path.name, "the rest can't be read", error.message)


def _lines(file: BinaryIO) -> Iterator[Entry | Bad]:
    for number, line in numbered(file, LONGEST_LINE):
        if line is None:
            yield Bad(f"line {number}", "too long")
        elif line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Bad(f"line {number}", "not JSON", str(error))
                continue
            yield _row(row, number)


def _row(row: object, number: int) -> Entry | Bad:
    if not isinstance(row, dict):
        return Bad(f"line {number}", "not a JSON object")
    image = next((row[name] for name in IMAGE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)
    if image is None:
        return Bad(f"line {number}", "no image (a path in `image` or `file`)")
    captions = captions_in(row)
    return Entry(image, (image,), captions, tags_in(row)) if captions else Bad(f"line {number}", "no caption", image)


def coco(images: list[Any], annotations: list[Any]) -> Iterator[Entry | Bad]:
    """Parse the images of COCO's `captions_*.json`.

    Args:
        images: The list `images`.
        annotations: The list `annotations`.
    """
    captions, bad = defaultdict[object, list[str]](list), 0
    for each in annotations:
        if isinstance(each, dict) and texts_of(each.get("caption")) and _is_key(each.get("image_id")):
            captions[each["image_id"]] += texts_of(each["caption"])
        else:
            bad += 1
    if bad:
        yield Bad("", "annotations without image_id or caption", count=bad)
    for number, image in enumerate(images, 1):
        if not (isinstance(image, dict) and isinstance(image.get("file_name"), str) and _is_key(image.get("id"))):
            yield Bad(f"image {number}", "no id or file_name")
        else:
            yield Entry(image["file_name"], (image["file_name"],), tuple(captions.get(image["id"], ())))


def karpathy(path: Path, images: list[Any], split: str) -> Iterator[Entry | Bad]:
    """Parse the images of some splits of Karpathy's `dataset_*.json`.

    Args:
        path: The file, for error messages.
        images: The list `images`.
        split: Splits, as in `train+restval`.

    Raises:
        UsageError: If there is no such split.
    """
    splits = {image["split"] for image in images if isinstance(image, dict) and isinstance(image.get("split"), str)}
    asked = split.split("+")
    for each in asked:
        if each not in splits:
            there = ", ".join(sorted(splits)) or "none"
            raise UsageError(f"{path} has no split {each!r}", f"It has: {there}. Choose with --split, several with a plus sign.")
    return _of_splits(images, frozenset(asked))


def _of_splits(images: list[Any], splits: frozenset[str]) -> Iterator[Entry | Bad]:
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            yield Bad(f"image {number}", "no filename")
        elif isinstance(image.get("split"), str) and image["split"] in splits:
            name = image["filename"]
            folder = image.get("filepath")
            places = (f"{folder}/{name}", name) if isinstance(folder, str) and folder else (name,)
            sentences = image.get("sentences")
            rows = [each for each in sentences if isinstance(each, dict)] if isinstance(sentences, list) else []
            yield Entry(places[0], places, texts_of(rows))


def _is_key(value: object) -> bool:
    return isinstance(value, (int, str))
