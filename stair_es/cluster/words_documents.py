"""The documents of a token index: one for each of the heaviest tokens of an image. Pure.

Charts average and count these documents, since no cluster aggregates `rank_features`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stair_es.cluster.documents import stored_words
from stair_es.types import SparseVector

WORDS_VERSION = 1
"""Part of each source version: increment it when the same image would give other documents."""

STAMPED = ("fingerprint", "policy")
"""Fields of an image's document that are part of its source version, in addition to the version of the write."""
CARRIED = ("uri", "source", "caption", "colours", "model", "taken_at", "ingested_at")
"""Fields that are copied from the image's document."""

WordDocuments: TypeAlias = dict[str, dict[str, Any]]
"""`_id` -> `_source`."""


@dataclass(frozen=True)
class Write:
    """The version of a stored document: the cluster numbers each write."""

    seq_no: int
    primary_term: int

    @classmethod
    def of(cls, doc: Mapping[str, Any]) -> Write:
        """Build the version from a hit or a document of a GET response."""
        return cls(int(doc["_seq_no"]), int(doc["_primary_term"]))


def stamp(fields: Mapping[str, Any], write: Write) -> str:
    """Compute the source version of an image's token documents: if it changes, they have to be written again.

    The version of the write covers what the fingerprint doesn't: a document that was edited by hand, an image that has moved.

    Args:
        fields: The `VERSIONED_FIELDS`, from `_source` or doc values.
        write: Version of the document.
    """
    told = (_text(fields.get(name)) or "-" for name in STAMPED)
    return ".".join((str(WORDS_VERSION), *told, str(write.seq_no), str(write.primary_term)))


def word_documents(id_: str, source: Mapping[str, Any], stamped: str, top_words: int) -> WordDocuments:
    """Build one document for each of the heaviest tokens of an image; none without `top_tokens`.

    Args:
        id_: Id of the image.
        source: `_source` of its document.
        stamped: Its source version.
        top_words: Maximum number of documents.

    Raises:
        ValueError: If its `tokens` aren't token weights: not every document was written by stair-es.
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
        raise ValueError(f"its `tokens` are not an object of tokens and weights, but {type(tokens).__name__}")
    try:
        return SparseVector.from_mapping(stored_words(tokens))
    except TypeError as error:
        raise ValueError(f"its `tokens` contain an invalid weight: {error}") from error


def _is_plain(value: object) -> bool:
    """Return whether a value is a text or a list of texts: a column with one of these names may contain anything."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))


def _text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")
