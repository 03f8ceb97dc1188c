"""Reports of `stair-es coverage`, as files for `stair-es serve --coverage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def build_report(words: Sequence[str], *, index: str = "photos", model: str = "stair-mini-3") -> dict[str, Any]:
    """Build a report of as many searches, none of which has a match; the model knows none of the words."""
    answers = {"match": 0, "only_weak": 0, "nothing": len(words)}
    found = {"searches": 1, "share": 1 / max(1, len(words)), "matched": 0, "largest_weight": None}
    return {
        "index": index,
        "model": model,
        "searches": len(words),
        "queries": len(words),
        "answers": {kind: {"searches": count, "share": float(count > 0), "queries": count} for kind, count in answers.items()},
        "words": {
            "unknown": [
                {**found, "word": word, "example": f"a {word}", "suggestions": ["cat"], "searched_for": None} for word in words
            ],
            "not_carried": [],
        },
        "without_match": [{"query": f"a {word}", "searches": 1, "answer": "nothing", "code": ""} for word in words],
        "remarks": [],
        "seconds": 1.5,
    }
