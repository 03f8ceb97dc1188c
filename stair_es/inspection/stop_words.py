"""Find the stop words of a corpus, and build a token policy that mutes them. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from stair_es.inspection.token_stats import TokenStats, sort_token_stats
from stair_es.token_policy import TokenPolicy

UNIFORMITY_THRESHOLD = 0.5
"""Minimum uniformity of a stop word: more than half of its effect is the same for every image. See docs/inspect.md."""
MIN_IMAGES = 20
"""Minimum number of images to find stop words in: with two images, each token that one of them has would be flat."""


def find_stop_words(
    figures: Sequence[TokenStats], images: int, threshold: float = UNIFORMITY_THRESHOLD
) -> tuple[TokenStats, ...]:
    """Find the tokens that don't distinguish images, the flattest first; none if there are too few images."""
    if images < MIN_IMAGES:
        return ()
    return sort_token_stats((row for row in figures if row.uniformity >= threshold), "uniformity")


def build_stop_word_policy(words: Iterable[str], policy: TokenPolicy | None, name: str) -> tuple[TokenPolicy, tuple[str, ...]]:
    """Build a policy that mutes `words` in addition to the policy of the index; also return the words it can't mute.

    A new policy replaces the previous one, so the existing rules are kept. A token that is source or target of a rename or
    merge rule can't also be muted.

    Args:
        words: Tokens to mute.
        policy: Policy of the index.
        name: Name of the new policy.
    """
    had = policy or TokenPolicy()
    moved = {*had.replacements, *had.replacements.values()}
    wanted = [word for word in dict.fromkeys(words) if word not in had.mute]
    muted = [word for word in wanted if word not in moved]
    cap = {word: most for word, most in had.cap.items() if word not in muted}
    left = tuple(word for word in wanted if word in moved)
    return replace(had, name=name, mute=(*had.mute, *muted), cap=cap), left
