"""The indices that `query_bytes.py` compares: how each differs from what ingest writes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any

import numpy as np

from stair_es.cluster.documents.document import DocumentSettings, make_document_id

Body = dict[str, Any]
Change = Callable[[Body], None]
"""Changes a document, or the body of an index, in place."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One index."""

    name: str
    index: tuple[Change, ...] = ()
    document: tuple[Change, ...] = ()
    id: Callable[[str], str] = make_document_id
    settings: DocumentSettings = attribute(default_factory=DocumentSettings)


def without(*fields: str) -> Change:
    """A document without these."""

    def change(doc: Body) -> None:
        for field in fields:
            doc.pop(field, None)

    return change


def field(name: str, **options: object) -> Change:
    """A field mapped otherwise."""
    return lambda body: body["mappings"]["properties"][name].update(options)


def setting(**options: object) -> Change:
    """Settings of the index."""
    return lambda body: body["settings"]["index"].update({name.replace("__", "."): value for name, value in options.items()})


def rounded(weight: float) -> float:
    """The shortest decimal of which the engine keeps the same 9 bits: scores don't change."""
    return next(short for digits in range(2, 8) if kept(short := round(weight, digits)) == kept(weight))


def kept(weight: float) -> int:
    """What an engine stores: float32 without its last 15 bits."""
    return int(np.float32(weight).view(np.uint32)) >> 15


def round_weights(doc: Body) -> None:
    """See `rounded`."""
    doc["tokens"] = {word: rounded(weight) for word, weight in doc["tokens"].items()}


def three_decimals(doc: Body) -> None:
    """Coarser: scores change by up to 2 % for the lightest words."""
    doc["tokens"] = {word: max(0.001, round(weight, 3)) for word, weight in doc["tokens"].items()}


def short_hash(name: str) -> Change:
    """Hex as base64 for URLs: a third less."""

    def change(doc: Body) -> None:
        doc[name] = base64.urlsafe_b64encode(bytes.fromhex(doc[name])).decode().rstrip("=")

    return change


def short_id(place: str) -> str:
    """128 bits in 22 characters, which the engine stores as 16 bytes."""
    return base64.urlsafe_b64encode(hashlib.sha256(place.encode()).digest()[:16]).decode().rstrip("=")


def thumbnail(doc: Body) -> None:
    """As long as those of the bundled photos; WebP is as good as random."""
    rng = np.random.default_rng(int(doc["sha256"][:8], 16))
    doc["thumbnail"] = "data:image/webp;base64," + base64.b64encode(rng.bytes(2450)).decode()


def top_word(doc: Body) -> None:
    """A field to sort the index by."""
    doc["top_word"] = doc["top_tokens"][0]


def sorted_by_top_word(body: Body) -> None:
    """Documents about the same thing lie beside each other."""
    body["mappings"]["properties"]["top_word"] = {"type": "keyword"}
    body["settings"]["index"].update({"sort.field": ["top_word"], "sort.order": ["asc"]})


ZLIB = setting(codec="best_compression")
LEAN_FIELDS = (field("sha256", index=False), field("fingerprint", doc_values=False))


def variants() -> list[Variant]:
    """As it is, each thing alone, and what comes of them together."""
    return [
        Variant(name="as ingest writes it"),
        Variant(name="codec best_compression (zlib)", index=(ZLIB,)),
        Variant(name="weights rounded within their 9 bits", document=(round_weights,)),
        Variant(name="weights of 3 decimals", document=(three_decimals,)),
        Variant(
            name="tokens not in _source (nothing readable)",
            index=(lambda b: b["mappings"].update(_source={"excludes": ["tokens"]}),),
        ),
        Variant(
            name="tokens not indexed",
            index=(lambda b: b["mappings"]["properties"].update(tokens={"type": "object", "enabled": False}),),
        ),
        Variant(name="without tokens", document=(without("tokens"),)),
        Variant(name="without top_tokens", document=(without("top_tokens"),)),
        Variant(name="top_tokens not indexed (doc values only)", index=(field("top_tokens", index=False),)),
        Variant(name="without uri", document=(without("uri"),)),
        Variant(name="without source", document=(without("source"),)),
        Variant(name="without version", document=(without("version"),)),
        Variant(name="without sha256", document=(without("sha256"),)),
        Variant(name="sha256 not indexed (doc values only)", index=(field("sha256", index=False),)),
        Variant(name="sha256 as base64", document=(short_hash("sha256"),)),
        Variant(name="without fingerprint", document=(without("fingerprint"),)),
        Variant(name="fingerprint without doc values", index=(field("fingerprint", doc_values=False),)),
        Variant(name="without width, height, format", document=(without("width", "height", "format"),)),
        Variant(name="without taken_at", document=(without("taken_at"),)),
        Variant(name="without model, ingested_at", document=(without("model", "ingested_at"),)),
        Variant(name="_id of 22 characters", id=short_id),
        Variant(name="with a thumbnail of 3.3 KB", document=(thumbnail,)),
        Variant(name="zlib, with a thumbnail of 3.3 KB", index=(ZLIB,), document=(thumbnail,)),
        Variant(name="with impacts", settings=DocumentSettings(impacts=True)),
        Variant(name="sorted by the heaviest word", index=(sorted_by_top_word,), document=(top_word,)),
        Variant(name="zlib, sorted by the heaviest word", index=(ZLIB, sorted_by_top_word), document=(top_word,)),
        Variant(name="zlib + rounded", index=(ZLIB,), document=(round_weights,)),
        Variant(name="lean fields", index=LEAN_FIELDS),
        Variant(name="zlib + lean fields", index=(ZLIB, *LEAN_FIELDS)),
        Variant(name="zlib + rounded + lean fields", index=(ZLIB, *LEAN_FIELDS), document=(round_weights,)),
        Variant(name="rounded + lean fields (default codec)", index=LEAN_FIELDS, document=(round_weights,)),
        Variant(
            name="zlib + rounded + lean fields + _id of 22", index=(ZLIB, *LEAN_FIELDS), document=(round_weights,), id=short_id
        ),
        Variant(
            name="the same, sorted by the heaviest word",
            index=(ZLIB, *LEAN_FIELDS, sorted_by_top_word),
            document=(round_weights, top_word),
            id=short_id,
        ),
    ]
