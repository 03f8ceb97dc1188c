"""The complete build: packages -> items -> splits -> files."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from small_sets.clipart import list_clip_art
from small_sets.emoji import FILES as VENDOR_FILES
from small_sets.emoji import ICONIFY, extract_iconify, list_drawings, read_concepts
from small_sets.fetch import PACKAGES, unpack_package
from small_sets.items import Item, render_picture
from small_sets.likeness import find_copies, is_blank
from small_sets.splits import FILES, TRAINING, split_items
from small_sets.stamps import PHOTOS, list_stamps, parse_photo_paths
from stair_es.config.defaults import DataDir

Pictures = dict[str, bytes]
"""By the path of the image."""


@dataclass(kw_only=True)
class Dropped:
    """Numbers of excluded pictures, by reason."""

    unreadable: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    """White on white."""
    same_file: int = 0
    """Identical to another picture of the source."""
    like_held_out: int = 0
    """Excluded from training, because a picture of another split looks the same."""


def build_sets(out: Path | None, downloads: Path | None) -> dict[str, Any]:
    """Build everything, and return the content of `sets.json`.

    Raises:
        SystemExit: If a package isn't available, or the folder isn't writable.
    """
    to = out or DataDir.from_env().path / "sets"
    with tempfile.TemporaryDirectory() as temporary:
        kept = downloads or Path(temporary) / "downloads"
        for folder in (to, kept):
            make_folder(folder)
        items = collect_items(kept.absolute(), Path(temporary))
        dropped = Dropped()
        pictures = read_pictures(items, dropped)
        files = split_items(drop_repeats([item for item in items if item.image in pictures], pictures, dropped))
        files |= drop_copies(files, pictures, dropped)
        return write_sets(to, files, pictures, dropped)


def make_folder(folder: Path) -> None:
    """Make sure that a folder exists.

    Raises:
        SystemExit: If the folder can't be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"can't create {folder}: {error.strerror}; choose another folder") from error


def collect_items(downloads: Path, temporary: Path) -> list[Item]:
    """Return all items of all packages."""
    have = {name: unpack_package(package, downloads, temporary) for name, package in PACKAGES.items()}
    emoji = read_concepts(have["names"])
    found = [item for vendor in VENDOR_FILES for item in list_drawings(vendor, have[vendor], emoji)]
    for vendor in ICONIFY:
        drawn = temporary / vendor
        drawn.mkdir()
        found += extract_iconify(vendor, have[vendor], emoji, drawn)
    found += list_clip_art(have["openclipart-png"], have["openclipart-svg"])
    found += list_stamps(have["tuxpaint"], parse_photo_paths(PHOTOS.read_text(encoding="utf-8")))
    return found


def read_pictures(items: Iterable[Item], dropped: Dropped) -> Pictures:
    """Return the pictures that can be read and seen; the others are reported."""
    found = {}
    for item in items:
        try:
            data = render_picture(item)
        except (OSError, ValueError) as error:
            dropped.unreadable.append(f"{item.image}: {error}")
            continue
        if is_blank(data):
            dropped.blank.append(item.image)
        else:
            found[item.image] = data
    return found


def drop_repeats(items: Iterable[Item], pictures: Pictures, dropped: Dropped) -> list[Item]:
    """Remove drawings that are identical to an earlier one of their source; all photographs remain."""
    first: dict[tuple[str, str], Item] = {}
    for item in sorted(items, key=lambda item: item.image):
        same = item.image if item.source == "tuxpaint-photo" else hashlib.sha256(pictures[item.image]).hexdigest()
        key = (item.source, same)
        dropped.same_file += first.setdefault(key, item) is not item
    return list(first.values())


def drop_copies(files: Mapping[str, Sequence[Item]], pictures: Pictures, dropped: Dropped) -> dict[str, list[Item]]:
    """Return the training files without items whose picture is held out."""
    held_out = [pictures[item.image] for name, found in files.items() if name not in TRAINING for item in found]
    kept = {}
    for name in TRAINING:
        is_copy = find_copies([pictures[item.image] for item in files[name]], held_out)
        dropped.like_held_out += sum(is_copy)
        kept[name] = [item for item, out in zip(files[name], is_copy, strict=True) if not out]
    return kept


def write_sets(to: Path, files: Mapping[str, Sequence[Item]], pictures: Pictures, dropped: Dropped) -> dict[str, Any]:
    """Write the files, and the summary last."""
    digests = {}
    for name in FILES:
        for item in files[name]:
            path = to / item.image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pictures[item.image])
        data = "".join(item.to_json() for item in files[name]).encode()
        (to / f"{name}.jsonl").write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    summary = summarize(files, dropped, digests)
    (to / "sets.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def summarize(files: Mapping[str, Sequence[Item]], dropped: Dropped, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return counts, versions and terms."""
    learned = {item.concept for name in TRAINING for item in files[name]}
    return {
        "files": {
            name: {
                "images": len(files[name]),
                "concepts": len({item.concept for item in files[name]}),
                "concepts_in_training": len({item.concept for item in files[name]} & learned),
                "images_of_concepts_in_training": sum(item.concept in learned for item in files[name]),
                "sources": dict(sorted(Counter(item.source for item in files[name]).items())),
                "sha256": digests[name],
            }
            for name in FILES
        },
        "dropped": asdict(dropped),
        "packages": [asdict(package) for package in PACKAGES.values()],
    }


def format_summary(summary: Mapping[str, Any]) -> str:
    """Return the counts as a table."""
    lines = [f"{'file':16}{'images':>8}{'concepts':>10}{'in training':>13}  sources"]
    for name, row in summary["files"].items():
        sources = ", ".join(f"{source} {count}" for source, count in row["sources"].items())
        lines.append(f"{name:16}{row['images']:8}{row['concepts']:10}{row['concepts_in_training']:13}  {sources}")
    dropped = summary["dropped"]
    lost = f"{len(dropped['unreadable'])} unreadable, {len(dropped['blank'])} blank"
    lines.append(f"dropped: {dropped['same_file']} repeated, {dropped['like_held_out']} like held-out ones, {lost}")
    return "\n".join(lines + [f"  {line}" for line in dropped["unreadable"][:20]])
