"""Vectors of strange words and weights, for every engine and query type: the documents, the queries, and an index of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document
from stair_es.cluster.index.mappings import build_index_body
from stair_es.search.dsl.select import IndexFields
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opensearchpy import OpenSearch

STRANGE = ("a.b", ".", "##ing", "100%", "%", "%2E", "", "café", "犬", "a b", "x\x00y", 'say "x"', "\u2028", "🐕", "w|x", "[PAD]")


def is_surrogate(character: str) -> bool:
    """Return whether it is half of a surrogate pair."""
    return "\ud800" <= character <= "\udfff"


def draw_words(count: int) -> list[str]:
    """Return words of random characters of the whole of Unicode; no capitals, which `impacts` doesn't tell apart."""
    rng = np.random.default_rng(49)
    points = np.exp(rng.uniform(0, np.log(0x110000), (count, 8))).astype(int)
    lengths = rng.integers(1, 9, count)
    words = ("".join(map(chr, row[:length])) for row, length in zip(points, lengths, strict=True))
    return sorted({word for word in words if word == word.lower() and not any(map(is_surrogate, word))} - {*STRANGE})


WORDS = [*(f"word{i}" for i in range(500)), *STRANGE, *draw_words(300)]


def draw_vector(rng: np.random.Generator, size: int) -> SparseVector:
    """Return a vector of log-normal weights."""
    chosen = rng.choice(len(WORDS), size, replace=False)
    weights = np.exp(rng.normal(-1.5, 1.2, size))
    return SparseVector.from_pairs((WORDS[i], float(w)) for i, w in zip(chosen, weights, strict=True))


def draw_images() -> dict[str, SparseVector]:
    """Return 200 documents of 50 words each."""
    rng = np.random.default_rng(50)
    return {f"{number:03}": draw_vector(rng, 50) for number in range(200)}


def draw_queries() -> list[SparseVector]:
    """Return queries of 1 to 79 words and of 128, of each strange word alone, and of the heaviest and lightest weights."""
    rng = np.random.default_rng(51)
    rare = [SparseVector.from_mapping({word: 0.7}) for word in STRANGE]
    extreme = [SparseVector.from_mapping({"word1": 2.0**100, "word2": 2.0**99}), SparseVector.from_mapping({"word1": 2.0**-99})]
    return [*(draw_vector(rng, int(size)) for size in (*rng.integers(1, 80, 30), 128)), *rare, *extreme]


def create_index(
    client: OpenSearch, index: str, settings: DocumentSettings, url: str, images: Mapping[str, SparseVector]
) -> IndexFields:
    """Make an index as ingest does; return what can be asked in it."""
    client.indices.create(index=index, body=build_index_body(get_cluster_info(Cluster(Connection(url=url), client)), settings))
    lines: list[dict[str, Any]] = []
    for name, vector in images.items():
        metadata = ImageMetadata(
            uri=name,
            name=name,
            source="",
            version=None,
            bytes=1,
            sha256="",
            width=1,
            height=1,
            format="PNG",
            taken_at=None,
            thumbnail=None,
        )
        timestamp = "2026-01-01T00:00:00Z"
        body = build_document(
            vector, metadata, fields={}, model_id="m", fingerprint="f", ingested_at=timestamp, settings=settings
        )
        lines += [{"index": {"_id": name}}, body]
    response = client.bulk(body=lines, index=index, params={"refresh": "true"})
    assert not response["errors"], response
    return IndexFields.from_mapping(client.indices.get_mapping(index=index)[index]["mappings"]["properties"])
