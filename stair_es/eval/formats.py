"""The forms of caption sets: JSON Lines, COCO, Karpathy. A bad entry is a problem in words, and the others are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stair_es.errors import UsageError
from stair_es.sources.lines import numbered
from stair_es.sources.tables import IMAGE_COLUMNS

_LONGEST_LINE = 1 << 24
_FORMS = (
    "JSON Lines (.jsonl) of {image, caption} or {image, captions}, COCO's captions_*.json ({images, annotations}), or Karpathy's"
    " dataset_*.json ({images: [{filename, split, sentences}]})."
)


@dataclass(frozen=True)
class Entry:
    """An image as a set names it."""

    name: str
    places: tuple[str, ...]
    """Where it may be, relative to the folder of images, likeliest first."""
    captions: tuple[str, ...]


def entries(path: Path, split: str | None = None) -> tuple[str, Iterable[Entry | str]]:
    """The form of a file, and its images one after another; a `str` says what is wrong with an entry.

    Raises:
        UsageError: It can't be read, has another form, or a split that isn't there was asked for.
    """
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            if split is not None:
                raise UsageError(f"{path} is JSON Lines, which have no splits", "Leave --split out.")
            with path.open("rb") as file:
                return "JSON Lines", list(_lines(file))
        whole = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"can't read the caption set {path}: {error.strerror}", f"A caption set is one of: {_FORMS}") from error
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} isn't JSON: {error}", f"A caption set is one of: {_FORMS}") from error
    images = whole.get("images") if isinstance(whole, dict) else None
    if isinstance(images, list) and isinstance(whole.get("annotations"), list):
        if split is not None:
            raise UsageError(f"{path} has COCO's form, which has no splits in one file", "Leave --split out.")
        return "COCO", _coco(images, whole["annotations"])
    if isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        return f"Karpathy, split {split or 'test'}", _karpathy(path, images, split or "test")
    raise UsageError(f"{path} isn't a caption set", f"A caption set is one of: {_FORMS}")


def _lines(file: Any) -> Iterator[Entry | str]:  # noqa: ANN401  any binary file
    for number, line in numbered(file, _LONGEST_LINE):
        if line is None:
            yield f"line {number}: too long"
        elif line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f"line {number}: not JSON: {error}"
                continue
            yield _row(row, number)


def _row(row: object, number: int) -> Entry | str:
    if not isinstance(row, dict):
        return f"line {number}: not a JSON object"
    image = next((row[name] for name in IMAGE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)
    if image is None:
        return f"line {number}: no image (a path in `image` or `file`)"
    captions = _captions(row.get("captions", row.get("caption", row.get("text"))))
    return Entry(image, (image,), captions) if captions else f"line {number}: no caption for {image}"


def _coco(images: list[Any], annotations: list[Any]) -> Iterator[Entry | str]:
    captions, bad = defaultdict[object, list[str]](list), 0
    for each in annotations:
        if isinstance(each, dict) and _captions(each.get("caption")) and _is_key(each.get("image_id")):
            captions[each["image_id"]] += _captions(each["caption"])
        else:
            bad += 1
    if bad:
        yield f"{bad} annotations without image_id or caption"
    for number, image in enumerate(images, 1):
        if not (isinstance(image, dict) and isinstance(image.get("file_name"), str) and _is_key(image.get("id"))):
            yield f"image {number}: no id or file_name"
        else:
            yield Entry(image["file_name"], (image["file_name"],), tuple(captions.get(image["id"], ())))


def _karpathy(path: Path, images: list[Any], split: str) -> Iterator[Entry | str]:
    splits = {image["split"] for image in images if isinstance(image, dict) and isinstance(image.get("split"), str)}
    if split not in splits:
        raise UsageError(f"{path} has no split {split!r}", f"It has: {', '.join(sorted(splits)) or 'none'}. Choose with --split.")
    return _of_split(images, split)


def _of_split(images: list[Any], split: str) -> Iterator[Entry | str]:
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            yield f"image {number}: no filename"
        elif image.get("split") == split:
            name = image["filename"]
            folder = image.get("filepath")
            places = (f"{folder}/{name}", name) if isinstance(folder, str) and folder else (name,)
            yield Entry(places[0], places, _sentences(image.get("sentences")))


def _sentences(value: object) -> tuple[str, ...]:
    rows: list[Mapping[str, Any]] = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple(text for row in rows for text in _captions(row.get("raw")))


def _captions(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if isinstance(each, str) and (text := " ".join(each.split())))


def _is_key(value: object) -> bool:
    return isinstance(value, (int, str))
