"""The indices that `query_bytes.py` compares: the differences of each from the index that ingest writes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as attribute

import numpy as np
from harness.http import Body

from stair_es.cluster.documents.document import DocumentSettings, make_document_id

THUMBNAIL_BYTES = 8046
"""Mean size of the thumbnails of the bundled photos (`decode.py`)."""

Change = Callable[[Body], None]
"""Changes a document, or the body of an index, in place."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of the index."""

    name: str
    index: tuple[Change, ...] = ()
    document: tuple[Change, ...] = ()
    id: Callable[[str], str] = make_document_id
    settings: DocumentSettings = attribute(default_factory=DocumentSettings)


def drop_fields(*fields: str) -> Change:
    """Return a change that drops fields of a document."""

    def change(doc: Body) -> None:
        for field in fields:
            doc.pop(field, None)

    return change


def remap_field(name: str, **options: object) -> Change:
    """Return a change of the mapping of a field."""
    return lambda body: body["mappings"]["properties"][name].update(options)


def change_settings(**options: object) -> Change:
    """Return a change of the settings of the index."""
    return lambda body: body["settings"]["index"].update({name.replace("__", "."): value for name, value in options.items()})


def round_weight(weight: float) -> float:
    """Return the shortest decimal with the same 9 bits in the engine, so that scores don't change."""
    return next(short for digits in range(2, 8) if keep_engine_bits(short := round(weight, digits)) == keep_engine_bits(weight))


def keep_engine_bits(weight: float) -> int:
    """Return what an engine stores: float32 without its last 15 bits."""
    return int(np.float32(weight).view(np.uint32)) >> 15


def round_weights(doc: Body) -> None:
    """Round all weights: see `round_weight`."""
    doc["tokens"] = {word: round_weight(weight) for word, weight in doc["tokens"].items()}


def round_to_three_decimals(doc: Body) -> None:
    """Round all weights to three decimals: scores change by up to 2 % for the lightest tokens."""
    doc["tokens"] = {word: max(0.001, round(weight, 3)) for word, weight in doc["tokens"].items()}


def shorten_hash(name: str) -> Change:
    """Return a change of a hash from hex to URL-safe base64, a third shorter."""

    def change(doc: Body) -> None:
        doc[name] = base64.urlsafe_b64encode(bytes.fromhex(doc[name])).decode().rstrip("=")

    return change


def make_short_id(place: str) -> str:
    """Return 128 bits in 22 characters, which the engine stores as 16 bytes."""
    return base64.urlsafe_b64encode(hashlib.sha256(place.encode()).digest()[:16]).decode().rstrip("=")


def add_thumbnail(doc: Body) -> None:
    """Add random bytes of the size of a thumbnail, because WebP can't be compressed further either."""
    rng = np.random.default_rng(int(doc["sha256"][:8], 16))
    doc["thumbnail"] = "data:image/webp;base64," + base64.b64encode(rng.bytes(THUMBNAIL_BYTES)).decode()


def add_top_token(doc: Body) -> None:
    """Add a field to sort the index by."""
    doc["top_token"] = doc["top_tokens"][0]


def sort_by_top_token(body: Body) -> None:
    """Sort the index, so that similar documents are next to each other."""
    body["mappings"]["properties"]["top_token"] = {"type": "keyword"}
    body["settings"]["index"].update({"sort.field": ["top_token"], "sort.order": ["asc"]})


ZLIB = change_settings(codec="best_compression")
LEAN_FIELDS = (remap_field("sha256", index=False), remap_field("fingerprint", doc_values=False))


def build_variants() -> list[Variant]:
    """Return the unchanged index, each single change, and combinations."""
    return [
        Variant(name="as ingest writes it"),
        Variant(name="codec best_compression (zlib)", index=(ZLIB,)),
        Variant(name="weights rounded within their 9 bits", document=(round_weights,)),
        Variant(name="weights with 3 decimals", document=(round_to_three_decimals,)),
        Variant(
            name="tokens not in _source (nothing readable)",
            index=(lambda b: b["mappings"].update(_source={"excludes": ["tokens"]}),),
        ),
        Variant(
            name="tokens not indexed",
            index=(lambda b: b["mappings"]["properties"].update(tokens={"type": "object", "enabled": False}),),
        ),
        Variant(name="without tokens", document=(drop_fields("tokens"),)),
        Variant(name="without top_tokens", document=(drop_fields("top_tokens"),)),
        Variant(name="top_tokens not indexed (doc values only)", index=(remap_field("top_tokens", index=False),)),
        Variant(name="without uri", document=(drop_fields("uri"),)),
        Variant(name="without source", document=(drop_fields("source"),)),
        Variant(name="without version", document=(drop_fields("version"),)),
        Variant(name="without sha256", document=(drop_fields("sha256"),)),
        Variant(name="sha256 not indexed (doc values only)", index=(remap_field("sha256", index=False),)),
        Variant(name="sha256 as base64", document=(shorten_hash("sha256"),)),
        Variant(name="without fingerprint", document=(drop_fields("fingerprint"),)),
        Variant(name="fingerprint without doc values", index=(remap_field("fingerprint", doc_values=False),)),
        Variant(name="without width, height, format", document=(drop_fields("width", "height", "format"),)),
        Variant(name="without taken_at", document=(drop_fields("taken_at"),)),
        Variant(name="without model, ingested_at", document=(drop_fields("model", "ingested_at"),)),
        Variant(name="without name, folder", document=(drop_fields("name", "folder"),)),
        Variant(name="without bytes, modified_at", document=(drop_fields("bytes", "modified_at"),)),
        Variant(name="without perceptual_hash", document=(drop_fields("perceptual_hash"),)),
        Variant(name="_id of 22 characters", id=make_short_id),
        Variant(name="with a thumbnail of 10.7 KB", document=(add_thumbnail,)),
        Variant(name="zlib, with a thumbnail of 10.7 KB", index=(ZLIB,), document=(add_thumbnail,)),
        Variant(name="with impacts", settings=DocumentSettings(impacts=True)),
        Variant(name="sorted by the heaviest token", index=(sort_by_top_token,), document=(add_top_token,)),
        Variant(name="zlib, sorted by the heaviest token", index=(ZLIB, sort_by_top_token), document=(add_top_token,)),
        Variant(name="zlib + rounded", index=(ZLIB,), document=(round_weights,)),
        Variant(name="lean fields", index=LEAN_FIELDS),
        Variant(name="zlib + lean fields", index=(ZLIB, *LEAN_FIELDS)),
        Variant(name="zlib + rounded + lean fields", index=(ZLIB, *LEAN_FIELDS), document=(round_weights,)),
        Variant(name="rounded + lean fields (default codec)", index=LEAN_FIELDS, document=(round_weights,)),
        Variant(
            name="zlib + rounded + lean fields + _id of 22",
            index=(ZLIB, *LEAN_FIELDS),
            document=(round_weights,),
            id=make_short_id,
        ),
        Variant(
            name="the same, sorted by the heaviest token",
            index=(ZLIB, *LEAN_FIELDS, sort_by_top_token),
            document=(round_weights, add_top_token),
            id=make_short_id,
        ),
    ]
