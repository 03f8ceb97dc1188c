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


def find_stop_words(stats: Sequence[TokenStats], images: int, threshold: float = UNIFORMITY_THRESHOLD) -> tuple[TokenStats, ...]:
    """Find the tokens that don't distinguish images, the flattest first; none if there are too few images."""
    if images < MIN_IMAGES:
        return ()
    return sort_token_stats((row for row in stats if row.uniformity >= threshold), "uniformity")


def build_stop_word_policy(tokens: Iterable[str], policy: TokenPolicy | None, name: str) -> tuple[TokenPolicy, tuple[str, ...]]:
    """Build a policy that mutes `tokens` in addition to the policy of the index; also return the tokens it can't mute.

    A new policy replaces the previous one, so the existing rules are kept. A token that is source or target of a rename or
    merge rule can't also be muted.
    """
    base = policy or TokenPolicy()
    moved = {*base.replacements, *base.replacements.values()}
    new = [token for token in dict.fromkeys(tokens) if token not in base.mute]
    muted = [token for token in new if token not in moved]
    cap = {token: max_weight for token, max_weight in base.cap.items() if token not in muted}
    rejected = tuple(token for token in new if token in moved)
    return replace(base, name=name, mute=(*base.mute, *muted), cap=cap), rejected
