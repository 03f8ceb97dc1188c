"""Why a search finds nothing, as far as its required words are the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stair_es.search.how import How
    from stair_es.search.question import Question, Spelling
    from stair_es.search.searcher import Searcher


def explain_required(searcher: Searcher, question: Question, how: How) -> str:
    """Which required words leave nothing; empty where they aren't the reason.

    Raises:
        ClusterError: As for `Searcher.search`.
    """
    bare = replace(question, excluded=(), filters=(), min_score=None)
    if not question.required or searcher.count(bare, how=how):
        return ""
    counts = {spelling: searcher.count(replace(bare, required=[spelling]), how=how) for spelling in question.required}
    missing = [_typed(spelling) for spelling, count in counts.items() if not count]
    if missing:
        return f"no image has {' or '.join(missing)}"
    return "no image has all of " + ", ".join(f"{_typed(spelling)} ({count:,})" for spelling, count in counts.items())


def _typed(spelling: Spelling) -> str:
    return "+" + "".join(feature.removeprefix("##") for feature in spelling)
