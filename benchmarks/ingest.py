"""Compare images/s of a complete ingest with a bare read + decode + encode loop over the same files.

    python benchmarks/ingest.py                   # local, then Ray
    python benchmarks/ingest.py --images 2000 --runner local

There are two bare loops. `threaded` has one thread per core, each of which processes one image after the other; it is the fastest
loop that we know. `plain` is a single loop in which only the encoder may use all cores. The goal applies to the ratio to
`threaded`. Rounds alternate, and the table shows medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from harness.cluster import open_cluster
from harness.photos import make_photo_folder
from harness.program import add_model_option, add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.executors.threads import CPU_BATCH as BATCH_IMAGES
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source

GOAL, ALONE = 0.9, "a bare loop of reading, decoding and encoding, on all cores"


def run_bare_loop(files: list[Path], encoder: Encoder) -> None:
    """Only read, decode and encode."""
    for start in range(0, len(files), BATCH_IMAGES):
        part = files[start : start + BATCH_IMAGES]
        pixels = [decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for path in part]
        encoder.encode_images(np.stack(pixels))


def run_threaded_loop(files: list[Path], encoder: Encoder) -> None:
    """Do the same with one thread per core."""
    cores = os.cpu_count() or 1
    parts = [files[start : start + BATCH_IMAGES] for start in range(0, len(files), BATCH_IMAGES)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda part: run_bare_loop(part, encoder), parts))


def measure_ingest(
    folder: Path, connection: Connection, alias: str, runner: str, model: str
) -> tuple[float, float, float | None]:
    """Return images/s with and without the start of the runner (models, Ray, until the first batch), and the idle share."""
    options = IngestOptions(alias=alias, model=ModelSpec(name=model), runner=runner)  # type: ignore[arg-type]
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    report = run_ingest(
        [open_source(str(folder))],
        connection,
        options,
        progress=lambda accounting: marks.append((time.perf_counter(), accounting.done_count)),
    )
    seconds = time.perf_counter() - start
    if report.written != report.seen:
        raise SystemExit(f"not all images were written: {report}")
    (first, done), (last, _) = marks[0], marks[-1]
    steady = (report.seen - done) / (last - first) if last > first else 0.0
    return report.seen / seconds, steady, report.encoder_idle


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    add_url_option(parser)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runner", choices=["local", "ray", "both"], default="both")
    args = parser.parse_args()
    runners = ["local", "ray"] if args.runner == "both" else [args.runner]

    rates: dict[str, list[float]] = {}
    idle: dict[str, list[float]] = {}
    with make_photo_folder(args.images) as folder, open_cluster(args.url) as (cluster, name):
        files = sorted(folder.iterdir())
        one, many = (registry.load_encoder(ModelSpec(name=args.model, threads=threads)) for threads in (1, 0))
        run_bare_loop(files[:32], many)
        for turn in range(args.rounds):
            for label, loop, encoder in (("bare threaded", run_threaded_loop, one), ("bare plain", run_bare_loop, many)):
                start = time.perf_counter()
                loop(files, encoder)
                rates.setdefault(label, []).append(len(files) / (time.perf_counter() - start))
            for runner in runners:
                whole, steady, idle_share = measure_ingest(
                    folder, cluster.connection, f"{name}-{runner}-{turn}", runner, args.model
                )
                rates.setdefault(f"ingest {runner}", []).append(whole)
                rates.setdefault(f"ingest {runner}, steady", []).append(steady)
                idle.setdefault(runner, []).append(idle_share or 0.0)
    about = f"{args.images} images, {args.model}, median of {args.rounds} rounds"
    publish_result(build_result(about, rates, idle), args.json)


def build_result(about: str, rates: Mapping[str, list[float]], idle: Mapping[str, list[float]]) -> Result:
    """Return a row for each loop."""
    medians = {label: statistics.median(values) for label, values in rates.items()}
    limit, plain = medians["bare threaded"], medians["bare plain"]
    rows = [(label, f"{rate:.1f}", f"{rate / limit:.2f}", f"{rate / plain:.2f}") for label, rate in medians.items()]
    ratios = [
        Ratio(what=f"ingest {runner}, images/s", against=ALONE, value=medians[f"ingest {runner}"] / limit, goal=GOAL)
        for runner in idle
    ]
    return Result(
        about=about,
        tables=(ReportTable(head=("", "images/s", "ratio to threaded", "ratio to plain"), rows=tuple(rows)),),
        ratios=tuple(ratios),
        remarks=tuple(f"encoder idle share, {runner}: {statistics.median(shares):.2f}" for runner, shares in idle.items()),
        figures={"images_per_s": medians, "rounds": rates, "encoder_idle": idle},
    )


if __name__ == "__main__":
    main()
