"""Seconds that a person waits: `stair-es --help`, a warm text search from the shell, and an ingest that finds nothing new.

    python benchmarks/shell.py

Whole processes, median of the rounds. Uses the embedded node (or STAIR_ES_URL) and an index of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import PHOTOS, machine, node


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--url", default=os.environ.get("STAIR_ES_URL"))
    arguments = parser.parse_args()
    command = Path(sys.executable).parent / "stair-es"
    with node(arguments.url) as (connection, _, name):
        environment = {**os.environ, "STAIR_ES_URL": connection.url, "STAIR_ES_INDEX": name}
        subprocess.run([command, "ingest", PHOTOS], env=environment, check=True, capture_output=True)
        print(f"{machine()}; seconds, median of {arguments.rounds} rounds (fastest, slowest)")
        for label, words in {
            "stair-es --help": ["--help"],
            "search, text network": ["search", "a red bird", "-k", "5"],
            "search, word table": ["search", "a red bird", "-k", "5", "--text-tower", "table"],
            "search --image": ["search", "--image", str(PHOTOS / "koala.jpg")],
            "ingest, nothing new": ["ingest", str(PHOTOS)],
        }.items():
            seconds = []
            for _ in range(arguments.rounds + 1):
                start = time.perf_counter()
                subprocess.run([command, *words], env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            warm = seconds[1:]
            print(f"{label:24}{statistics.median(warm):6.2f}  ({min(warm):.2f}, {max(warm):.2f})")


if __name__ == "__main__":
    main()
