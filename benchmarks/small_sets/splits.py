"""The file of each item, by a hash of its concept, so that no concept is on two sides in any build.

A drawing that isn't an emoji is split by its own name, unless held-out emoji have that name: then it isn't used for training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from small_sets.items import Item
from small_sets.names import has_mention, hash_share, make_concept

TRAIN_VENDORS = ("google", "emojione", "fluent", "fxemoji")
MORE_VENDORS = ("fluent-flat", "noto-v1", "streamline")
"""Drawings used only for training, in a separate file, so that the other files don't change."""
VAL_VENDOR = "openmoji"
TEST_VENDOR = "twitter"
VENDORS = (*TRAIN_VENDORS, VAL_VENDOR, TEST_VENDOR)
ART = {"openclipart": "test_clipart", "tuxpaint-drawing": "test_drawings"}

TEST_CONCEPTS = 0.11
VAL_CONCEPTS = 0.10
TEST_ART = 0.15

TRAINING = ("train", "train_more")

FILES = (
    "train",
    "train_more",
    "val_style",
    "val_concepts",
    "test_style",
    "test_concepts",
    "test_clipart",
    "test_drawings",
    "test_photos",
)


def choose_side(group: str) -> str:
    """Return whether a group of emoji is "test", "val" or "seen"."""
    number = hash_share(group, "concept")
    if number < TEST_CONCEPTS:
        return "test"
    return "val" if number < TEST_CONCEPTS + VAL_CONCEPTS else "seen"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Names that no training picture may have."""

    test: frozenset[str]
    val: frozenset[str]

    @classmethod
    def from_emoji(cls, emoji: Iterable[Item]) -> HeldOut:
        """Return the concepts of the emoji that are held out, and their groups."""
        keys: dict[str, set[str]] = {"test": set(), "val": set(), "seen": set()}
        for item in emoji:
            keys[choose_side(item.group)] |= {item.concept, item.group}
        return cls(test=frozenset(keys["test"]), val=frozenset(keys["val"]))

    def is_named_in(self, texts: Iterable[str]) -> bool:
        """Return whether a held-out concept is a part of one of the texts."""
        keys = [make_concept(text) for text in texts]
        return any(has_mention(key, name) for key in keys for name in (*self.test, *self.val))


def choose_emoji_file(item: Item) -> str | None:
    """Return the file of a vendor's drawing; None if it isn't used."""
    where = choose_side(item.group)
    if item.source in MORE_VENDORS:
        return "train_more" if where == "seen" else None
    if where == "seen":
        return {VAL_VENDOR: "val_style", TEST_VENDOR: "test_style"}.get(item.source, "train")
    if item.source == VAL_VENDOR:
        return None
    if where == "test":
        return "test_concepts"
    return None if item.source == TEST_VENDOR else "val_concepts"


def choose_art_file(item: Item, held_out: HeldOut) -> str | None:
    """Return the file of a clip art or drawn stamp; None if it isn't used."""
    if item.concept in held_out.test:
        return ART[item.source]
    if item.concept in held_out.val:
        return None
    if hash_share(item.concept, "art") < TEST_ART:
        return ART[item.source]
    return None if held_out.is_named_in(item.captions) else "train"


def split_items(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Return the items of each file, sorted by path; `test_style` and `val_style` only have concepts of the training files."""
    held_out = HeldOut.from_emoji(item for item in items if item.source in VENDORS)
    files: dict[str, list[Item]] = {name: [] for name in FILES}
    for item in sorted(items, key=lambda item: item.image):
        if item.source in (*VENDORS, *MORE_VENDORS):
            name = choose_emoji_file(item)
        else:
            name = "test_photos" if item.source == "tuxpaint-photo" else choose_art_file(item, held_out)
        if name:
            files[name].append(item)
    return keep_seen(files)


def keep_seen(files: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Remove drawings of seen concepts that no training vendor has drawn."""
    seen = {item.concept for item in files["train"] if item.source in TRAIN_VENDORS}
    return {
        name: [item for item in found if item.concept in seen] if name in ("val_style", "test_style") else found
        for name, found in files.items()
    }
