"""How a words index differs from its main index, by image and stamp. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a words index has of one image."""

    documents: int
    words: int | None
    """How many words the image has in all, as these documents say."""
    stamp: str | None
    """None where they have several, or none: then some are old."""

    def is_up_to_date(self, stamp: str, top_words: int) -> bool:
        """Whether these are all documents of the image whose document has this stamp now."""
        return self.stamp == stamp and self.words is not None and self.documents == min(top_words, self.words)


def outdated(wanted: Mapping[str, str], found: Mapping[str, Found], top_words: int) -> list[str]:
    """Ids of the images whose words are missing, incomplete or old.

    Args:
        wanted: Id -> stamp of images in the main index that have words.
        found: What the words index has of them.
        top_words: How many documents an image has at most.
    """
    return [id_ for id_, stamp in wanted.items() if id_ not in found or not found[id_].is_up_to_date(stamp, top_words)]


def superfluous(found: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Ids of images that the words index has and the main index hasn't, or hasn't any words of."""
    there = set(wanted)
    return [id_ for id_ in found if id_ not in there]
