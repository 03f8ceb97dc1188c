"""Caption datasets as files: webdataset tars, and folders of images with a text file next to each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry, extract_captions, extract_tags, extract_texts
from stair_es.eval.datasets.tabular import ALL_COLUMNS, read_source_entries
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import IMAGE_SUFFIXES, to_file_uri
from stair_es.sources.kinds.webdataset import KIND
from stair_es.system.user_files import read_json_file, read_text_file

_SIDECAR_SUFFIXES = (".txt", ".caption", ".json")


def read_webdataset(path: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of webdataset tars: `a.jpg` with `a.txt` or `a.json`.

    Args:
        path: A file, a folder, a glob, or a brace pattern: `shards/{0000..0127}.tar`.

    Raises:
        MissingExtra: If the path has braces, and braceexpand isn't installed.
        UsageError: If nothing matches.
    """
    return read_source_entries(KIND.open(str(path), ALL_COLUMNS))


def has_captioned_images(folder: Path) -> bool:
    """Return whether the folder contains an image with a text file next to it, at any depth."""
    return any(isinstance(entry, CaptionEntry) for entry in read_sidecar_captions(folder))


def read_sidecar_captions(folder: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of a folder and its subfolders, with the caption in the file of the same name: `a.txt` or `a.json`."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        names = set(files)
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122  a million times
            if suffix.lower() in IMAGE_SUFFIXES:
                text = next((stem + suffix for suffix in _SIDECAR_SUFFIXES if stem + suffix in names), None)
                yield _read_image_entry(Path(path, name), folder, None if text is None else Path(path, text))


def _read_image_entry(image: Path, folder: Path, text: Path | None) -> CaptionEntry | InvalidEntry:
    name = image.relative_to(folder).as_posix()
    if text is None:
        return InvalidEntry(name, "no caption file next to it (.txt or .json)")
    try:
        row = read_json_file(text) if text.suffix == ".json" else {"caption": read_text_file(text)}
    except OSError as error:
        return InvalidEntry(name, "its caption can't be read", str(error.strerror))
    except ValueError as error:
        return InvalidEntry(name, "its caption isn't valid text or JSON", str(error))
    captions, tags = (extract_captions(row), extract_tags(row)) if isinstance(row, dict) else (extract_texts(row), ())
    return (
        CaptionEntry(name, (), captions, tags, FileLocator(to_file_uri(image))) if captions else InvalidEntry(name, "no caption")
    )
