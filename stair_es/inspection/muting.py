"""Stop words of a corpus, and as a word policy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from stair_es.inspection.figures import WordFigures, ordered
from stair_es.policy import WordPolicy

FLAT = 0.5
"""From here on more than half of what a word is worth is the same for every image: see `docs/inspect.md` for what it measured."""
FEWEST_IMAGES = 20
"""Of fewer no word is called flat: one word in one image of two would be."""


def stop_words(figures: Sequence[WordFigures], images: int, flat: float = FLAT) -> tuple[WordFigures, ...]:
    """The words that don't tell the images apart, the flattest first; none where there are too few images to say."""
    if images < FEWEST_IMAGES:
        return ()
    return ordered((row for row in figures if row.flatness >= flat), "flat")


def muting(words: Iterable[str], policy: WordPolicy | None, name: str) -> tuple[WordPolicy, tuple[str, ...]]:
    """A policy that mutes `words` and does what the policy of the index does besides, and the words that it can't mute.

    A policy takes the place of the one before, so its rules are kept. A word that others become, or that becomes another, can't
    be muted beside that rule.

    Args:
        words: To mute.
        policy: Of the index.
        name: Of the new one.
    """
    had = policy or WordPolicy()
    moved = {*had.becomes, *had.becomes.values()}
    wanted = [word for word in dict.fromkeys(words) if word not in had.mute]
    muted = [word for word in wanted if word not in moved]
    cap = {word: most for word, most in had.cap.items() if word not in muted}
    left = tuple(word for word in wanted if word in moved)
    return replace(had, name=name, mute=(*had.mute, *muted), cap=cap), left
