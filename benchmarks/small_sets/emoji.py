"""Emoji: concepts with names and tags, and each vendor's drawing of them.

Excluded: skin tones, hair and skin components, gendered and family variants, flags of countries and regions, keycaps, letters and
Japanese signs in squares, clock faces at each half hour, people facing the other direction.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_sets.items import Item
from small_sets.names import make_concept, split_words

DROPPED = frozenset({"skin-tone", "hair-style", "country-flag", "subdivision-flag", "keycap", "alphanum", "family"})
CLOCK = re.compile(r"(o’clock|-thirty)$")
VARIANT = re.compile(
    r"^(man|woman|men|women)(:| .)|^deaf (man|woman)$|: (man|woman|men|women|beard|.* hair|bald|adult|facing right)\b"
)
ONLY_GENDERED = frozenset({"man dancing", "woman dancing", "woman with headscarf"})
NUMBER = re.compile(r"-\d+$")
ICONIFY_SIDE = 16
"""Default side of the view box of an Iconify set."""
ICONIFY = {"fxemoji": "", "fluent-flat": "-", "noto-v1": "-", "streamline": "-"}
"""Iconify set -> separator of the words in its names."""
FILES = {
    "google": ("img/google/64", ".png"),
    "twitter": ("img/twitter/64", ".png"),
    "emojione": ("assets/png", ".png"),
    "fluent": ("assets", ".webp"),
    "openmoji": ("color/svg", ".svg"),
}


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """A concept that vendors draw."""

    label: str
    tags: tuple[str, ...]
    code: str
    """Code points without variation selectors."""

    @property
    def group(self) -> str:
        """The concept without "face": a dog and its face are learned together, so they are held out together."""
        key = make_concept(self.label)
        return key.removesuffix(" face").removeprefix("face with ") or key


def normalize_code(name: str) -> str:
    """Return code points in a form common to all vendors: lower case, no variation selectors, no leading zeros."""
    return "-".join(part.lstrip("0") for part in name.lower().split("-") if part != "fe0f")


def parse_concepts(data: Iterable[Mapping[str, Any]], subgroups: Mapping[str, str]) -> list[Emoji]:
    """Return the concepts of emojibase without the excluded ones, in the order of the standard."""
    found = []
    for row in sorted(data, key=lambda row: (row.get("order", 0), row["hexcode"])):
        label = row["label"]
        if row.get("subgroup") is None or subgroups[str(row["subgroup"])] in DROPPED:
            continue
        if CLOCK.search(label) or (VARIANT.search(label) and label not in ONLY_GENDERED):
            continue
        own = set(split_words(label))
        tags = tuple(dict.fromkeys(tag.lower() for tag in row.get("tags", ()) if set(split_words(tag)) - own))
        found.append(Emoji(label=label.lower(), tags=tags, code=normalize_code(row["hexcode"])))
    return found


def read_concepts(package: Path) -> list[Emoji]:
    """Read the concepts of an unpacked emojibase-data."""
    data = json.loads((package / "en/data.json").read_text(encoding="utf-8"))
    return parse_concepts(data, json.loads((package / "meta/groups.json").read_text(encoding="utf-8"))["subgroups"])


def list_drawings(vendor: str, package: Path, emoji: Iterable[Emoji]) -> list[Item]:
    """Return the vendor's drawings of the concepts, without the concepts that it never drew."""
    folder, suffix = FILES[vendor]
    files = {normalize_code(file.stem): file for file in sorted((package / folder).glob(f"*{suffix}"))}
    return [make_item(vendor, one, files[one.code]) for one in emoji if one.code in files]


def make_item(vendor: str, one: Emoji, file: Path, number: int = 0) -> Item:
    """Return one drawing; `number` distinguishes drawings of the same vendor and concept."""
    return Item(
        image=f"images/{vendor}/{one.code}{f'_{number}' if number else ''}.png",
        captions=(one.label,),
        tags=one.tags,
        concept=make_concept(one.label),
        group=one.group,
        source=vendor,
        file=file,
    )


def list_spellings(one: Emoji, between: str) -> list[str]:
    """Return the possible names in a set without code points: the current one and that of the Unicode standard."""
    names = [one.label]
    if "-" not in one.code:
        names.append(unicodedata.name(chr(int(one.code, 16)), ""))
    return [between.join(split_words(name)) for name in names if name]


def build_svg(icon: Mapping[str, Any], width: int, height: int) -> str:
    """Return an icon of an Iconify set as a document; missing sizes are those of the set."""
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon.get('width', width)} {icon.get('height', height)}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}">{icon["body"]}</svg>'


def extract_iconify(vendor: str, package: Path, emoji: Iterable[Emoji], folder: Path) -> list[Item]:
    """Write the drawings of an Iconify set, which are known by name only, to `folder` as SVG files.

    Names that differ by a number at the end ("cloud-1", "cloud-2") are drawings of the same concept.
    """
    data = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    width, height = (data.get(side, ICONIFY_SIDE) for side in ("width", "height"))
    names: dict[str, list[str]] = {}
    for name in sorted(data["icons"]):
        names.setdefault(NUMBER.sub("", name), []).append(name)
    found = []
    for one in emoji:
        same = next((names[spelling] for spelling in list_spellings(one, ICONIFY[vendor]) if spelling in names), [])
        for number, name in enumerate(same):
            file = folder / f"{one.code}_{number}.svg"
            file.write_text(build_svg(data["icons"][name], width, height), encoding="utf-8")
            found.append(make_item(vendor, one, file, number))
    return found
