"""A cluster of three nodes that grows: bulk documents/s, bytes, heap, and the time of a search, load after load.

    python benchmarks/growth.py --docs 3000000 --json growth.json    # about half an hour, after as long for drawing the documents
    python benchmarks/growth.py --docs 60000 --loads 3               # shows that it runs
    python benchmarks/growth.py --replicas 1 --thumbnails            # as `stair-es ingest` has it by default
    python benchmarks/growth.py --draw-only                          # draw the documents, for a run later

Three OpenSearch processes of the embedded node's version form a cluster on this machine, with an index of three primary shards.
The documents are drawn images (`query_corpus.py`) as ingest writes them, sent by the product's own bulk path (`BulkWriter` at the
pace of `AdaptiveThrottle`). Each load has two halves: nobody asks during the first, and during the second a process asks
`--asked-per-s` questions a second, one after the other, kinds by turns. After each load, once merges have ended, the same
questions are asked of the idle cluster. Questions are as `Searcher` sends them: ten hits in a total order, with documents.
Segments stay as they come; at the end each shard is merged to one (`--no-merge`), and asked once more.

Three nodes, client and questions share this machine's cores: a cluster of three machines does more a second. What is measured is
how the figures change with the size. After each load the record (`--json`) is written anew, so that what was measured stays if
the run ends early.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from common import options, publish, save
from growth_corpus import Loads
from growth_index import GrowingIndex, Percentiles, Step
from growth_measure import make_bodies
from result import ReportTable, Result

NODES = 3


def measure(given: argparse.Namespace, loads: Loads) -> Iterator[Step]:
    """Start the nodes and load; a step is given as soon as it has been measured."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.nodes.search_nodes import opensearch_cluster

    bodies = make_bodies(loads.corpus, given.questions)
    with (
        tempfile.TemporaryDirectory(prefix="stair-es-growth-", dir=given.work) as folder,
        opensearch_cluster(Path(folder), size=NODES, heap=given.heap, full_jit=True) as nodes,
    ):
        growing = GrowingIndex([node.url for node in nodes.nodes], bodies, given)
        for number in range(loads.loads):
            yield growing.load(number, loads)
        if given.merge:
            yield growing.merge()


def result(steps: list[Step], about: str, ended: str = "") -> Result:
    """A row a load."""
    kinds = list(steps[0].idle_ms) if steps else []
    growth = ReportTable(
        head=("images", "docs/s", "docs/s, asked", "bytes a document", "segments", "heap, MB", "GC, %", "merges go on, s"),
        rows=tuple(_growth_row(step) for step in steps),
    )
    idle = ReportTable(
        heading="Searches, p50 / p99, ms, while nothing else happens",
        head=("images", *kinds),
        rows=tuple((step.name, *_times(step.idle_ms, kinds)) for step in steps),
    )
    asked = ReportTable(
        heading="Searches, p50 / p99, ms, during a load",
        head=("images", "asked", *kinds),
        rows=tuple((step.name, f"{step.asked:,}", *_times(step.asked_ms, kinds)) for step in steps if step.asked),
    )
    remarks = [
        "docs/s are those of the bulk path from the first request to the last answer, making documents included; "
        "nodes, client and questions share the cores",
        "bytes are those of the primaries, without translogs, as the segments come",
        "heap: the least and the most that the fullest node had during the load",
    ]
    if ended:
        remarks.insert(0, f"**it ended early**: {ended}")
    return Result(about=about, tables=(growth, idle, asked), remarks=tuple(remarks), figures={"steps": [*map(asdict, steps)]})


def _growth_row(step: Step) -> tuple[str, ...]:
    rates = ("-" if rate is None else f"{rate:,.0f}" for rate in (step.docs_per_s, step.docs_per_s_asked))
    return (
        step.name,
        *rates,
        f"{step.stored.primary_bytes / step.stored.documents:,.0f}",
        f"{step.stored.segments}",
        f"{step.heap_least_mb:,.0f} to {step.heap_most_mb:,.0f}",
        f"{100 * step.collecting_share:.1f}",
        f"{step.settle_s:.0f}",
    )


def _times(found: Percentiles, kinds: list[str]) -> Iterator[str]:
    return (f"{found[kind][0]:.1f} / {found[kind][1]:.1f}" if kind in found else "-" for kind in kinds)


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--docs", type=int, default=3_000_000, help="(default: %(default)s)")
    parser.add_argument("--loads", type=int, default=6, help="how many loads they come in (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=NODES, help="primary shards (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=0, help="of each shard (default: %(default)s)")
    parser.add_argument("--thumbnails", action="store_true", help="documents have thumbnails, of the bundled photos by turns")
    parser.add_argument("--questions", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often each is asked of the idle cluster (default: %(default)s)"
    )
    parser.add_argument("--asked-per-s", type=float, default=40, help="questions a second during a load (default: %(default)s)")
    parser.add_argument("--heap", default="2g", help="of each node (default: %(default)s)")
    parser.add_argument("--no-merge", dest="merge", action="store_false", help="leave the segments as they come at the end, too")
    parser.add_argument("--draw-only", action="store_true", help="draw what isn't in the cache yet, and end")
    parser.add_argument("--work", type=Path, help="folder for the nodes' data (default: that for temporary files)")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora", help="where drawn documents stay"
    )
    given = parser.parse_args()
    loads = Loads(given.cache, given.docs // given.loads, given.loads)
    loads.draw()
    if given.draw_only:
        return
    about = (
        f"{loads.size * loads.loads:,} documents {'with' if given.thumbnails else 'without'} thumbnails in {loads.loads} loads; "
        f"{NODES} nodes with a heap of {given.heap} each, {given.shards} primary shards, {given.replicas} replicas; "
        f"{given.questions} questions of each kind, {given.rounds} rounds; {given.asked_per_s:g} questions a second during a load"
    )
    steps: list[Step] = []
    ended = "nothing was measured"
    try:
        for step in measure(given, loads):
            steps.append(step)
            print(" | ".join((*_growth_row(step), *_times(step.idle_ms, list(step.idle_ms)))), flush=True)
            save(result(steps, about, f"after {step.name}"), given.json)
        ended = ""
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise
    finally:
        publish(result(steps, about, ended), given.json)


if __name__ == "__main__":
    main()
