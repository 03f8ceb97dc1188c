"""Measure the duration of commands: `stair-es --help`, a warm text search from the shell, and an ingest that finds nothing new.

    python benchmarks/shell.py

Each time is that of a whole process, as the median of the rounds. Uses the embedded node (or STAIR_ES_URL) and a separate index.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness.cluster import open_cluster
from harness.photos import PHOTOS
from harness.program import add_url_option, build_parser, publish_result
from harness.result import ReportTable, Result


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    command = Path(sys.executable).parent / "stair-es"
    with open_cluster(args.url) as (cluster, name):
        environment = {**os.environ, "STAIR_ES_URL": cluster.connection.url, "STAIR_ES_INDEX": name}
        subprocess.run([command, "ingest", PHOTOS], env=environment, check=True, capture_output=True)
        for label, words in {
            "stair-es --help": ["--help"],
            "search, text network": ["search", "a red bird", "-k", "5"],
            "search, word table": ["search", "a red bird", "-k", "5", "--text-tower", "table"],
            "search --image": ["search", "--image", str(PHOTOS / "koala.jpg")],
            "ingest, nothing new": ["ingest", str(PHOTOS)],
        }.items():
            seconds = []
            for _ in range(args.rounds + 1):
                start = time.perf_counter()
                subprocess.run([command, *words], env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            found[label] = seconds[1:]
    result = Result(
        about=f"seconds from the start to the end of the process, median of {args.rounds} rounds",
        tables=(
            ReportTable(
                head=("", "s", "fastest", "slowest"),
                rows=tuple(
                    (label, f"{statistics.median(times):.2f}", f"{min(times):.2f}", f"{max(times):.2f}")
                    for label, times in found.items()
                ),
            ),
        ),
        figures={"seconds": found},
    )
    publish_result(result, args.json)


if __name__ == "__main__":
    main()
