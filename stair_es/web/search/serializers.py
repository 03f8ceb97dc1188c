"""Serialize responses for the page. Pure: text stays text, and arbitrary document fields become plain JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any
from urllib.parse import quote

from stair_es.cluster.documents.document import LABELS_FIELD, parse_token_vector
from stair_es.feature_names import unescape_feature
from stair_es.inspection.stored_document import StoredImage
from stair_es.search.query import QueryToken
from stair_es.search.results import Hit, SearchResult, TokenContribution
from stair_es.sources.io.uris import split_image_uri
from stair_es.types import Json, SparseVector

MAX_HIT_TOKENS = 12
LARGE_THUMBNAIL_PX = 640
"""Longer side of a thumbnail for screens with two pixels a point; rendered from an original only."""
_HIT_TEXTS = ("folder", "format", "taken_at", "modified_at", "sha256", "perceptual_hash")
_DIGITS = 6
_MAX_TEXT_CHARS = 4000
_MAX_PASSAGE_CHARS = 160
_LETTER = r"[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
"""Letters and digits, except those of scripts without spaces between words."""
_MAX_PASSAGES, _LEAD_CHARS, _PASSAGE_CHARS = 3, 24, 48
"""Characters before the first word, of which a tile shows little, and after each."""
_MAX_READ_CHARS, _MAX_LINES = 20_000, 400
"""More than `--enrich ocr` writes."""
_HIDDEN_FIELDS = frozenset(
    {
        *("tokens", "impacts", "top_tokens", LABELS_FIELD, "thumbnail", "policy_undo", "uri", "caption", "text", "text_boxes"),
        *("fingerprint", "version", "labels_policy"),
    }
)


def encode_json(value: Json | Mapping[str, Any]) -> bytes:
    """Encode JSON in ASCII, so that an unpaired surrogate of a file name passes and no byte is special in HTML."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def serialize_hit(
    hit: Hit,
    contributions: Sequence[TokenContribution],
    text_score: float,
    links: Mapping[str, str | None],
    is_hidden_token: Callable[[str], bool],
    price_field: str = "",
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """Serialize a hit.

    Args:
        hit: The hit.
        contributions: The tokens in common.
        text_score: The part of the score that comes from texts.
        links: Those of `build_image_links`.
        is_hidden_token: Whether a token isn't shown.
        price_field: The field of prices; empty if there are none.
        words: Words that are marked in the text of the picture, beside those by which the hit was found.
    """
    return {
        "id": hit.id,
        "uri": hit.uri,
        "name": _get_name(hit.source, hit.uri, hit.id),
        "caption": format_caption(hit.source.get("caption")),
        "title": format_caption(hit.source.get("title")),
        "passages": [*find_passages(hit.source.get("text"), [*hit.caption_words, *words]), *_list_label_passages(hit.labels)],
        "price": _get_number(_get_inner(hit.source, price_field)),
        "score": hit.score,
        "weak": hit.weak,
        **{name: _get_int(hit.source.get(name)) for name in ("width", "height", "bytes")},
        **{name: _get_text(hit.source.get(name)) for name in _HIT_TEXTS},
        "document": hit.document_uri,
        **links,
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
        "caption_words": list(hit.caption_words),
        "tokens": list_top_tokens(hit.source.get("tokens"), MAX_HIT_TOKENS, is_hidden_token),
        "duplicates": serialize_duplicates(hit.duplicates),
    }


def serialize_duplicates(hits: Iterable[Hit]) -> list[dict[str, str]]:
    """Serialize hits that show the same picture as another."""
    return [{"id": hit.id, "name": _get_name(hit.source, hit.uri, hit.id), "uri": hit.uri} for hit in hits]


def serialize_page(
    query: Mapping[str, Any], hits: Sequence[Mapping[str, Any]], result: SearchResult, method: str
) -> dict[str, Any]:
    """Serialize a page of hits, with its query by `serialize_query`."""
    return {
        **query,
        "hits": list(hits),
        "after": result.after,
        "took_ms": result.took_ms,
        "truncated": list(result.truncated.tokens),
        "method": method,
        "weak_below": result.weak_below,
        "conditions": [{"text": each.text, "field": each.field, "meaning": each.meaning} for each in result.conditions],
        "unknown_words": [each.to_dict() for each in result.unknown_words],
        "remarks": list(result.remarks),
    }


def serialize_query(tokens: Iterable[QueryToken], required: Iterable[str], excluded: Iterable[str]) -> dict[str, Any]:
    """Serialize a query, token by token, and its words as typed."""
    serialized = [
        {
            "token": token.token,
            "weight": round(token.weight, _DIGITS),
            "factor": token.factor,
            **({"added": True} if token.added else {}),
        }
        for token in tokens
    ]
    return {"query": serialized, "required": list(required), "excluded": list(excluded)}


def serialize_image(image: StoredImage, links: Mapping[str, str | None]) -> dict[str, Any]:
    """Serialize everything readable of an image."""
    facts = {
        name: truncate_json(value)
        for name, value in sorted(image.source.items())
        if name not in _HIDDEN_FIELDS and value is not None
    }
    return {
        "id": image.id,
        "uri": image.uri,
        "name": _get_name(image.source, image.uri, image.id),
        "caption": format_caption(image.source.get("caption")),
        "text": list_text_lines(image.source),
        "tokens": serialize_vector(image.vector),
        "facts": {"index": image.index, **facts},
        "thumbnail": links["thumbnail"],
        "original": links["original"],
        "explain": {"sum_of_weights": round(math.fsum(image.vector.weights), _DIGITS), "token_count": len(image.vector)},
    }


