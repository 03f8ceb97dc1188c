"""Stop words of a corpus as a word policy. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stair_es.policy import WordPolicy


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
