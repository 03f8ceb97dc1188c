"""Why a document is where it is in a ranking: what it lacks, what it has beside, which condition it fails. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.search.body import kept
from stair_es.search.explain import Reason, why
from stair_es.types import SparseVector
from stair_es.vocab import unescape

if TYPE_CHECKING:
    from stair_es.search.question import Question


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """One document and one question."""

    id: str
    uri: str
    score: float | None
    """As the engine computed it; None where it doesn't find the document."""
    rank: int | None
    """How many score higher, and one."""
    wanted: float | None
    """The score of the last of the hits that were asked for; None where there are fewer."""
    why: tuple[Reason, ...]
    """The words in common."""
    lacking: SparseVector
    """The words of the query that the document hasn't: with them it would have matched."""
    beside: SparseVector
    """The words of the document that the query hasn't: with them it would have been found."""
    failing: tuple[str, ...]
    """The conditions that it fails, for people."""


def parts(question: Question, tokens: Mapping[str, float]) -> tuple[tuple[Reason, ...], SparseVector, SparseVector]:
    """Words in common, words that the document lacks, words that it has beside; `tokens` as they are stored."""
    has = SparseVector.from_pairs((unescape(feature), float(weight)) for feature, weight in tokens.items())
    wanted = question.vector
    lacking = SparseVector.from_pairs(pair for pair in wanted if pair[0] not in set(has.features))
    beside = SparseVector.from_pairs(pair for pair in has if pair[0] not in set(wanted.features))
    return why(wanted, tokens), lacking, beside


def failing_words(question: Question, tokens: Mapping[str, float]) -> list[str]:
    """The required words that a document hasn't, and the excluded ones that it has."""
    weights = {unescape(feature): float(weight) for feature, weight in tokens.items()}
    least = question.least
    over = f" of {least:g} or more" if least else ""

    def has(spelling: Sequence[str]) -> bool:
        return all(feature in weights and kept(weights[feature]) >= kept(least) for feature in spelling)

    missing = [word for word in question.required if not has(word)]
    present = [word for word in question.excluded if has(word)]
    return [
        *(f"it hasn't the required word {_name(word)}{over} (weight {_weight(word, weights):g})" for word in missing),
        *(f"it has the excluded word {_name(word)} (weight {_weight(word, weights):g})" for word in present),
    ]


def _name(spelling: Sequence[str]) -> str:
    return "".join(piece.removeprefix("##") for piece in spelling)


def _weight(spelling: Sequence[str], weights: Mapping[str, Any]) -> float:
    return min((float(weights.get(feature, 0.0)) for feature in spelling), default=0.0)
