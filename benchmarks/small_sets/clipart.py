"""Clip art: the pictures of openclipart-png with the titles and keywords of openclipart-svg.

Excluded: generated shapes, patterns and gradients, flags, maps, icon themes, playing cards, road and airport signs, logos; some
prolific authors who wrote in Italian or French; pictures without a usable name. If the title only names the collection of a
drawing, the name of the file is used.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from small_sets.items import Item
from small_sets.names import make_concept, split_words

FOLDER = "usr/share/openclipart"
DROPPED = (
    "shapes/",
    "special/",
    "logos/",
    "buttons/",
    "unsorted/",
    "computer/icons/",
    "computer/buttons/",
    "computer/diagrams/",
    "signs_and_symbols/flags/",
    "signs_and_symbols/led/",
    "signs_and_symbols/clocks/",
    "signs_and_symbols/map_symbols/",
    "recreation/games/cards/",
    "transportation/aiga-symbols/",
    "transportation/roadsigns/",
    "people/stickmen/",
)
DROPPED_KEYWORDS = frozenset({"flags", "map_symbol", "map"})
MAPS = "geography/"
NOT_MAPS = "geography/astronomy/"
COLLECTION = re.compile(
    r"clip ?art|collection|theme|iconset|icons$|symbol|sibmission|submission|^aiga|^open|untitled|^svg|^test$|^image\b", re.I
)
NOT_ENGLISH = re.compile(r"archite|rollandin|yves.gu", re.I)
TAG = re.compile(r"[a-z][a-z \-]*")
NOT_TAGS = frozenset(
    {"hash", "unsorted", "appicon", "mapsym", "weathersym", "networksym", "clip art", "clipart", "svg", "icon", "icons"}
)
COMMON = 8
"""A title of more pictures than this is the name of a collection."""
MAX_NAME_WORDS = 8
MAX_DESCRIPTION_WORDS = 20


@dataclass(frozen=True, kw_only=True)
class Work:
    """The RDF metadata of a drawing."""

    title: str
    description: str
    creator: str
    keywords: tuple[str, ...]


def get_text(parent: ET.Element, name: str) -> str:
    """Return the text of the first descendant with that tag; entities that were escaped twice are resolved."""
    for element in parent.iter():
        if element.tag.rpartition("}")[2] == name:
            found = " ".join("".join(element.itertext()).split())
            return found.replace("&quot;", '"').replace("&amp;", "&").replace("&#39;", "'")
    return ""


def read_work(svg: bytes) -> Work | None:
    """Return the metadata of an SVG; None if it has none or isn't well-formed."""
    try:
        root = ET.fromstring(svg)
    except ET.ParseError:
        return None
    work = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Work"), None)
    if work is None:
        return None
    parts = {part.tag.rpartition("}")[2]: part for part in reversed(work)}
    empty = ET.Element("none")
    keywords = [" ".join((li.text or "").split()).lower() for li in parts.get("subject", empty).iter() if li.tag.endswith("}li")]
    return Work(
        title=" ".join("".join(parts.get("title", empty).itertext()).split()),
        description=get_text(parts.get("description", empty), "description"),
        creator=get_text(parts.get("creator", empty), "title"),
        keywords=tuple(dict.fromkeys(word for word in keywords if word and word not in NOT_TAGS)),
    )


def split_name(name: str) -> str:
    """Return the name as words: RedCar_02 is "red car"."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\([^)]*\)", " ", name))
    found = [word for word in re.split(r"[\s_\-#.,:;/+]+", name.lower()) if word]
    found = [re.sub(r"^(\D{2,})\d+[a-z]?$", r"\1", word).strip("\"'!?") for word in found]
    return " ".join(word for word in found if word and not re.fullmatch(r"\d+[a-z]?|bw|svg|png|v\d", word))


def parse_file_name(stem: str, creator: str) -> str:
    """Return the name in a file's name, without the truncated name of the author: chemistry_flask_matthew__02."""
    parts = [part for part in re.split(r"[_\s]+", stem.lower()) if part and not re.fullmatch(r"\d+[a-z]?", part)]
    by = split_words(creator)
    for at in range(1, len(parts)):
        rest = [letter for part in parts[at:] for letter in split_words(part)]
        if by and rest and " ".join(by).startswith(" ".join(rest)):
            parts = parts[:at]
            break
    return split_name(" ".join(part for part in parts if part != "ganson"))


def parse_title(title: str, creator: str) -> str:
    """Return the name in a title, or "" if there is none."""
    if COLLECTION.search(title) or make_concept(title) == make_concept(creator):
        return ""
    return split_name(title)


def is_dropped(path: str, work: Work) -> bool:
    """Return whether the picture is excluded (see the module)."""
    if DROPPED_KEYWORDS.intersection(work.keywords):
        return True
    if path.startswith(DROPPED) or (path.startswith(MAPS) and not path.startswith(NOT_MAPS)):
        return True
    return bool(NOT_ENGLISH.search(path) or NOT_ENGLISH.search(work.creator))


def choose_name(path: str, work: Work, titles: Counter[str]) -> str:
    """Return the name of the picture from its title, else from its file, else ""."""
    title = parse_title(work.title, work.creator) if titles[work.title.lower()] <= COMMON else ""
    name = title or parse_file_name(Path(path).stem, work.creator)
    letters = re.sub("[^a-z]", "", name)
    return name if len(letters) > 2 and name.isascii() and len(name.split()) <= MAX_NAME_WORDS else ""


def select_tags(name: str, work: Work) -> tuple[str, ...]:
    """Return the keywords that aren't in the name and aren't the author."""
    known = set(make_concept(name).split()) | set(make_concept(work.creator).split())
    return tuple(
        word
        for word in work.keywords
        if TAG.fullmatch(word) and set(make_concept(word).split()) - known and len(word.split()) <= 3
    )


def build_captions(name: str, work: Work) -> tuple[str, ...]:
    """Return the name and, if there is one of a usable length, the description."""
    count = len(work.description.split())
    if 3 <= count <= MAX_DESCRIPTION_WORDS and not COLLECTION.search(work.description) and "http" not in work.description:
        return name, work.description
    return (name,)


def list_clip_art(png_package: Path, svg_package: Path) -> list[Item]:
    """Return the usable pictures, sorted by path."""
    root = svg_package / FOLDER / "svg"
    works = {
        file.relative_to(root).with_suffix("").as_posix(): read_work(file.read_bytes()) for file in sorted(root.rglob("*.svg"))
    }
    titles = Counter(work.title.lower() for work in works.values() if work)
    return list(build_items(((path, work) for path, work in works.items() if work), titles, png_package / FOLDER / "png"))


def build_items(works: Iterable[tuple[str, Work]], titles: Counter[str], folder: Path) -> Iterable[Item]:
    """Yield the items with a name and a picture."""
    for path, work in works:
        file = folder / f"{path}.png"
        name = "" if is_dropped(path, work) else choose_name(path, work, titles)
        if name and make_concept(name) and file.is_file():
            key = make_concept(name)
            yield Item(
                image=f"images/openclipart/{path}.png",
                captions=build_captions(name, work),
                tags=select_tags(name, work),
                concept=key,
                group=key,
                source="openclipart",
                file=file,
            )
