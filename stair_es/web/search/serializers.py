"""Serialize responses for the page. Pure: text stays text, and arbitrary document fields become plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from stair_es.feature_names import unescape_feature
from stair_es.inspection.stored_document import parse_token_vector

if TYPE_CHECKING:
    from stair_es.inspection.stored_document import StoredImage
    from stair_es.search.results import Hit, TokenContribution
    from stair_es.types import Json, SparseVector
    from stair_es.web.search.query import WeightedQuery

MAX_HIT_TOKENS = 12
_DIGITS = 6
_MAX_TEXT_CHARS = 4000
_HIDDEN_FIELDS = frozenset(
    {"tokens", "impacts", "token_ids", "top_tokens", "thumbnail", "policy_undo", "uri", "caption", "fingerprint", "version"}
)


def encode_json(value: Json | Mapping[str, Any]) -> bytes:
    """Encode JSON in ASCII, so that an unpaired surrogate of a file name passes and no byte is special in HTML."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def serialize_hit(
    hit: Hit, contributions: Sequence[TokenContribution], text_score: float, thumbnail: str | None
) -> dict[str, Any]:
    """Serialize a hit."""
    return {
        "id": hit.id,
        "uri": hit.uri,
        "name": get_display_name(hit.uri) or hit.id,
        "caption": format_caption(hit.source.get("caption")),
        "score": hit.score,
        "width": _get_int(hit.source.get("width")),
        "height": _get_int(hit.source.get("height")),
        "thumbnail": thumbnail,
        "contributions": [
            {
                "token": contribution.token,
                "query_weight": round(contribution.query_weight, _DIGITS),
                "document_weight": round(contribution.document_weight, _DIGITS),
                "contribution": round(contribution.contribution, _DIGITS),
            }
            for contribution in contributions
        ],
        "text_score": round(text_score, _DIGITS),
        "tokens": list_top_tokens(hit.source.get("tokens"), MAX_HIT_TOKENS),
    }


def serialize_query(weighted: WeightedQuery) -> dict[str, Any]:
    """Serialize a query, token by token."""
    tokens = [
        {
            "token": token.token,
            "weight": round(token.weight, _DIGITS),
            "factor": token.factor,
            **({"added": True} if token.added else {}),
        }
        for token in weighted.tokens
    ]
    return {"query": tokens, "required": list(weighted.required), "excluded": list(weighted.excluded)}


def serialize_image(image: StoredImage, thumbnail: str | None, original: str | None) -> dict[str, Any]:
    """Serialize everything readable of an image."""
    facts = {
        name: truncate_json(value)
        for name, value in sorted(image.source.items())
        if name not in _HIDDEN_FIELDS and value is not None
    }
    return {
        "id": image.id,
        "uri": image.uri,
        "name": get_display_name(image.uri) or image.id,
        "caption": format_caption(image.source.get("caption")),
        "tokens": serialize_vector(image.vector),
        "facts": {"index": image.index, **facts},
        "thumbnail": thumbnail,
        "original": original,
        "explain": {"sum_of_weights": round(math.fsum(image.vector.weights), _DIGITS), "token_count": len(image.vector)},
    }


def serialize_facets(response: Mapping[str, Any]) -> dict[str, Any]:
    """Serialize the number of matches and their facets."""
    aggregations = response.get("aggregations") or {}
    return {
        "total": int(response["hits"]["total"]["value"]),
        "tokens": _serialize_buckets(aggregations.get("tokens"), "token"),
        "colours": _serialize_buckets(aggregations.get("colours"), "colour"),
        "sources": _serialize_buckets(aggregations.get("sources"), "source"),
    }


def serialize_vector(vector: SparseVector) -> list[list[Any]]:
    """Serialize a vector to pairs of token and weight, heaviest first."""
    return [[token, round(weight, _DIGITS)] for token, weight in vector]


def list_top_tokens(tokens: object, count: int) -> list[list[Any]]:
    """List the heaviest tokens of a document in the form of `serialize_vector`, faster: 24 hits have 1,500 tokens."""
    if not isinstance(tokens, Mapping):
        return []
    try:
        sorted_tokens = sorted(tokens.items(), key=itemgetter(1), reverse=True)  # sorted already by ingest, which makes this fast
    except TypeError:  # a value that is not a number, such as null
        return serialize_vector(parse_token_vector(tokens).top(count))
    pairs = ([unescape_feature(token), round(weight, _DIGITS)] for token, weight in sorted_tokens if 0 < weight < math.inf)
    return list(islice(pairs, count))


def build_thumbnail_url(id_: str, fingerprint: object) -> str:
    """Build the URL of a thumbnail; with a fingerprint it can be cached forever."""
    version = f"?v={quote(fingerprint, safe='')}" if isinstance(fingerprint, str) and fingerprint else ""
    return f"thumb/{quote_path_segment(id_)}{version}"


def build_original_url(id_: str) -> str:
    """Build the URL of an original."""
    return f"original/{quote_path_segment(id_)}"


def quote_path_segment(id_: str) -> str:
    """Quote an id as one segment of a path, including slashes."""
    return quote(id_, safe="", errors="replace")


def get_display_name(uri: str) -> str:
    """Return a short name for a URI: the last part of its path, and the fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri
    last = unquote(parts.path.rstrip("/").rpartition("/")[2])
    return f"{last}#{unquote(parts.fragment)}" if parts.fragment else last or uri


def format_caption(value: object) -> str | None:
    """Format a caption as text; the field can contain any JSON value."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " / ".join(value)
    return (value if isinstance(value, str) else json.dumps(truncate_json(value), ensure_ascii=False))[:_MAX_TEXT_CHARS]


def truncate_json(value: object) -> Json:
    """Return a document field as JSON; longer values become the beginning of their text."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT_CHARS else value[:_MAX_TEXT_CHARS] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _MAX_TEXT_CHARS:
        return text[:_MAX_TEXT_CHARS] + "…"
    parsed: Json = json.loads(text, parse_constant=lambda _: None)
    return parsed


def _get_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _serialize_buckets(aggregation: Mapping[str, Any] | None, name: str) -> list[dict[str, Any]]:
    return [{name: str(bucket["key"]), "count": int(bucket["doc_count"])} for bucket in (aggregation or {}).get("buckets", ())]
