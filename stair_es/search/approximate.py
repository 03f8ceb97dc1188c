"""What an approximate shape can't answer. Pure.

SEISMIC finds a few candidates, and only then could anything else choose among them: too few would be left, or none. Measured on
50,000 drawn photos with 50 candidates: where a filter matches a fifth of them, 38 of 100 questions get fewer than 10 hits; where
it matches a twentieth, all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.config import MAX_HITS
from stair_es.search.neural import CANDIDATES_PER_HIT

if TYPE_CHECKING:
    from stair_es.search.cursor import After
    from stair_es.search.question import Question


def find_obstacle(question: Question, k: int, *, after: After | None = None, two_phase: bool = False) -> str | None:
    """Return why SEISMIC can't answer a question, for people; None if it can."""
    if k > MAX_HITS // CANDIDATES_PER_HIT:
        return f"it finds {CANDIDATES_PER_HIT} candidates for each hit and {MAX_HITS:,} at most, too few for {k:,} hits"
    if question.filters or question.required or question.excluded:
        return "filters, required and excluded tokens would only thin out the few documents that it finds"
    if question.caption.strip() and question.caption_weight > 0:
        return "a caption added to the score would favour documents that it didn't find"
    if question.min_score is not None:
        return "the engine would compare its approximate score with the least score"
    if after is not None:
        return "it has no further pages, only the few documents that it finds"
    if two_phase:
        return "two-phase would find once more with the heaviest tokens"
    return None
