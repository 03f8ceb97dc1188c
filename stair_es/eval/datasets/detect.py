"""Detect the format of a caption dataset by name and content, and read its entries. Invalid entries are reported, not fatal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import glob, has_magic
from itertools import chain, islice
from pathlib import Path

from stair_es.errors import DatasetError, UsageError
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry, extract_captions, extract_tags, extract_texts
from stair_es.eval.datasets.json_formats import parse_coco, parse_karpathy, read_json_lines
from stair_es.eval.datasets.tabular import ALL_COLUMNS, read_csv, read_parquet, read_source_entries, read_tsv
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import (
    CSV_SUFFIXES,
    IMAGE_SUFFIXES,
    JSONL_SUFFIXES,
    PARQUET_SUFFIXES,
    has_source_suffix,
    to_file_uri,
)
from stair_es.sources.kinds.webdataset import KIND
from stair_es.system.user_files import MAX_DATA_SET_BYTES, open_regular_file, read_json_file, read_text_file

_SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
_FORMS = (
    "JSON Lines (.jsonl) of {image, caption} or {image, captions}, COCO's captions_*.json ({images, annotations}), Karpathy's"
    " dataset_*.json ({images: [{filename, split, sentences}]}), TSV (caption, image), CSV with a header, Parquet,"
    " webdataset tars, or a folder of one of these or of images with a .txt next to each."
)
_TSV = frozenset({".tsv", ".tsv.gz", ".token"})
_PACKED_TARS = frozenset({".tar.gz", ".tgz"})
_METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Lists of captions in a folder of images, as in Hugging Face datasets."""


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
    return any(isinstance(entry, CaptionEntry) and entry.captions for entry in read_sidecar_captions(folder))


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
    name, locator = image.relative_to(folder).as_posix(), FileLocator(to_file_uri(image))
    if text is None:
        return CaptionEntry(name, (), (), (), locator)
    try:
        row = read_json_file(text) if text.suffix == ".json" else {"caption": read_text_file(text)}
    except OSError as error:
        return InvalidEntry(name, "its caption can't be read", str(error.strerror))
    except ValueError as error:
        return InvalidEntry(name, "its caption isn't valid text or JSON", str(error))
    captions, tags = (extract_captions(row), extract_tags(row)) if isinstance(row, dict) else (extract_texts(row), ())
    return CaptionEntry(name, (), captions, tags, locator)


_BY_SUFFIX: tuple[tuple[frozenset[str], str, Callable[[Path], Iterator[CaptionEntry | InvalidEntry]]], ...] = (
    (JSONL_SUFFIXES, "JSON Lines", read_json_lines),
    (_TSV, "TSV", read_tsv),
    (CSV_SUFFIXES, "CSV", read_csv),
    (PARQUET_SUFFIXES, "Parquet", read_parquet),
    (frozenset({".tar"}), "webdataset", read_webdataset),
)


def read_entries(path: Path, split: str | None = None) -> tuple[str, Iterable[CaptionEntry | InvalidEntry]]:
    """Return the format of a dataset, and its images one by one; an `InvalidEntry` says what is wrong with an entry.

    Args:
        path: File or folder; also a glob (not for JSON, which is one document), and for tars a brace pattern.
        split: Split, for Karpathy's format; None for `test`. Several are written `train+restval`.

    Raises:
        UsageError: If the dataset can't be read, has another format, or has no such split.
        MissingExtra: If a library for the format isn't installed.
    """
    if path.is_dir():
        path = _find_metadata_file(path)
    if has_source_suffix(str(path), _PACKED_TARS):
        raise DatasetError(
            f"{path} is a compressed tar, whose members can't be read separately", "Decompress it: gunzip FILE.tar.gz."
        )
    form, reader = _detect_format(path)
    if reader is not None:
        if split is not None:
            raise DatasetError(f"{path} is {form}, which has no splits", "Leave --split out.")
        return form, reader(path)
    return _read_json(path, split)


