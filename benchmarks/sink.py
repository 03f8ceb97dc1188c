"""Compare documents/s of the bulk path with raw serialized `_bulk` requests of the same documents.

    python benchmarks/sink.py
    python benchmarks/sink.py --docs 20000 --rounds 7 --threads 4

One request after the other: **raw** posts prepared bodies over one keep-alive connection and ignores the responses. **stair-es**
serializes, sends, reads the response and records the outcome of each document. **helpers.bulk** is the client's own helper.
**ray-elasticsearch** is the `write` of its Ray sink on a prepared data frame, called here without Ray, so Ray's transport of the
data is not counted. Its client (elasticsearch-py 8) refuses to connect to OpenSearch, so the benchmark changes two headers.

Concurrent requests: **stair-es, throttled** sends at most `--threads` requests at once, with the number and size that
`AdaptiveThrottle` allows. **parallel_bulk** has as many threads, and doesn't retry rejected documents. Rounds alternate, and each
begins with another method. The table shows medians, also of the ratio to raw in the same round. Node and client share the cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from harness.bulk import check_written, write_throttled
from harness.cluster import open_cluster
from harness.photos import list_photos
from harness.program import add_model_option, add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from opensearchpy import helpers

from stair_es import resources
from stair_es.cluster.bulk.actions import build_index_action, chunk_actions
from stair_es.cluster.bulk.throttle import AdaptiveThrottle, BulkPolicy
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Documents = list[tuple[str, dict[str, Any]]]
Arm = Callable[[str], object]
"""Writes all documents into the index with this name."""

CHUNK_DOCS = 500
RAW, ONE, MANY = "raw _bulk", "stair-es", "stair-es, throttled"
PEER = "ray-elasticsearch"
PEER_INSTALL = "pip install --no-deps ray-elasticsearch 'elasticsearch8<9' 'elastic-transport<9'"


def build_documents(count: int, model: str) -> Documents:
    """Return the documents of the bundled photos, each many times with different URIs."""
    encoder = registry.load_encoder(ModelSpec(name=model))
    made = []
    for path in list_photos():
        decoded = decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits(), THUMBNAIL_PX)
        [vector] = encoder.encode_images(np.stack([decoded.pixels_HWC]))
        made.append((vector, decoded))
    documents: Documents = []
    for i in range(count):
        vector, decoded = made[i % len(made)]
        uri = f"file:///bench/{i}.jpg"
        metadata = ImageMetadata(
            uri=uri,
            name=f"{i}.jpg",
            folder="/bench",
            source="file:///bench",
            version=None,
            modified_at="2026-01-01T00:00:00.000+00:00",
            bytes=i,
            sha256=f"{i:064x}",
            perceptual_hash=decoded.perceptual_hash,
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            taken_at=None,
            thumbnail=decoded.thumbnail,
        )
        source = build_document(
            vector,
            metadata,
            fields={},
            model_id="bench",
            fingerprint="0",
            ingested_at="2026-01-01T00:00:00Z",
            settings=DocumentSettings(),
        )
        documents.append((make_document_id(uri), source))
    return documents


def post_bodies(url: str, index: str, bodies: list[bytes]) -> None:
    """Post prepared bodies."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    for body in bodies:
        connection.request("POST", f"/{index}/_bulk?filter_path=errors", body, {"content-type": "application/x-ndjson"})
        answer = connection.getresponse().read()
        if b"true" in answer:
            raise SystemExit(f"raw bulk failed: {answer[:200]!r}")
    connection.close()


def build_actions(index: str, docs: Documents) -> Iterator[dict[str, Any]]:
    """Yield the documents as the client's helpers need them."""
    return ({"_index": index, "_id": id_, "_source": doc} for id_, doc in docs)


def run_parallel_bulk(client: OpenSearch, index: str, docs: Documents, threads: int) -> None:
    """Write with the client's own threaded helper."""
    for ok, item in helpers.parallel_bulk(client, build_actions(index, docs), thread_count=threads, chunk_size=CHUNK_DOCS):
        if not ok:
            raise SystemExit(f"parallel_bulk failed: {item}")


def build_peer(url: str, docs: Documents) -> Arm | None:
    """Return the arm of ray-elasticsearch; `None` if it isn't installed."""
    try:
        sinks, transport, pandas = map(import_module, ("ray_elasticsearch", "elastic_transport", "pandas"))
    except ImportError:
        return None
    base: Any = transport.Urllib3HttpNode

    def perform_request(self: object, *args: object, headers: Mapping[str, str] | None = None, **more: object) -> object:
        """Adapt the headers: the client expects a product header, and the node a plain content type."""
        plain = {**(headers or {}), "content-type": "application/x-ndjson", "accept": "application/json"}
        answer = base.perform_request(self, *args, headers=plain, **more)
        headers_back = transport.HttpHeaders({**answer.meta.headers, "x-elastic-product": "Elasticsearch"})
        return answer._replace(meta=replace(answer.meta, headers=headers_back))

    node_class = type("PatchedNode", (base,), {"perform_request": perform_request})
    frame = pandas.DataFrame([{"_id": id_, **doc} for id_, doc in docs])

    def write(index: str) -> None:
        sink = sinks.ElasticsearchDatasink(
            index=index, chunk_size=CHUNK_DOCS, hosts=url, node_class=node_class, request_timeout=120
        )
        sink.write([frame], None)

    return write


