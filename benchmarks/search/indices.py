"""Load a corpus into an index for each search method, with raw `_bulk` requests prepared in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson
from harness.http import Body, Http, read_heaps, read_store_bytes

from search.corpus import BATCH, Corpus, Documents
from stair_es import resources
from stair_es.cluster.documents.document import encode_impacts
from stair_es.cluster.index.mappings import merge_bodies
from stair_es.feature_names import escape_feature
from stair_es.types import Floats, SparseVector

DIMENSIONS = 384

FRESH_STATS: Body = {"store.stats_refresh_interval": "0ms"}
"""Setting below `index`. Without it `_stats/store` gives sizes of up to ten seconds ago."""

_SETTINGS: Body = {
    "index": {
        "number_of_shards": 1,
        "number_of_replicas": 0,
        "refresh_interval": "30s",
        **FRESH_STATS,
    }
}
_URI: Body = {"uri": {"type": "keyword"}}
_HNSW: Body = {
    "name": "hnsw",
    "engine": "lucene",  # faiss crashes the node
    "space_type": "innerproduct",
    "parameters": {"m": 16, "ef_construction": 100},
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An index for one search method."""

    name: str
    body: Body
    fields: Callable[[SparseVector, Floats | None], Body]
    """Builds the fields of a document other than its URI."""
    dense: bool = False


def build_kinds(dimensions: int = DIMENSIONS) -> dict[str, Kind]:
    """Return all kinds by name, the dense one for vectors of this length."""
    plain = {"settings": _SETTINGS, "mappings": {"dynamic": "strict", "properties": _URI}}
    words = {"type": "text", "analyzer": "whitespace"}
    dense_field = {"type": "knn_vector", "dimension": dimensions, "method": _HNSW}
    made = (
        Kind(
            name="tokens",
            body=merge_bodies(plain, {"mappings": {"properties": {"tokens": {"type": "rank_features"}}}}),
            fields=lambda vector, _dense: {"tokens": {escape_feature(word): weight for word, weight in vector}},
        ),
        Kind(
            name="impacts",
            body=merge_bodies(plain, resources.load_json_resource("mappings", "impacts")),
            fields=lambda vector, _dense: {"impacts": encode_impacts(vector)},
        ),
        Kind(
            name="bm25",
            body=merge_bodies(plain, {"mappings": {"properties": {"words": words}}}),
            fields=lambda vector, _dense: {"words": " ".join(vector.tokens)},
        ),
        Kind(
            name="dense",
            body=merge_bodies(plain, {"settings": {"index": {"knn": True}}, "mappings": {"properties": {"dense": dense_field}}}),
            fields=lambda _vector, dense: {"dense": dense},
            dense=True,
        ),
    )
    return {kind.name: kind for kind in made}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A loaded index, and the cost of loading it."""

    index: str
    docs_per_s: float
    """Documents per second of the requests, excluding the time to build them."""
    merge_s: float
    sent_bytes_a_document: float
    """Bytes of the `_bulk` requests."""
    bytes_a_document: float
    """All files of the shard after the merge."""
    heap_mb: float
    """Used heap of the fullest node afterwards, including garbage, for all indices so far."""


def make_uri(row: int) -> str:
    """Return a URI of realistic length."""
    return f"s3://photos-of-the-archive/2026/{row % 997:03}/IMG_{row:08}.jpg"


def load_index(http: Http, index: str, kind: Kind, corpus: Corpus, documents: Documents, *, merge: bool = True) -> Loaded:
    """Create the index and write the documents; `_id` is the row."""
    return write_index(http, index, kind, _build_bulk_bodies(kind, corpus, documents), len(documents), merge=merge)


def write_index(http: Http, index: str, kind: Kind, bodies: Iterable[bytes], count: int, *, merge: bool = True) -> Loaded:
    """Create the index and send prepared `_bulk` bodies, `count` documents in total."""
    http.request_json("PUT", f"/{index}", kind.body)
    spent_s, sent = 0.0, 0
    for body in bodies:
        sent += len(body)
        began_s = time.perf_counter()
        answer = http.request_bytes("POST", f"/{index}/_bulk?filter_path=errors", body)
        spent_s += time.perf_counter() - began_s
        if b"true" in answer:
            raise SystemExit(f"a document was rejected: {http.request_bytes('POST', f'/{index}/_bulk', body)[:500]!r}")
    began_s = time.perf_counter()
    http.request_json("POST", f"/{index}/_refresh")
    spent_s += time.perf_counter() - began_s
    began_s = time.perf_counter()
    if merge:
        http.request_json("POST", f"/{index}/_forcemerge?max_num_segments=1")
    http.request_json("POST", f"/{index}/_flush?force=true&wait_if_ongoing=true")
    http.request_json("POST", f"/{index}/_refresh")
    merge_s = time.perf_counter() - began_s
    return Loaded(
        index=index,
        docs_per_s=count / spent_s,
        merge_s=merge_s,
        sent_bytes_a_document=sent / count,
        bytes_a_document=read_store_bytes(http, index) / count,
        heap_mb=max(each.used_mb for each in read_heaps(http)),
    )


def delete_index(http: Http, index: str) -> None:
    """Delete an index, if it exists."""
    http.request_bytes("DELETE", f"/{index}?ignore_unavailable=true")


def _build_bulk_bodies(kind: Kind, corpus: Corpus, documents: Documents) -> Iterator[bytes]:
    for first in range(0, len(documents), BATCH):
        part = documents.slice_rows(first, first + BATCH)
        dense_ND = corpus.make_dense_vectors(part, first) if kind.dense else None
        lines = []
        for row, vector in enumerate(corpus.make_vectors(part)):
            fields = kind.fields(vector, None if dense_ND is None else dense_ND[row])
            lines.append(b'{"index":{"_id":"%d"}}' % (first + row))
            lines.append(orjson.dumps({**fields, "uri": make_uri(first + row)}, option=orjson.OPT_SERIALIZE_NUMPY))
        yield b"\n".join(lines) + b"\n"


IMAGE_SIZES = ((4032, 3024), (1920, 1080), (1024, 683), (640, 480))
