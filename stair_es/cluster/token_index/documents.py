"""The documents of a token index: one for each of the heaviest tokens of an image. Pure.

Charts average and count these documents, since no cluster aggregates `rank_features`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from stair_es.cluster.documents.document import parse_token_weights
from stair_es.cluster.documents.read import WriteVersion
from stair_es.types import SparseVector

TOKEN_INDEX_VERSION = 3
"""Part of each source version: increment it when the same image would give other documents."""

VERSIONED_FIELDS = ("fingerprint", "policy")
"""Fields of an image's document that are part of its source version, in addition to the version of the write."""
COPIED_FIELDS = ("uri", "name", "source", "caption", "colors", "model", "taken_at", "ingested_at")
"""Fields that are copied from the image's document."""

TokenDocuments: TypeAlias = dict[str, dict[str, Any]]
"""`_id` -> `_source`."""


def compute_source_version(fields: Mapping[str, Any], write: WriteVersion) -> str:
    """Compute the source version of an image's token documents: if it changes, they have to be written again.

    The version of the write covers what the fingerprint doesn't: a document that was edited by hand, an image that has moved.
    """
    values = (_get_text(fields.get(name)) or "-" for name in VERSIONED_FIELDS)
    return ".".join((str(TOKEN_INDEX_VERSION), *values, str(write.seq_no), str(write.primary_term)))


def build_token_documents(id_: str, source: Mapping[str, Any], source_version: str, top_token_count: int) -> TokenDocuments:
    """Build one document for each of the heaviest tokens of an image; none without `top_tokens`.

    Raises:
        ValueError: If its `tokens` aren't token weights: not every document was written by stair-es.
    """
    if not source.get("top_tokens"):
        return {}
    vector = _parse_vector(source.get("tokens"))
    total = math.fsum(vector.weights)
    image = {
        "image_id": id_,
        "token_count": len(vector),
        **{name: source[name] for name in COPIED_FIELDS if _is_text(source.get(name))},
        "source_version": source_version,
    }
    return {
        f"{id_}-{rank}": {**image, "token": token, "weight": weight, "rank": rank, "weight_share": weight / total}
        for rank, (token, weight) in enumerate(vector.top(top_token_count), start=1)
    }


def _parse_vector(tokens: object) -> SparseVector:
    if tokens is None:
        raise ValueError("it has `top_tokens`, but no `tokens` in its _source")
    if not isinstance(tokens, Mapping):
        raise ValueError(f"its `tokens` are not an object of tokens and weights, but {type(tokens).__name__}")
    try:
        return SparseVector.from_mapping(parse_token_weights(tokens))
    except TypeError as error:
        raise ValueError(f"its `tokens` contain an invalid weight: {error}") from error


def _is_text(value: object) -> bool:
    """Return whether a value is a text or a list of texts: a column with one of these names may contain anything."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))


def _get_text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")
