"""Measure the cost of a token index: bytes, time of the first fill, time of a comparison without changes, memory of this process.

    python benchmarks/token_index.py --images 20000

Generates images (33 tokens each, as many as a photograph has, by Zipf's law), and deletes everything that it created.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from harness.cluster import open_cluster
from harness.program import add_url_option, build_parser, publish_result
from harness.result import ReportTable, Result

from stair_es import SparseVector
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import (
    DocumentSettings,
    ImageMetadata,
    build_document,
    compute_document_fingerprint,
    make_document_id,
)
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.token_index.sync import TokenIndexReport, reconcile_token_index

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_TOKENS, _VOCABULARY, _BATCH = 33, 3500, 2000
_MODEL = "drawn-1"


def _build_documents(start: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rng, settings = np.random.default_rng(start), DocumentSettings()
    often = 1.0 / np.arange(1, _VOCABULARY + 1)
    often /= often.sum()
    for number in range(start, start + count):
        uri, sha256 = f"file:///data/photos/{number // 1000:05}/{number:09}.jpg", f"{number:064x}"
        tokens = rng.choice(_VOCABULARY, _TOKENS, replace=False, p=often)
        weights = np.exp(rng.normal(-2.0, 0.8, _TOKENS)).astype(np.float32)
        vector = SparseVector.from_pairs((f"word{tokens[i]}", float(weights[i])) for i in range(_TOKENS))
        metadata = ImageMetadata(
            uri=uri,
            name=uri.rpartition("/")[2],
            source="file:///data/photos",
            version="1-2",
            bytes=1,
            sha256=sha256,
            width=640,
            height=480,
            format="JPEG",
            taken_at="2026-01-01T00:00:00Z",
            thumbnail=None,
        )
        yield (
            make_document_id(uri),
            build_document(
                vector,
                metadata,
                fields={"caption": f"the photograph number {number} of a set"},
                model_id=_MODEL,
                fingerprint=compute_document_fingerprint(sha256, _MODEL, settings, {}),
                ingested_at="2026-01-01T00:00:00Z",
                settings=settings,
            ),
        )


def _read_bytes(client: OpenSearch, index: str) -> int:
    client.indices.forcemerge(index=index, params={"max_num_segments": 1, "request_timeout": 300})
    client.indices.flush(index=index)
    stats = client.indices.stats(index=index, metric="store")
    size: int = stats["_all"]["primaries"]["store"]["size_in_bytes"]
    return size


def _time_reconcile(cluster: Cluster, alias: str, index: str) -> tuple[float, TokenIndexReport]:
    start = time.perf_counter()
    report = reconcile_token_index(cluster, alias, index)
    if report is None or report.failed:
        raise SystemExit(f"reconcile failed: {report}")
    return time.perf_counter() - start, report


def _measure(cluster: Cluster, alias: str, images: int) -> dict[str, Any]:
    settings, cluster_info = DocumentSettings(), get_cluster_info(cluster)
    index_spec = IndexSpec(model_name=_MODEL, model_id=_MODEL, settings=dict(asdict(settings)))
    opened = open_index(cluster, alias, build_index_body(cluster_info, settings), index_spec)
    writer = BulkWriter(cluster=cluster, index=opened.name)
    for start in range(0, images, _BATCH):
        writer.write(list(_build_documents(start, min(_BATCH, images - start))))
    cluster.refresh(opened.name)
    fill, filled = _time_reconcile(cluster, alias, opened.name)
    nothing, _ = _time_reconcile(cluster, alias, opened.name)
    deleted = [id_ for id_, _ in _build_documents(0, images // 100)]
    writer.delete(deleted)
    cluster.refresh(opened.name)
    some, changed = _time_reconcile(cluster, alias, opened.name)
    size = _read_bytes(cluster.client, f"{opened.name}.tokens")
    return {
        "cluster": cluster_info.label,
        "images": images,
        "token_weights": filled.written,
        "fill_s": round(fill, 1),
        "images_per_s": round(images / fill),
        "nothing_to_do_s": round(nothing, 2),
        "one_percent_deleted_s": round(some, 2),
        "deleted": changed.deleted,
        "bytes_per_token_weight": round(size / (filled.written - changed.deleted), 1),
        "bytes_per_image": round(size / changed.images),
        "main_bytes_per_image": round(_read_bytes(cluster.client, opened.name) / changed.images),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Print a column for each number of images."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--images", default="20000", help="numbers of images, such as 10000,100000")
    args = parser.parse_args()
    with open_cluster(args.url) as (cluster, name):
        found = [_measure(cluster, f"{name}-{images}", images) for images in map(int, args.images.split(","))]
    rows = tuple((what.replace("_", " "), *(str(each[what]) for each in found)) for what in found[0])
    result = Result(
        about="a token index compared with its main index",
        tables=(ReportTable(head=("", *(f"{each['images']:,} images" for each in found)), rows=rows),),
        figures={"measured": found},
    )
    publish_result(result, args.json)


if __name__ == "__main__":
    main()
