"""Measure the overhead of telemetry: the same ingest and the same searches with and without metrics and traces.

    nice python benchmarks/telemetry.py               # 400 images, 60 searches; about three minutes
    nice python benchmarks/telemetry.py --images 2000 --rounds 5

With telemetry means: a metrics file or `/metrics`, and traces to a collector on this machine, which only decodes and keeps them.
Runs with and without telemetry are separate processes, in changing order. The ratios are medians over pairs of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from harness.cluster import open_cluster
from harness.paired import Client, compute_ratio, make_row, measure_pairs
from harness.photos import make_photo_folder
from harness.program import add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from harness.server import STAIR_ES, start_server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.servers.otlp_collector import start_collector

from stair_es.config.defaults import DEFAULT_MODEL

TEXTS = ("a red panda", "black and white bear", "kitten on grass", "two dogs", "a cup of coffee", "mountain lake")


def measure_ingest(folder: Path, index: str, url: str, observed: Mapping[str, str]) -> float:
    """Return the seconds of an ingest into a new index, from the first image to the last refresh."""
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as files:
        more = ["--metrics-file", f"{files}/bench.prom"] if observed else []
        done = subprocess.run(
            [
                *(STAIR_ES, "ingest", str(folder), "--index", index, "--url", url, "--model", DEFAULT_MODEL, "--runner", "local"),
                *("--json", "--dead-letters", f"{files}/failed.jsonl", *more),
            ],
            env={**os.environ, **observed},
            check=True,
            capture_output=True,
            text=True,
        )
    return float(json.loads(done.stdout)["seconds"])


def measure(args: argparse.Namespace) -> Result:
    """Measure both, and return their ratios."""
    with (
        make_photo_folder(args.images) as folder,
        open_cluster(args.url) as (cluster, name),
        start_collector() as collector,
        ExitStack() as stack,
    ):
        url, observed = cluster.connection.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        measure_ingest(folder, f"{name}-first", url, {})
        runs: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(args.rounds):
            for on in (turn % 2 == 0, turn % 2 == 1):
                runs[on].append(measure_ingest(folder, f"{name}-{turn}-{on}".lower(), url, observed if on else {}))
        of_ingest = len(collector.spans)
        page = ("serve", "--index", f"{name}-first", "--url", url)
        servers = (start_server(*page), start_server(*page, "--metrics", **observed))
        plain, ours = (Client(stack.enter_context(server)[0]) for server in servers)
        bodies = [json.dumps({"text": text}).encode() for text in TEXTS * (args.searches // len(TEXTS))]
        searches = measure_pairs(
            [
                (
                    lambda body=body: plain.post("/api/search", body),  # type: ignore[misc]
                    lambda body=body: ours.post("/api/search", body),  # type: ignore[misc]
                )
                for body in bodies
            ],
            args.rounds,
        )
    seconds = ([1000 * value for value in runs[False]], [1000 * value for value in runs[True]])
    slowest = f"{min(runs[False]):.1f} to {max(runs[False]):.1f} s"
    return Result(
        about=f"{args.images} images, {len(searches[0])} searches, {args.rounds} rounds, model {DEFAULT_MODEL}",
        tables=(
            ReportTable(
                head=("", "without telemetry, ms: median / p95", "with telemetry, ms: median / p95", "median ratio"),
                rows=(make_row("ingest", *seconds), make_row("`/api/search`", *searches)),
            ),
        ),
        ratios=tuple(
            Ratio(
                what=f"time of {what} with metrics and traces",
                against="without telemetry",
                value=compute_ratio(*pair),
                goal=1.05,
                at_most=True,
            )
            for what, pair in (("an ingest", seconds), ("a search through the page", searches))
        ),
        remarks=(
            f"ingests without telemetry took {slowest}: smaller differences are noise",
            f"the ingests produced {of_ingest} spans",
        ),
        figures={"ingest_s": {"off": runs[False], "on": runs[True]}, "search_ms": searches},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    publish_result(measure(args), args.json)


if __name__ == "__main__":
    main()
