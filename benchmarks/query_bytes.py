"""Measure the bytes of a document by field and setting, and possible savings.

    python benchmarks/query_bytes.py                 # the embedded node's version, 20,000 generated documents
    python benchmarks/query_bytes.py --url ... --json FILE
    python benchmarks/query_bytes.py --photos benchmarks/data/unseen   # with as many tokens as ordinary photographs have

Documents are built by the product (`documents.document`, `mappings/image.json`) from generated images (`query_corpus.py`),
without thumbnails and captions. Each row is a separate index, merged to one segment. Bytes are those of all files of the shard,
without the translog.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from uuid import uuid4

import numpy as np
from harness.http import Body, Http, read_store_bytes
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from search.corpus import BATCH, add_corpus_options, load_corpus
from search.indices import FRESH_STATS, IMAGE_SIZES, make_uri
from search.nodes import open_node
from search.variants import Variant, build_variants

from stair_es import resources
from stair_es.cluster.documents.document import ImageMetadata, build_document
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.colors import COLOR_NAMES, MAX_COLORS
from stair_es.sources.io.uris import split_image_uri
from stair_es.types import SparseVector

GOALS_KB = {"as ingest writes it": 1.05, "codec best_compression (zlib)": 0.85, "zlib + lean fields": 0.75}


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a variant."""

    name: str
    bytes_a_document: float
    by_file: dict[str, float]
    """Bytes a document by the kind of file (Lucene's extensions)."""


def make_metadata(row: int, rng: np.random.Generator) -> ImageMetadata:
    """Return the metadata that an object store would return."""
    width, height = IMAGE_SIZES[row % len(IMAGE_SIZES)]
    name, folder = split_image_uri(make_uri(row))
    taken = f"2026-{1 + row % 12:02}-{1 + row % 28:02}T{row % 24:02}:{row % 60:02}:07"
    return ImageMetadata(
        uri=make_uri(row),
        name=name,
        folder=folder,
        source="s3://photos-of-the-archive/2026",
        version=rng.bytes(16).hex(),
        modified_at=f"{taken}.000+00:00",
        bytes=int(rng.integers(200_000, 8_000_000)),
        sha256=rng.bytes(32).hex(),
        perceptual_hash=rng.bytes(8).hex(),
        width=width,
        height=height,
        format="jpeg",
        taken_at=taken,
        thumbnail=None,
        colors=tuple(map(str, rng.choice(COLOR_NAMES, int(rng.integers(1, MAX_COLORS + 1)), replace=False))),
    )


def build_documents(vectors: list[SparseVector], variant: Variant) -> Iterator[tuple[str, Body]]:
    """Yield `_id` and document."""
    rng = np.random.default_rng(3)
    for row, vector in enumerate(vectors):
        made = make_metadata(row, rng)
        doc = build_document(
            vector,
            made,
            fields={},
            model_id=KIND.card.model_id,
            fingerprint=rng.bytes(16).hex(),
            ingested_at=f"2026-11-24T{row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}.{row % 1000:03}Z",
            settings=variant.settings,
        )
        for change in variant.document:
            change(doc)
        yield variant.id(made.uri), doc


def measure_variant(http: Http, vectors: list[SparseVector], variant: Variant) -> Size:
    """Write and merge a variant, measure its size, and delete it."""
    index = f"bench-bytes-{uuid4().hex[:8]}"
    body = copy.deepcopy(resources.load_json_resource("mappings", "image"))
    if variant.settings.impacts:
        layer = resources.load_json_resource("mappings", "impacts")
        body["settings"]["index"].update(layer["settings"]["index"])
        body["mappings"]["properties"].update(layer["mappings"]["properties"])
    body["settings"]["index"].update({"refresh_interval": "-1", "merge.policy.floor_segment": "2mb", **FRESH_STATS})
    for change in variant.index:
        change(body)
    http.request_json("PUT", f"/{index}", body)
    lines: list[str] = []
    for id_, doc in build_documents(vectors, variant):
        lines += [f'{{"index":{{"_id":"{id_}"}}}}', json.dumps(doc, separators=(",", ":"))]
        if len(lines) >= 2 * BATCH:
            _send_bulk(http, index, lines)
    if lines:
        _send_bulk(http, index, lines)
    http.request_json("POST", f"/{index}/_refresh")
    http.request_json("POST", f"/{index}/_forcemerge?max_num_segments=1")
    http.request_json("POST", f"/{index}/_flush?force=true&wait_if_ongoing=true")
    answer = http.request_json("GET", f"/{index}/_stats/segments?include_segment_file_sizes=true")
    files = answer["indices"][index]["primaries"]["segments"].get("file_sizes", {})
    size = read_store_bytes(http, index) / len(vectors)
    http.request_json("DELETE", f"/{index}")
    by_file = {name: value["size_in_bytes"] / len(vectors) for name, value in files.items()}
    return Size(name=variant.name, bytes_a_document=size, by_file=dict(sorted(by_file.items(), key=lambda pair: -pair[1])))


def _send_bulk(http: Http, index: str, lines: list[str]) -> None:
    answer = http.request_bytes("POST", f"/{index}/_bulk?filter_path=errors", ("\n".join(lines) + "\n").encode())
    if b"true" in answer:
        raise SystemExit("a document was rejected")
    lines.clear()


def build_result(sizes: list[Size], about: str) -> Result:
    """Return all sizes with their difference to the first."""
    first = sizes[0].bytes_a_document
    rows = ((each.name, f"{each.bytes_a_document:.0f}", f"{each.bytes_a_document - first:+.0f}") for each in sizes)
    files = " ".join(f"{name} {value:.0f}" for name, value in sizes[0].by_file.items() if value >= 1)
    return Result(
        about=about,
        tables=(ReportTable(head=("index", "bytes per document", "difference"), rows=tuple(rows)),),
        ratios=tuple(
            Ratio(what=f"KB per document, {each.name}", against="", value=each.bytes_a_document / 1000, goal=goal, at_most=True)
            for each in sizes
            if (goal := GOALS_KB.get(each.name))
        ),
        remarks=(f"by file, {sizes[0].name}: {files}",),
        figures={"sizes": [asdict(each) for each in sizes]},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--url", help="your cluster (default: start a node)")
    parser.add_argument("--heap", default="1g", help="heap of the started node")
    parser.add_argument("--plugins", action="store_true", help="OpenSearch 3.6.0 with plugins, instead of the embedded version")
    parser.add_argument("--only", help="only variants whose name contains this")
    add_corpus_options(parser)
    args = parser.parse_args()
    chosen = [variant for variant in build_variants() if not args.only or args.only in variant.name]
    if not chosen:
        parser.error(f"no variant has a name with {args.only!r}")
    corpus, drawn = load_corpus(args.docs, args.cache, args.photos)
    vectors = list(corpus.make_vectors(drawn))
    sizes = []
    with open_node(args) as http:
        for variant in chosen:
            sizes.append(measure_variant(http, vectors, variant))
            print(f"{sizes[-1].bytes_a_document:6.0f}  {variant.name}", flush=True)
    publish_result(build_result(sizes, f"{args.docs:,} documents"), args.json)


if __name__ == "__main__":
    main()
