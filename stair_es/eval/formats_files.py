"""Caption datasets as files: webdataset tars, and folders of images with a text file next to each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from stair_es.eval.formats_entry import Bad, Entry, captions_in, tags_in, texts_of
from stair_es.eval.formats_tables import ALL, of_source
from stair_es.sources.local_file import FileAt
from stair_es.sources.paths import IMAGE_SUFFIXES, uri_of
from stair_es.sources.webdataset import KIND

_BESIDE = (".txt", ".caption", ".json")


def webdataset(path: Path) -> Iterator[Entry | Bad]:
    """Read the images of webdataset tars: `a.jpg` with `a.txt` or `a.json`.

    Args:
        path: A file, a folder, a glob, or a brace pattern: `shards/{0000..0127}.tar`.

    Raises:
        MissingExtra: If the path has braces, and braceexpand isn't installed.
        UsageError: If nothing matches.
    """
    return of_source(KIND.open(str(path), ALL))


def has_captioned_images(folder: Path) -> bool:
    """Return whether the folder contains an image with a text file next to it, at any depth."""
    return any(isinstance(each, Entry) for each in beside(folder))


def beside(folder: Path) -> Iterator[Entry | Bad]:
    """Read the images of a folder and its subfolders, with the caption in the file of the same name: `a.txt` or `a.json`."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        names = set(files)
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122  a million times
            if suffix.lower() in IMAGE_SUFFIXES:
                text = next((stem + each for each in _BESIDE if stem + each in names), None)
                yield _image(Path(path, name), folder, None if text is None else Path(path, text))


def _image(image: Path, folder: Path, text: Path | None) -> Entry | Bad:
    name = image.relative_to(folder).as_posix()
    if text is None:
        return Bad(name, "no caption file next to it (.txt or .json)")
    try:
        data = text.read_bytes()
        row = orjson.loads(data) if text.suffix == ".json" else {"caption": data.decode("utf-8-sig")}
    except OSError as error:
        return Bad(name, "its caption can't be read", str(error.strerror))
    except ValueError as error:
        return Bad(name, "its caption isn't valid text or JSON", str(error))
    captions, tags = (captions_in(row), tags_in(row)) if isinstance(row, dict) else (texts_of(row), ())
    return Entry(name, (), captions, tags, FileAt(uri_of(image))) if captions else Bad(name, "no caption")
