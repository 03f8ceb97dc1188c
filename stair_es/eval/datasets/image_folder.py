"""Labeled images on disk: one folder of images per class (ImageNet's layout), and the class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_es.errors import DatasetError
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import IMAGE_SUFFIXES, to_file_uri
from stair_es.system.user_files import read_json_file, read_text_file

_FORMS = (
    'JSON {"folder": "name"}, {"folder": ["name", "other name"]} or ["name", ...] in the order of the folders;'
    " text: one line `folder name, other name` per folder."
)
_LAYOUT = "The layout must be FOLDER/<class>/<image>, as in ImageNet."


@dataclass(frozen=True, kw_only=True)
class LabeledDataset:
    """Images with class labels."""

    name: str
    classes: tuple[str, ...]
    """Folder names, in order."""
    names: tuple[tuple[str, ...], ...]
    """Readable names of each class, the most common first; at least one."""
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    """Class of each file."""

    @property
    def locators(self) -> list[FileLocator]:
        """Locators of the images."""
        return [FileLocator(to_file_uri(path)) for path in self.files]

    def describe_size(self) -> str:
        """Return the number of images and classes as text."""
        return f"{len(self.files)} images, {len(self.classes)} classes"


def read_image_folder(folder: Path, *, classes: Path | None = None, limit: int | None = None) -> LabeledDataset:
    """Read the images in the subfolders of a folder; subfolders without images are ignored.

    Args:
        folder: Folder in the layout `FOLDER/<class>/*.jpg`; deeper images are included.
        classes: File with the class names; None to use the folder names (with `_` and `-` as spaces).
        limit: Maximum number of images per class; the first ones by name are used.

    Raises:
        UsageError: If the folder doesn't exist, has fewer than two classes, or the file has no name for a class.
    """
    if not folder.is_dir():
        raise DatasetError(f"no such folder: {folder}", _LAYOUT)
    files_of_class = {path.name: list_image_files(path)[:limit] for path in sorted(folder.iterdir()) if _is_class_folder(path)}
    files_of_class = {name: files for name, files in files_of_class.items() if files}
    if len(files_of_class) < 2:
        raise DatasetError(
            f"{folder} has {len(files_of_class)} folders with images in them: at least 2 classes are needed", _LAYOUT
        )
    ids = tuple(files_of_class)
    return LabeledDataset(
        name=folder.name or str(folder),
        classes=ids,
        names=_read_class_names(ids, classes)
        if classes
        else tuple((" ".join(name.replace("_", " ").replace("-", " ").split()),) for name in ids),
        files=tuple(path for files in files_of_class.values() for path in files),
        labels=tuple(label for label, files in enumerate(files_of_class.values()) for _ in files),
    )


def has_class_folders(folder: Path) -> bool:
    """Return whether at least two subfolders contain images."""
    return folder.is_dir() and sum(bool(list_image_files(path)) for path in folder.iterdir() if _is_class_folder(path)) >= 2


def _is_class_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def list_image_files(folder: Path) -> list[Path]:
    """List the images below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _read_class_names(ids: Sequence[str], path: Path) -> tuple[tuple[str, ...], ...]:
    try:
        names = _parse_json_names(read_json_file(path), ids, path) if path.suffix.lower() == ".json" else _parse_text_names(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"can't read the names of classes in {path}: {error}", _FORMS) from error
    missing = [name for name in ids if not names.get(name)]
    if missing:
        raise DatasetError(
            f"{path} has no name for {len(missing)} of {len(ids)} folders, among them {', '.join(missing[:3])}",
            f"Expected: {_FORMS}",
        )
    return tuple(names[name] for name in ids)


def _parse_json_names(value: Any, ids: Sequence[str], path: Path) -> dict[str, tuple[str, ...]]:  # noqa: ANN401  any JSON
    if isinstance(value, list):
        if len(value) != len(ids):
            raise DatasetError(f"{path} lists {len(value)} names for {len(ids)} folders", f"Expected: {_FORMS}")
        return {name: _parse_names(entry) for name, entry in zip(ids, value, strict=True)}
    if not isinstance(value, Mapping):
        raise DatasetError(f"{path} is neither a JSON object nor a list", f"Expected: {_FORMS}")
    if not set(ids) & set(value):  # Keras' imagenet_class_index.json: {"0": ["n01440764", "tench"]}
        return {entry[0]: _parse_names(entry[1].replace("_", " ")) for entry in value.values() if _is_string_pair(entry)}
    return {str(name): _parse_names(entry) for name, entry in value.items()}


def _is_string_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _parse_names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(name for one in names if isinstance(one, str) and (name := " ".join(one.split()))))


def _parse_text_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Parse lines as in ImageNet's `LOC_synset_mapping.txt`."""
    rows = [line.split(maxsplit=1) for line in read_text_file(path).splitlines()]
    return {row[0]: _parse_names(row[1].split(",")) for row in rows if len(row) == 2}