def has_accepted_words(path: Path) -> bool:
    """Return whether a file is JSON Lines whose first usable entry has accepted words."""
    is_readable = path.is_file() and has_source_suffix(str(path), JSONL_SUFFIXES)
    entries = read_json_lines(path) if is_readable else iter(())
    usable = (each for each in entries if isinstance(each, CaptionEntry) and (each.captions or each.accepted))
    return any(entry.accepted for entry in islice(usable, 1))


def get_image_folder(path: Path) -> Path:
    """Return the folder that image names are relative to by default."""
    return path if path.is_dir() else path.parent


def is_caption_folder(path: Path) -> bool:
    """Return whether a path is a folder with captions, usable or not."""
    return path.is_dir() and (_find_metadata_file(path) != path or _detect_folder_format(path) is not None)


def _find_metadata_file(folder: Path) -> Path:
    """Return the list of captions in a folder of images if there is one, else the folder."""
    return next((folder / name for name in _METADATA_FILES if (folder / name).is_file()), folder)


def _detect_folder_format(folder: Path) -> tuple[str, Callable[[Path], Iterator[CaptionEntry | InvalidEntry]]] | None:
    if any(folder.rglob("*.tar")):
        return "webdataset", read_webdataset
    if has_captioned_images(folder):
        return "folder", read_sidecar_captions
    return ("Parquet", read_parquet) if any(folder.rglob("*.parquet")) else None


def _detect_format(path: Path) -> tuple[str, Callable[[Path], Iterator[CaptionEntry | InvalidEntry]] | None]:
    """Return the name of a format and its reader; None for JSON, whose content must be inspected."""
    if path.is_dir():
        detected = _detect_folder_format(path)
        if detected is not None:
            return detected
        raise DatasetError(f"{path} is a folder without a caption set", f"A caption set is one of: {_FORMS}")
    for suffixes, form, reader in _BY_SUFFIX:
        if has_source_suffix(str(path), suffixes):
            return form, reader if form in ("Parquet", "webdataset") else partial(_read_all, reader, _match_files(path))
    return "JSON", None


def _match_files(path: Path) -> list[Path]:
    """Return the file, or the files that match a pattern.

    Raises:
        UsageError: If there is none, or one can't be read.
    """
    paths = [path]
    if not path.exists() and has_magic(str(path)):
        paths = [Path(match) for match in sorted(glob(str(path), recursive=True))]  # noqa: PTH207  Path.glob takes no absolute pattern
        if not paths:
            raise DatasetError(f"nothing matches {str(path)!r}", "Quote the pattern, and use ** to match subfolders.")
    for file in paths:
        _check_readable(file)
    return paths


def _read_all(
    reader: Callable[[Path], Iterator[CaptionEntry | InvalidEntry]], files: Iterable[Path], _: Path
) -> Iterator[CaptionEntry | InvalidEntry]:
    return chain.from_iterable(map(reader, files))


def _check_readable(path: Path) -> None:
    try:
        with open_regular_file(path):
            return
    except OSError as error:
        raise _build_unreadable_error(path, error) from error


def _build_unreadable_error(path: Path, error: OSError) -> UsageError:
    return DatasetError(f"can't read the caption set {path}: {error.strerror}", f"A caption set is one of: {_FORMS}")


def _read_json(path: Path, split: str | None) -> tuple[str, Iterable[CaptionEntry | InvalidEntry]]:
    try:
        document = read_json_file(path, MAX_DATA_SET_BYTES)
    except OSError as error:
        raise _build_unreadable_error(path, error) from error
    except ValueError as error:
        raise DatasetError(f"{path} isn't JSON: {error}", f"A caption set is one of: {_FORMS}") from error
    images = document.get("images") if isinstance(document, dict) else None
    if isinstance(images, list) and isinstance(document.get("annotations"), list):
        if split is not None:
            raise DatasetError(f"{path} is in COCO's format, which has one file per split", "Leave --split out.")
        return "COCO", parse_coco(images, document["annotations"])
    if isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        return f"Karpathy, split {split or 'test'}", parse_karpathy(path, images, split or "test")
    raise DatasetError(f"{path} isn't a caption set", f"A caption set is one of: {_FORMS}")
