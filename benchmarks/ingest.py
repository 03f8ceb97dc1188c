"""Compare images/s of a complete ingest, in threads and on Ray, with a bare loop over the same files, and with Ray Data.

    python benchmarks/ingest.py                                    # 400 and 1,500 images
    python benchmarks/ingest.py --images 400 1500 6000 --rounds 1
    python benchmarks/ingest.py --arms bare local

Each arm runs in a process of its own, and rounds alternate; the table shows medians. `start` is the time until the first images
are written, `steady` the rate from then to the last one as a share of the bare loop's. The bare loop has loaded its model before,
and makes neither thumbnails nor an index. CPU seconds are those of all processes, with their start: `driver` is the process that
was started, `workers` are those of Ray that run the stages, the rest are Ray's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster import open_cluster
from harness.photos import make_photo_folder
from harness.program import add_model_option, add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

ARMS = ("bare", "local", "ray", "ray-data")
BARE = "a bare loop of reading, decoding and encoding, on all cores"
GOALS: Mapping[str, Mapping[int, float]] = {
    "local": {400: 0.9, 1500: 0.9, 6000: 0.9},
    "ray": {400: 0.55, 1500: 0.8, 6000: 0.9},
}
"""Share of the bare loop's rate, by arm and number of images."""
STEADY_GOAL, START_GOAL_S = 0.95, 5.0


@dataclass(frozen=True)
class Run:
    """What an arm took."""

    images: int
    seconds: float
    start_seconds: float
    steady_per_s: float
    """Images/s from the first written images to the last ones."""
    cpu: Mapping[str, float]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """Parse what the process of an arm printed."""
        marks = values["marks"]
        (first_s, first), (end_s, images) = marks[0], marks[-1]
        last_s = next(seconds for seconds, done in marks if done == images)
        steady = (images - first) / (last_s - first_s) if first < images / 2 else 0.0  # otherwise too few are left to tell
        return cls(images, end_s, first_s, steady, values["cpu"])


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    add_url_option(parser)
    parser.add_argument("--images", type=int, nargs="+", default=[400, 1500])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    args = parser.parse_args()
    runs: dict[tuple[int, str], list[Run]] = {}
    with open_cluster(args.url) as (cluster, name):
        for images in args.images:
            with make_photo_folder(images) as folder:
                for turn in range(args.rounds):
                    for arm in args.arms:
                        alias = f"{name}-{images}-{arm}-{turn}"
                        run = run_arm(arm, folder, args.model, cluster.connection.url, alias)
                        runs.setdefault((images, arm), []).append(run)
    publish_result(build_result(f"{args.model}, median of {args.rounds} rounds", runs), args.json)


def run_arm(arm: str, folder: Path, model: str, url: str, alias: str) -> Run:
    """Run an arm in a new process."""
    command = [sys.executable, "-m", "harness.ingest_arms", arm, str(folder), model, url, alias]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent)
    return Run.from_json(json.loads(done.stdout.splitlines()[-1]))


def build_result(about: str, runs: Mapping[tuple[int, str], Sequence[Run]]) -> Result:
    """Return a row for each number of images and arm."""
    medians = {key: pick_median(each) for key, each in runs.items()}
    rows, ratios = list[tuple[str, ...]](), list[Ratio]()
    for (images, arm), run in medians.items():
        bare, local, data = (medians.get((images, other)) for other in ("bare", "local", "ray-data"))
        rate = images / run.seconds
        share = rate / bare.steady_per_s if bare else 0.0
        steady = run.steady_per_s / bare.steady_per_s if bare else 0.0
        cpu = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in run.cpu.items())
        row = (
            f"{rate:.1f}",
            f"{share:.2f}",
            f"{steady:.2f}" if steady else "-",
            f"{run.start_seconds:.1f}",
            f"{sum(run.cpu.values()):.1f} ({cpu})",
        )
        rows.append((f"{images:,}", arm, *row))
        if goal := GOALS.get(arm, {}).get(images):
            ratios.append(Ratio(what=f"{arm}, {images:,} images: images/s", against=BARE, value=share, goal=goal))
        if arm == "ray":
            ratios += compare_ray(images, run, bare, local, data)
    head = ("images", "arm", "images/s", "share of bare", "steady", "start, s", "CPU s of all processes")
    figures = {f"{images} {arm}": [vars(run) for run in each] for (images, arm), each in runs.items()}
    return Result(about=about, tables=(ReportTable(head=head, rows=tuple(rows)),), ratios=tuple(ratios), figures=figures)


def compare_ray(images: int, run: Run, bare: Run | None, local: Run | None, data: Run | None) -> list[Ratio]:
    """Return how Ray compares after the start with the bare loop and threads, at the start with threads, and with Ray Data."""
    label = f"ray, {images:,} images"
    ratios = [
        Ratio(
            what=f"{label}: images/s after the start",
            against=against,
            value=run.steady_per_s / other.steady_per_s,
            goal=STEADY_GOAL,
        )
        for against, other in ((BARE, bare), ("threads", local))
        if other and other.steady_per_s and run.steady_per_s
    ]
    if local:
        later_s = run.start_seconds - local.start_seconds
        ratios.append(Ratio(what=f"{label}: later start, s", against="threads", value=later_s, goal=START_GOAL_S, at_most=True))
    if data:
        ratios.append(Ratio(what=f"{label}: images/s", against="Ray Data", value=data.seconds / run.seconds, goal=1.0))
    return ratios


def pick_median(runs: Sequence[Run]) -> Run:
    """Return the run with the median duration."""
    return sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]


if __name__ == "__main__":
    main()
