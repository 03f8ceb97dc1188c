"""Measure a growing cluster of three nodes, load after load: bulk documents/s, bytes, heap, and search time.

    python benchmarks/growth.py --docs 3000000 --json growth.json    # about half an hour, plus as long to generate the documents
    python benchmarks/growth.py --docs 60000 --loads 3               # shows that the benchmark works
    python benchmarks/growth.py --replicas 1 --thumbnails            # as `stair-es ingest` does by default
    python benchmarks/growth.py --draw-only                          # only generate the documents, for a later run

Three OpenSearch processes of the embedded node's version form a cluster on this machine, with an index of three primary shards.
The documents are generated images (`query_corpus.py`) as ingest writes them. They are sent on the product's bulk path
(`BulkWriter` and `AdaptiveThrottle`). Each load has two halves. There are no searches during the first half. During the second
half, a process sends `--searches-per-s` queries per second, one after the other, alternating between the kinds. After each
load, once merging has ended, the same queries are sent to the idle cluster. Queries are those of `Searcher`: ten hits in a
total order, with documents. Segments are left as they are. At the end each shard is merged to one segment (unless `--no-merge`)
and searched once more.

Three nodes, client and queries share the cores of this machine, so a cluster of three machines is faster. This benchmark shows
how the figures change with the size. The record (`--json`) is written after each load, so results remain if the run ends early.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cluster_growth.corpus import Loads
from cluster_growth.index import GrowingIndex, Percentiles, Step
from cluster_growth.measure import build_requests
from harness.program import build_parser, publish_result, save_result
from harness.result import ReportTable, Result

NODES = 3


def measure(args: argparse.Namespace, loads: Loads) -> Iterator[Step]:
    """Start the nodes and load; yield each step when it has been measured."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.nodes.search_nodes import build_cluster

    bodies = build_requests(loads.corpus, args.queries)
    with (
        tempfile.TemporaryDirectory(prefix="stair-es-growth-", dir=args.work) as folder,
        build_cluster(Path(folder), size=NODES, heap=args.heap, full_jit=True) as nodes,
    ):
        growing = GrowingIndex([node.url for node in nodes.nodes], bodies, args)
        for number in range(loads.loads):
            yield growing.load(number, loads)
        if args.merge:
            yield growing.merge()


def build_result(steps: list[Step], about: str, ended: str = "") -> Result:
    """Return a row for each load."""
    kinds = list(steps[0].idle_ms) if steps else []
    growth = ReportTable(
        head=(
            "images",
            "docs/s",
            "docs/s, under search load",
            "bytes per document",
            "segments",
            "heap, MB",
            "GC, %",
            "merging afterwards, s",
        ),
        rows=tuple(_format_growth(step) for step in steps),
    )
    idle = ReportTable(
        heading="Searches on an idle cluster, p50 / p99, ms",
        head=("images", *kinds),
        rows=tuple((step.name, *_format_times(step.idle_ms, kinds)) for step in steps),
    )
    loading = ReportTable(
        heading="Searches during a load, p50 / p99, ms",
        head=("images", "searches", *kinds),
        rows=tuple((step.name, f"{step.searches:,}", *_format_times(step.searched_ms, kinds)) for step in steps if step.searches),
    )
    remarks = [
        "docs/s: of the bulk path, from the first request to the last response, including the creation of documents; "
        "nodes, client and queries share the cores",
        "bytes: of the primary shards, without translogs, with the segments as they are",
        "heap: minimum and maximum of the fullest node during the load",
    ]
    if ended:
        remarks.insert(0, f"**it ended early**: {ended}")
    return Result(about=about, tables=(growth, idle, loading), remarks=tuple(remarks), figures={"steps": [*map(asdict, steps)]})


def _format_growth(step: Step) -> tuple[str, ...]:
    rates = ("-" if rate is None else f"{rate:,.0f}" for rate in (step.docs_per_s, step.docs_per_s_searched))
    return (
        step.name,
        *rates,
        f"{step.stored.primary_bytes / step.stored.documents:,.0f}",
        f"{step.stored.segments}",
        f"{step.heap_min_mb:,.0f} to {step.heap_max_mb:,.0f}",
        f"{100 * step.collecting_share:.1f}",
        f"{step.settle_s:.0f}",
    )


def _format_times(found: Percentiles, kinds: list[str]) -> Iterator[str]:
    return (f"{found[kind][0]:.1f} / {found[kind][1]:.1f}" if kind in found else "-" for kind in kinds)


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, default=3_000_000, help="(default: %(default)s)")
    parser.add_argument("--loads", type=int, default=6, help="number of loads (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=NODES, help="primary shards (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=0, help="of each shard (default: %(default)s)")
    parser.add_argument("--thumbnails", action="store_true", help="add thumbnails of the bundled photos to the documents")
    parser.add_argument("--queries", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is sent to the idle cluster (default: %(default)s)")
    parser.add_argument(
        "--searches-per-s", type=float, default=40, help="queries per second during a load (default: %(default)s)"
    )
    parser.add_argument("--heap", default="2g", help="of each node (default: %(default)s)")
    parser.add_argument("--no-merge", dest="merge", action="store_false", help="don't merge the segments at the end")
    parser.add_argument("--draw-only", action="store_true", help="only generate the documents that aren't in the cache")
    parser.add_argument("--work", type=Path, help="folder for the data of the nodes (default: the folder for temporary files)")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora", help="cache of the generated documents"
    )
    args = parser.parse_args()
    loads = Loads(args.cache, args.docs // args.loads, args.loads)
    loads.draw()
    if args.draw_only:
        return
    about = (
        f"{loads.size * loads.loads:,} documents {'with' if args.thumbnails else 'without'} thumbnails in {loads.loads} loads; "
        f"{NODES} nodes with a heap of {args.heap} each, {args.shards} primary shards, {args.replicas} replicas; "
        f"{args.queries} queries of each kind, {args.rounds} rounds; {args.searches_per_s:g} queries per second during a load"
    )
    steps: list[Step] = []
    ended = "nothing was measured"
    try:
        for step in measure(args, loads):
            steps.append(step)
            print(" | ".join((*_format_growth(step), *_format_times(step.idle_ms, list(step.idle_ms)))), flush=True)
            save_result(build_result(steps, about, f"after {step.name}"), args.json)
        ended = ""
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise
    finally:
        publish_result(build_result(steps, about, ended), args.json)


if __name__ == "__main__":
    main()
