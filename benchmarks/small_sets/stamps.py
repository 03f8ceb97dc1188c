"""Tux Paint's stamps: photographs (the list in benchmarks/data) and drawings, with one English description each.

Excluded: letters, digits, and arithmetic signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from small_sets.items import Item
from small_sets.names import make_concept

FOLDER = "usr/share/tuxpaint/stamps"
PHOTOS = Path(__file__).parents[1] / "data" / "tuxpaint_photos.txt"
DROPPED = ("symbols/alphabets/", "symbols/math/")
NOT_TAGS = frozenset({"cartoon", "photo", "00_symbols", "symbols"})


def parse_photo_paths(text: str) -> frozenset[str]:
    """Return the paths of the list, relative to the stamps."""
    return frozenset(line.removeprefix(FOLDER + "/") for line in text.splitlines() if line and not line.startswith("#"))


def parse_description(text: str) -> str:
    """Return the first line of a stamp's text file; the others are translations."""
    return text.splitlines()[0].strip() if text.strip() else ""


def list_stamps(package: Path, photos: frozenset[str]) -> Iterable[Item]:
    """Yield every stamp with a description and a picture, sorted by path; PNG before SVG."""
    root = package / FOLDER
    for words_file in sorted(root.rglob("*.txt")):
        picture = next((file for suffix in (".png", ".svg") if (file := words_file.with_suffix(suffix)).is_file()), None)
        caption = parse_description(words_file.read_text(encoding="utf-8"))
        path = words_file.relative_to(root).as_posix()
        if picture is None or not make_concept(caption) or path.startswith(DROPPED):
            continue
        source = "tuxpaint-photo" if picture.relative_to(root).as_posix() in photos else "tuxpaint-drawing"
        yield Item(
            image=f"images/{source}/{path.removesuffix('.txt')}.png",
            captions=(caption,),
            tags=tuple(dict.fromkeys(part.lower() for part in Path(path).parts[:-1] if part.lower() not in NOT_TAGS)),
            concept=make_concept(caption),
            group=make_concept(caption),
            source=source,
            file=picture,
        )
