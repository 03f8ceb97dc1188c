"""Hits: what an answer of the engine is to people. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.search.explain import Reason, why
from stair_es.search.shapes import Shape
from stair_es.vocab import unescape

if TYPE_CHECKING:
    from stair_es.search.cursor import After
    from stair_es.types import SparseVector

_LINEAR = re.compile(r"Linear function on the tokens field for the (?P<feature>.*) feature, computed as w \* S", re.DOTALL)
_TERM = re.compile(r"weight\(impacts:(?P<feature>.*) in \d+\)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One document that was found."""

    id: str
    uri: str
    score: float
    """As the engine computed it; without a caption at most 0.39 % below the sum of the contributions."""
    why: tuple[Reason, ...]
    """The words in common, from the stored weights."""
    source: Mapping[str, Any]
    """The document, without its thumbnail."""
    index: str = ""
    """Where it is, if a name stands for several."""
    engine: Mapping[str, float] = field(default_factory=dict)
    """Word -> what the engine says that it adds, where it was asked to explain."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """`words` and `caption` -> the rank there, where two rankings were fused."""

    @property
    def beside(self) -> float:
        """What the score has beyond the words in common: the caption's part."""
        return self.score - sum(reason.contribution for reason in self.why)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer to one search."""

    hits: tuple[Hit, ...]
    """Best first. Empty where nothing has a word in common with the query."""
    took_ms: int
    """Time inside the engine."""
    cut: SparseVector
    """The words of the query that the cluster's clause limit left no room for."""
    dropped: SparseVector
    """The words that pruning left out."""
    shape: Shape
    """How the engine was asked."""
    after: After | None = None
    """The cursor: where the next page begins; None where there is no further one."""
    remarks: tuple[str, ...] = ()
    """What there is to say of how it was asked, for people."""


def hit_of(found: Mapping[str, Any], asked: SparseVector) -> Hit:
    """One element of `hits.hits`."""
    source = found.get("_source") or {}
    return Hit(
        id=found["_id"],
        index=str(found.get("_index", "")),
        uri=str(source.get("uri", "")),
        score=float(found["_score"]),
        why=why(asked, source.get("tokens") or {}),
        source=source,
        engine=engine_parts(found["_explanation"]) if "_explanation" in found else {},
    )


def only(hit: Hit) -> dict[str, Any]:
    """A clause that matches this document and no other: a name can stand for several indices, which may have the same ids."""
    return {"bool": {"filter": [{"ids": {"values": [hit.id]}}, {"term": {"_index": hit.index}}]}}


def engine_parts(explanation: Mapping[str, Any]) -> dict[str, float]:
    """Word -> what it adds to the score, by the engine's own explanation; what isn't about a word is left out."""
    parts: dict[str, float] = {}
    below = [explanation]
    while below:
        part = below.pop()
        said = str(part.get("description", ""))
        about = _LINEAR.search(said) or _TERM.search(said)
        if about:
            word = unescape(about["feature"])
            parts[word] = parts.get(word, 0.0) + float(part["value"])
        else:
            below += part.get("details", [])
    return parts
