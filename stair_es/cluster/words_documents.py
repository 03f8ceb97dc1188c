"""The words of one image as documents of their own: what a words index holds. Pure.

Charts average and count such documents, since no cluster aggregates `rank_features`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stair_es.cluster.documents import stored_words
from stair_es.types import SparseVector

WORDS_VERSION = 1
"""Part of each stamp: raise it when the same image would give other documents."""

STAMPED = ("fingerprint", "policy")
"""Fields of an image's document that its stamp is made of, besides its place in the history of its shard."""
CARRIED = ("uri", "source", "caption", "colours", "model", "taken_at", "ingested_at")
"""Fields that a word has of its image."""

WordDocuments: TypeAlias = dict[str, dict[str, Any]]
"""`_id` -> `_source`."""


@dataclass(frozen=True)
class Write:
    """Which write of a document it is that is stored: a cluster gives each a number of its own."""

    seq_no: int
    primary_term: int

    @classmethod
    def of(cls, doc: Mapping[str, Any]) -> Write:
        """Of a hit, or of a document that was got."""
        return cls(int(doc["_seq_no"]), int(doc["_primary_term"]))


def stamp(fields: Mapping[str, Any], write: Write) -> str:
    """What the words of an image were made from: another one means that they have to be made again.

    The number of the write tells what the fingerprint can't: a document that was changed by hand, an image that has moved.

    Args:
        fields: Those of `STAMPED`, as `_source` or as doc values have them.
        write: Of the document.
    """
    told = (_text(fields.get(name)) or "-" for name in STAMPED)
    return ".".join((str(WORDS_VERSION), *told, str(write.seq_no), str(write.primary_term)))


def word_documents(id_: str, source: Mapping[str, Any], stamped: str, top_words: int) -> WordDocuments:
    """One document for each of the heaviest words of an image; none for one without `top_tokens`.

    Raises:
        ValueError: Its `tokens` aren't weights of words: not every document was written by us.
    """
    if not source.get("top_tokens"):
        return {}
    vector = _vector(source.get("tokens"))
    total = math.fsum(vector.weights)
    image = {
        "image_id": id_,
        "words": len(vector),
        **{name: source[name] for name in CARRIED if _is_plain(source.get(name))},
        "stamp": stamped,
    }
    return {
        f"{id_}-{rank}": {**image, "token": word, "weight": weight, "rank": rank, "share": weight / total}
        for rank, (word, weight) in enumerate(vector.top(top_words), start=1)
    }


def _vector(tokens: object) -> SparseVector:
    if tokens is None:
        raise ValueError("it has `top_tokens`, but no `tokens` in its _source")
    if not isinstance(tokens, Mapping):
        raise ValueError(f"its `tokens` are no object of words and weights, but {type(tokens).__name__}")
    try:
        return SparseVector.from_mapping(stored_words(tokens))
    except TypeError as error:
        raise ValueError(f"its `tokens` have what is no weight: {error}") from error


def _is_plain(value: object) -> bool:
    """Text, or a list of texts: a column that is called like one of ours may hold anything."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))


def _text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")