def measure_arms(client: OpenSearch, name: str, arms: Mapping[str, Arm], count: int, rounds: int) -> dict[str, list[float]]:
    """Return documents/s of each arm in each round, alternating."""
    rates: dict[str, list[float]] = {label: [] for label in arms}
    for turn in range(-1, rounds):  # the first round is a warm-up and isn't counted
        order = list(arms.items())
        for label, arm in (
            order[(turn + 1) % len(order) :] + order[: (turn + 1) % len(order)]
        ):  # other load on the machine affects each of them in turn
            index = f"{name}-{turn + 1}"
            client.indices.create(
                index=index, body={**resources.load_json_resource("mappings", "image"), "aliases": {make_write_alias(index): {}}}
            )
            start = time.perf_counter()
            arm(index)
            seconds = time.perf_counter() - start
            client.indices.refresh(index=index)
            if client.count(index=index)["count"] != count:
                raise SystemExit(f"{label}: documents are missing")
            client.indices.delete(index=index)
            if turn >= 0:
                rates[label].append(count / seconds)
    return rates


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    add_url_option(parser)
    parser.add_argument("--docs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=4)
    args = parser.parse_args()

    docs = build_documents(args.docs, args.model)
    one, many = BulkPolicy(max_chunk_docs=CHUNK_DOCS), BulkPolicy(max_concurrency=args.threads)
    cut = list(chunk_actions((build_index_action(*doc) for doc in docs), one.max_chunk_bytes, one.max_chunk_docs))
    bodies = [b"".join(lines for _, lines in chunk) for chunk in cut]
    size = sum(map(len, bodies)) / len(docs)
    reached: list[tuple[int, int]] = []
    with open_cluster(args.url) as (cluster, name), ThreadPoolExecutor(args.threads) as pool:

        def writer(index: str, policy: BulkPolicy) -> BulkWriter:
            return BulkWriter(cluster=cluster, index=index, policy=policy)

        def write_with_throttle(index: str) -> None:
            throttle = AdaptiveThrottle(many)
            write_throttled(writer(index, many), docs, pool, throttle, size)
            reached.append((throttle.chunk_bytes, throttle.concurrency))

        arms: dict[str, Arm] = {
            RAW: lambda index: post_bodies(cluster.connection.url, index, bodies),
            ONE: lambda index: check_written(writer(index, one).write(docs)),
            "helpers.bulk": lambda index: helpers.bulk(cluster.client, build_actions(index, docs), chunk_size=CHUNK_DOCS),
            MANY: write_with_throttle,
            "parallel_bulk": lambda index: run_parallel_bulk(cluster.client, index, docs, args.threads),
        }
        theirs = build_peer(cluster.connection.url, docs)
        if theirs is not None:
            arms[PEER] = theirs
        rates = measure_arms(cluster.client, name, arms, len(docs), args.rounds)
    publish_result(build_result(args, size, rates, reached[-1]), args.json)


def build_result(args: argparse.Namespace, size: float, rates: Mapping[str, list[float]], reached: tuple[int, int]) -> Result:
    """Return a row for each arm."""

    def compute_ratio(ours: str, theirs: str) -> float:
        return statistics.median(one / other for one, other in zip(rates[ours], rates[theirs], strict=True))

    rows = [
        (
            label,
            f"{statistics.median(values):,.0f}",
            f"{compute_ratio(label, RAW):.2f}",
            f"{min(values):,.0f}..{max(values):,.0f}",
        )
        for label, values in rates.items()
    ]
    races = [(ONE, RAW, 0.95), (ONE, "helpers.bulk", 1), (ONE, PEER, 1.2), (MANY, "parallel_bulk", 1)]
    ratios = [
        Ratio(what=f"documents/s, {ours}", against=theirs, value=compute_ratio(ours, theirs), goal=goal)
        for ours, theirs, goal in races
        if theirs in rates
    ]
    remarks = [
        f"throttle at the end: {reached[0] / 2**20:.1f} MiB per request, {reached[1]} of {args.threads} concurrent requests"
    ]
    if PEER not in rates:
        remarks.append(f"{PEER} didn't run: it isn't installed (`{PEER_INSTALL}`)")
    return Result(
        about=f"{args.docs} documents of {size:.0f} bytes, median of {args.rounds} rounds",
        tables=(ReportTable(head=("method", "docs/s", "ratio to raw", "min..max"), rows=tuple(rows)),),
        ratios=tuple(ratios),
        remarks=tuple(remarks),
        figures={"docs": args.docs, "rounds": rates, "throttle": reached},
    )


if __name__ == "__main__":
    main()