def serialize_vector(vector: SparseVector) -> list[list[Any]]:
    """Serialize a vector to pairs of token and weight, heaviest first."""
    return [[token, round(weight, _DIGITS)] for token, weight in vector]


def list_top_tokens(tokens: object, count: int, is_hidden: Callable[[str], bool]) -> list[list[Any]]:
    """List the heaviest tokens of a document that aren't hidden, as `serialize_vector`, but faster: 24 hits have 1,500 tokens."""
    if not isinstance(tokens, Mapping):
        return []
    try:
        sorted_tokens = sorted(tokens.items(), key=itemgetter(1), reverse=True)  # sorted already by ingest, which makes this fast
        pairs: Iterator[tuple[str, float]] = (
            (unescape_feature(token), weight) for token, weight in sorted_tokens if 0 < weight < math.inf
        )
    except TypeError:  # a value that is not a number, such as null
        pairs = iter(parse_token_vector(tokens))
    return list(islice(([token, round(weight, _DIGITS)] for token, weight in pairs if not is_hidden(token)), count))


def build_image_links(id_: str, fingerprint: object, has_thumbnail: bool, has_original: bool) -> dict[str, str | None]:
    """Build the URLs of an image: its original, and thumbnails, which can be cached forever with a fingerprint.

    `thumbnail_2x` is for screens with two pixels a point; it is rendered from the original.
    """
    segment = quote(id_, safe="", errors="replace")  # including slashes
    version = f"?v={quote(fingerprint, safe='')}" if isinstance(fingerprint, str) and fingerprint else ""
    thumbnail = f"thumb/{segment}{version}"
    return {
        "thumbnail": thumbnail if has_thumbnail else None,
        "thumbnail_2x": f"{thumbnail}{'&' if version else '?'}px={LARGE_THUMBNAIL_PX}" if has_original else None,
        "original": f"original/{segment}" if has_original else None,
    }


def format_caption(value: object) -> str | None:
    """Format a caption as text; the field can contain any JSON value."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " / ".join(value)
    return (value if isinstance(value, str) else json.dumps(truncate_json(value), ensure_ascii=False))[:_MAX_TEXT_CHARS]


def _list_label_passages(labels: Mapping[str, float]) -> Iterator[list[tuple[str, bool]]]:
    """Yield a passage for the labels by which a hit was found."""
    if labels:
        parts = [[(label, True), (f" {weight:.2f}", False), (", ", False)] for label, weight in labels.items()]
        yield [("label: ", False), *(part for each in parts for part in each)][:-1]


def find_passages(text: object, words: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """Find the first passages of a text that have one of the words, each as parts that are such a word or not."""
    if not isinstance(text, str) or not words:
        return []
    pattern = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    passages, begin, end = list[list[tuple[str, bool]]](), 0, 0
    text = " ".join(text[:_MAX_READ_CHARS].split())
    for match in re.finditer(rf"(?<!{_LETTER})(?:{pattern})(?!{_LETTER})", text, re.IGNORECASE):
        is_near = bool(passages) and match.start() - end <= _PASSAGE_CHARS
        if is_near:
            passages[-1][-1] = (text[end : match.start()], False)
        if not is_near or match.end() - begin > _MAX_PASSAGE_CHARS:
            if len(passages) == _MAX_PASSAGES:
                break
            shown = min(match.start(), end + _PASSAGE_CHARS) if passages else 0
            begin = max(shown, match.start() - _LEAD_CHARS)
            lead = text[begin : match.start()]
            passages.append([(lead.partition(" ")[2] if begin else lead, False)])  # no half words
        end = match.end()
        passages[-1] += [(match[0], True), (text[end : end + _PASSAGE_CHARS], False)]
    return [[part for part in passage if part[0]] for passage in passages]


def list_text_lines(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the lines of the text in a picture, each with its box as shares of the picture, or None.

    The fields can contain any JSON value.
    """
    boxes = source.get("text_boxes")
    lines = [line for line in boxes if isinstance(line, Mapping)] if isinstance(boxes, list) else []
    if not lines and isinstance(source.get("text"), str):
        lines = [{"text": line} for line in source["text"][:_MAX_READ_CHARS].splitlines()]
    read, left_chars = list[dict[str, Any]](), _MAX_READ_CHARS
    for line in lines[:_MAX_LINES]:
        if text := (_get_text(line.get("text")) or "")[:left_chars]:
            read.append({"text": text, "box": _get_box(line.get("box"))})
            left_chars -= len(text)
    return read


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


def _get_text(value: object) -> str | None:
    return value[:_MAX_TEXT_CHARS] if isinstance(value, str) and value else None


def _get_name(source: Mapping[str, Any], uri: str, id_: str) -> str:
    return _get_text(source.get("name")) or split_image_uri(uri)[0] or uri or id_


def _get_inner(source: Mapping[str, Any], name: str) -> object:
    """Return the value of a field, which may be in an object: `offer.price`."""
    if name in source:
        return source[name]
    outer, _, inner = name.partition(".")
    value = source.get(outer)
    return _get_inner(value, inner) if inner and isinstance(value, Mapping) else None


def _get_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def _get_box(value: object) -> list[float] | None:
    """Return left, upper, right and lower edge, if they are in this order within a picture."""
    if not isinstance(value, list) or len(value) != 4 or None in map(_get_number, value):
        return None
    left, upper, right, lower = value
    return value if 0 <= left < right <= 1 and 0 <= upper < lower <= 1 else None


def _get_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
