"""What the bytes of a document are spent on, and where they can be saved.

    python benchmarks/query_bytes.py                 # the embedded node's version, 20,000 drawn documents
    python benchmarks/query_bytes.py --url ... --json FILE

Documents are the product's own (`documents.document`, `mappings/image.json`), of drawn images (`query_corpus.py`), without
thumbnails and captions. Each row is an index of its own, merged to one segment: all files of the shard, without the translog.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from dataclasses import field as attribute
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from common import machine
from query import node
from query_corpus import BATCH, load
from query_load import Http, store_bytes, uri

from stair_es import resources
from stair_es.cluster.documents import DocumentSettings, ImageFacts, document, document_id
from stair_es.types import SparseVector

Body = dict[str, Any]
Change = Callable[[Body], None]
"""Changes a document, or the body of an index, in place."""

SIZES = ((4032, 3024), (1920, 1080), (1024, 683), (640, 480))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One index."""

    name: str
    index: tuple[Change, ...] = ()
    document: tuple[Change, ...] = ()
    id: Callable[[str], str] = document_id
    settings: DocumentSettings = attribute(default_factory=DocumentSettings)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a variant takes."""

    name: str
    bytes_a_document: float
    by_file: dict[str, float]
    """Bytes a document by the kind of file (Lucene's extensions)."""


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


def facts(row: int, rng: np.random.Generator) -> ImageFacts:
    """As an object store tells them."""
    width, height = SIZES[row % len(SIZES)]
    return ImageFacts(
        uri=uri(row),
        source="s3://photos-of-the-archive/2026",
        version=rng.bytes(16).hex(),
        sha256=rng.bytes(32).hex(),
        width=width,
        height=height,
        format="jpeg",
        taken_at=f"2026-{1 + row % 12:02}-{1 + row % 28:02}T{row % 24:02}:{row % 60:02}:07",
        thumbnail=None,
    )


def documents(vectors: list[SparseVector], variant: Variant) -> Iterator[tuple[str, Body]]:
    """`_id` and document."""
    rng = np.random.default_rng(3)
    for row, vector in enumerate(vectors):
        made = facts(row, rng)
        doc = document(
            vector,
            made,
            fields={},
            model_id="starter-1",
            fingerprint=rng.bytes(16).hex(),
            ingested_at=f"2026-11-24T{row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}.{row % 1000:03}Z",
            settings=variant.settings,
        )
        for change in variant.document:
            change(doc)
        yield variant.id(made.uri), doc


def measure(http: Http, vectors: list[SparseVector], variant: Variant) -> Size:
    """Write, merge, weigh, delete."""
    index = f"bench-bytes-{uuid4().hex[:8]}"
    body = copy.deepcopy(resources.load("mappings", "image"))
    if variant.settings.impacts:
        layer = resources.load("mappings", "impacts")
        body["settings"]["index"].update(layer["settings"]["index"])
        body["mappings"]["properties"].update(layer["mappings"]["properties"])
    body["settings"]["index"].update({"refresh_interval": "-1", "merge.policy.floor_segment": "2mb"})
    for change in variant.index:
        change(body)
    http.ask("PUT", f"/{index}", body)
    lines: list[str] = []
    for id_, doc in documents(vectors, variant):
        lines += [f'{{"index":{{"_id":"{id_}"}}}}', json.dumps(doc, separators=(",", ":"))]
        if len(lines) >= 2 * BATCH:
            _send(http, index, lines)
    if lines:
        _send(http, index, lines)
    http.ask("POST", f"/{index}/_refresh")
    http.ask("POST", f"/{index}/_forcemerge?max_num_segments=1")
    http.ask("POST", f"/{index}/_flush?force=true&wait_if_ongoing=true")
    answer = http.ask("GET", f"/{index}/_stats/segments?include_segment_file_sizes=true")
    files = answer["indices"][index]["primaries"]["segments"].get("file_sizes", {})
    size = store_bytes(http, index) / len(vectors)
    http.ask("DELETE", f"/{index}")
    by_file = {name: value["size_in_bytes"] / len(vectors) for name, value in files.items()}
    return Size(name=variant.name, bytes_a_document=size, by_file=dict(sorted(by_file.items(), key=lambda pair: -pair[1])))


def _send(http: Http, index: str, lines: list[str]) -> None:
    answer = http.raw("POST", f"/{index}/_bulk?filter_path=errors", ("\n".join(lines) + "\n").encode())
    if b"true" in answer:
        raise SystemExit("a document was refused")
    lines.clear()


def show(sizes: list[Size]) -> str:
    """As Markdown; the first is what the others are compared with."""
    rows = ["| index | bytes a document | difference |", "|---|---|---|"]
    rows += [f"| {s.name} | {s.bytes_a_document:.0f} | {s.bytes_a_document - sizes[0].bytes_a_document:+.0f} |" for s in sizes]
    files = " ".join(f"{name} {value:.0f}" for name, value in sizes[0].by_file.items() if value >= 1)
    return "\n".join([*rows, "", f"By file, {sizes[0].name}: {files}"])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--url", help="a cluster of yours; else a node is started")
    parser.add_argument("--heap", default="1g", help="of the node that is started")
    parser.add_argument("--knn", action="store_true", help="OpenSearch 3.5.0 instead of the embedded version")
    parser.add_argument("--only", help="variants whose name has this")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora", help="where drawn corpora stay"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    corpus, drawn = load(given.docs, given.cache)
    vectors = list(corpus.vectors(drawn))
    sizes = []
    with node(given) as http:
        for variant in variants():
            if given.only and given.only not in variant.name:
                continue
            sizes.append(measure(http, vectors, variant))
            print(f"{sizes[-1].bytes_a_document:6.0f}  {variant.name}", flush=True)
    print(f"\n{machine()}; {given.docs:,} documents\n\n{show(sizes)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(size) for size in sizes], indent=1))


if __name__ == "__main__":
    main()
