"""Serialize responses for the page. Pure: text stays text, and arbitrary document fields become plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from stair_es.inspection.stored import vector_of
from stair_es.vocab import unescape

if TYPE_CHECKING:
    from stair_es.inspection.stored import StoredImage
    from stair_es.search.hits import Hit, Reason
    from stair_es.types import Json, SparseVector
    from stair_es.web.weighed import Weighed

TOP_WORDS = 12
_DIGITS = 6
_LONGEST = 4000
_NOT_FACTS = frozenset(
    {"tokens", "impacts", "token_ids", "top_tokens", "thumbnail", "policy_undo", "uri", "caption", "fingerprint", "version"}
)


def encoded(value: Json | Mapping[str, Any]) -> bytes:
    """Encode JSON in ASCII, so that an unpaired surrogate of a file name passes and no byte is special in HTML."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def hit_json(hit: Hit, why: Sequence[Reason], beside: float, thumbnail: str | None) -> dict[str, Any]:
    """Serialize a hit.

    Args:
        hit: The hit.
        why: The contributions of its tokens.
        beside: The part of the score that is not from tokens.
        thumbnail: The URL of the thumbnail, if any.
    """
    return {
        "id": hit.id,
        "uri": hit.uri,
        "name": name_of(hit.uri) or hit.id,
        "caption": text_of(hit.source.get("caption")),
        "score": hit.score,
        "width": _whole(hit.source.get("width")),
        "height": _whole(hit.source.get("height")),
        "thumbnail": thumbnail,
        "why": [
            {
                "word": reason.feature,
                "query": round(reason.query_weight, _DIGITS),
                "image": round(reason.image_weight, _DIGITS),
                "adds": round(reason.contribution, _DIGITS),
            }
            for reason in why
        ],
        "beside": round(beside, _DIGITS),
        "words": heaviest(hit.source.get("tokens"), TOP_WORDS),
    }


def query_json(weighed: Weighed) -> dict[str, Any]:
    """Serialize a query, token by token."""
    words = [
        {
            "word": word.word,
            "weight": round(word.weight, _DIGITS),
            "factor": word.factor,
            **({"added": True} if word.added else {}),
        }
        for word in weighed.words
    ]
    return {"query": words, "required": list(weighed.required), "excluded": list(weighed.excluded)}


def image_json(image: StoredImage, thumbnail: str | None, original: str | None) -> dict[str, Any]:
    """Serialize everything readable of an image.

    Args:
        image: The stored image.
        thumbnail: The URL of the thumbnail, if any.
        original: The URL of the original, if any.
    """
    facts = {name: plain(value) for name, value in sorted(image.source.items()) if name not in _NOT_FACTS and value is not None}
    return {
        "id": image.id,
        "uri": image.uri,
        "name": name_of(image.uri) or image.id,
        "caption": text_of(image.source.get("caption")),
        "words": pairs(image.vector),
        "facts": {"index": image.index, **facts},
        "thumbnail": thumbnail,
        "original": original,
        "explain": {"sum_of_weights": round(math.fsum(image.vector.weights), _DIGITS), "words": len(image.vector)},
    }


def facets_json(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Serialize the number of matches and their facets."""
    groups = answer.get("aggregations") or {}
    return {
        "total": int(answer["hits"]["total"]["value"]),
        "words": _counts(groups.get("words"), "word"),
        "colours": _counts(groups.get("colours"), "colour"),
        "sources": _counts(groups.get("sources"), "source"),
    }


def pairs(vector: SparseVector) -> list[list[Any]]:
    """Serialize a vector to pairs of token and weight, heaviest first."""
    return [[word, round(weight, _DIGITS)] for word, weight in vector]


def heaviest(tokens: object, count: int) -> list[list[Any]]:
    """List the heaviest tokens of a document in the form of `serialize_vector`, faster: 24 hits have 1,500 tokens.

    Args:
        tokens: The `tokens` of a document.
        count: Number of tokens.
    """
    if not isinstance(tokens, Mapping):
        return []
    try:
        best = sorted(tokens.items(), key=itemgetter(1), reverse=True)  # sorted already by ingest, which makes this fast
    except TypeError:  # a value that is not a number, such as null
        return pairs(vector_of(tokens).top(count))
    words = ([unescape(word), round(weight, _DIGITS)] for word, weight in best if 0 < weight < math.inf)
    return list(islice(words, count))


def thumbnail_url(id_: str, fingerprint: object) -> str:
    """Build the URL of a thumbnail; with a fingerprint it can be cached forever."""
    version = f"?v={quote(fingerprint, safe='')}" if isinstance(fingerprint, str) and fingerprint else ""
    return f"/thumb/{segment(id_)}{version}"


def original_url(id_: str) -> str:
    """Build the URL of an original."""
    return f"/original/{segment(id_)}"


def segment(id_: str) -> str:
    """Quote an id as one segment of a path, including slashes."""
    return quote(id_, safe="", errors="replace")


def name_of(uri: str) -> str:
    """Return a short name for a URI: the last part of its path, and the fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri
    last = unquote(parts.path.rstrip("/").rpartition("/")[2])
    return f"{last}#{unquote(parts.fragment)}" if parts.fragment else last or uri


def text_of(value: object) -> str | None:
    """Format a caption as text; the field can contain any JSON value."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " / ".join(value)
    return (value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False))[:_LONGEST]


def plain(value: object) -> Json:
    """Return a document field as JSON; longer values become the beginning of their text."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _LONGEST:
        return text[:_LONGEST] + "…"
    parsed: Json = json.loads(text, parse_constant=lambda _: None)
    return parsed


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counts(group: Mapping[str, Any] | None, name: str) -> list[dict[str, Any]]:
    return [{name: str(bucket["key"]), "count": int(bucket["doc_count"])} for bucket in (group or {}).get("buckets", ())]
