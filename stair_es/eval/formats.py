"""Detect the format of a caption dataset by name and content, and read its entries. Invalid entries are reported, not fatal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import glob, has_magic
from itertools import chain
from pathlib import Path

import orjson

from stair_es.errors import UsageError
from stair_es.eval.formats_entry import Bad, Entry
from stair_es.eval.formats_files import beside, has_captioned_images, webdataset
from stair_es.eval.formats_json import coco, json_lines, karpathy
from stair_es.eval.formats_tables import csv, parquet, tsv
from stair_es.sources.paths import CSV, JSONL, PARQUET, ends_with

_FORMS = (
    "JSON Lines (.jsonl) of {image, caption} or {image, captions}, COCO's captions_*.json ({images, annotations}), Karpathy's"
    " dataset_*.json ({images: [{filename, split, sentences}]}), TSV (caption, image), CSV with a header, Parquet,"
    " webdataset tars, or a folder of one of these or of images with a .txt next to each."
)
_TSV = frozenset({".tsv", ".tsv.gz", ".token"})
_BY_SUFFIX: tuple[tuple[frozenset[str], str, Callable[[Path], Iterator[Entry | Bad]]], ...] = (
    (JSONL, "JSON Lines", json_lines),
    (_TSV, "TSV", tsv),
    (CSV, "CSV", csv),
    (PARQUET, "Parquet", parquet),
    (frozenset({".tar"}), "webdataset", webdataset),
)
_PACKED_TARS = frozenset({".tar.gz", ".tgz"})
_LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Lists of captions in a folder of images, as in Hugging Face datasets."""


def entries(path: Path, split: str | None = None) -> tuple[str, Iterable[Entry | Bad]]:
    """Return the format of a dataset, and its images one by one; an `InvalidEntry` says what is wrong with an entry.

    Args:
        path: File or folder; also a glob (not for JSON, which is one document), and for tars a brace pattern.
        split: Split, for Karpathy's format; None for `test`. Several are written `train+restval`.

    Raises:
        UsageError: If the dataset can't be read, has another format, or has no such split.
        MissingExtra: If a library for the format isn't installed.
    """
    if path.is_dir():
        path = _listed(path)
    if ends_with(str(path), _PACKED_TARS):
        raise UsageError(
            f"{path} is a compressed tar, whose members can't be read separately", "Decompress it: gunzip FILE.tar.gz."
        )
    form, read = _form(path)
    if read is not None:
        if split is not None:
            raise UsageError(f"{path} is {form}, which has no splits", "Leave --split out.")
        return form, read(path)
    return _json(path, split)


def folder_of(path: Path) -> Path:
    """Return the folder that image names are relative to by default."""
    return path if path.is_dir() else path.parent


def is_caption_folder(path: Path) -> bool:
    """Return whether a path is a folder with captions, usable or not."""
    return path.is_dir() and (_listed(path) != path or _form_of_folder(path) is not None)


def _listed(folder: Path) -> Path:
    """Return the list of captions in a folder of images if there is one, else the folder."""
    return next((folder / name for name in _LISTS if (folder / name).is_file()), folder)


def _form_of_folder(folder: Path) -> tuple[str, Callable[[Path], Iterator[Entry | Bad]]] | None:
    if any(folder.rglob("*.tar")):
        return "webdataset", webdataset
    if has_captioned_images(folder):
        return "folder", beside
    return ("Parquet", parquet) if any(folder.rglob("*.parquet")) else None


def _form(path: Path) -> tuple[str, Callable[[Path], Iterator[Entry | Bad]] | None]:
    """Return the name of a format and its reader; None for JSON, whose content must be inspected."""
    if path.is_dir():
        found = _form_of_folder(path)
        if found is not None:
            return found
        raise UsageError(f"{path} is a folder without a caption set", f"A caption set is one of: {_FORMS}")
    for suffixes, form, read in _BY_SUFFIX:
        if ends_with(str(path), suffixes):
            return form, read if form in ("Parquet", "webdataset") else partial(_chained, read, _matching(path))
    return "JSON", None


def _matching(path: Path) -> list[Path]:
    """Return the file, or the files that match a pattern.

    Raises:
        UsageError: If there is none, or one can't be read.
    """
    found = [path]
    if not path.exists() and has_magic(str(path)):
        found = [Path(each) for each in sorted(glob(str(path), recursive=True))]  # noqa: PTH207  Path.glob takes no absolute pattern
        if not found:
            raise UsageError(f"nothing matches {str(path)!r}", "Quote the pattern, and use ** to go into folders.")
    for each in found:
        _check(each)
    return found


def _chained(read: Callable[[Path], Iterator[Entry | Bad]], files: Iterable[Path], _: Path) -> Iterator[Entry | Bad]:
    return chain.from_iterable(map(read, files))


def _check(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"can't read the caption set {path}: {error.strerror}", f"A caption set is one of: {_FORMS}")


def _json(path: Path, split: str | None) -> tuple[str, Iterable[Entry | Bad]]:
    try:
        whole = orjson.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} isn't JSON: {error}", f"A caption set is one of: {_FORMS}") from error
    images = whole.get("images") if isinstance(whole, dict) else None
    if isinstance(images, list) and isinstance(whole.get("annotations"), list):
        if split is not None:
            raise UsageError(f"{path} has COCO's form, which has no splits in one file", "Leave --split out.")
        return "COCO", coco(images, whole["annotations"])
    if isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        return f"Karpathy, split {split or 'test'}", karpathy(path, images, split or "test")
    raise UsageError(f"{path} isn't a caption set", f"A caption set is one of: {_FORMS}")
