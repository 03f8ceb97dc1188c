"""Images/s of a whole ingest, over the bare read + decode + encode loop on the same files in the same run.

    python benchmarks/ingest.py                   # local, then Ray
    python benchmarks/ingest.py --images 2000 --runner local

Two bare loops are run: `threaded` (one thread a core takes image after image, which is the fastest that we know) and `plain`
(one loop, the encoder alone may use all cores). The ratio that counts is the one to `threaded`. Rounds alternate; medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import add_model, add_url, corpus, node, options, publish
from result import Ratio, ReportTable, Result

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.executors.threads import CPU_BATCH as BATCH_IMAGES
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source

GOAL, ALONE = 0.9, "reading, decoding, encoding alone, on all cores"


def bare(files: list[Path], encoder: Encoder) -> None:
    """Read, decode, encode; nothing else."""
    for start in range(0, len(files), BATCH_IMAGES):
        part = files[start : start + BATCH_IMAGES]
        pixels = [decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for path in part]
        encoder.encode_images(np.stack(pixels))


def bare_threaded(files: list[Path], encoder: Encoder) -> None:
    """The same, one thread a core."""
    cores = os.cpu_count() or 1
    parts = [files[start : start + BATCH_IMAGES] for start in range(0, len(files), BATCH_IMAGES)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda part: bare(part, encoder), parts))


def timed_ingest(folder: Path, connection: Connection, alias: str, runner: str, model: str) -> tuple[float, float, float | None]:
    """Images/s of one ingest: with the start of the runner (models, Ray), and without it (after the first batch); idle share."""
    options = IngestOptions(alias=alias, model=ModelSpec(name=model), runner=runner)  # type: ignore[arg-type]
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    report = run_ingest(
        [open_source(str(folder))],
        connection,
        options,
        progress=lambda books: marks.append((time.perf_counter(), books.done_count)),
    )
    seconds = time.perf_counter() - start
    if report.written != report.seen:
        raise SystemExit(f"not all written: {report}")
    (first, done), (last, _) = marks[0], marks[-1]
    steady = (report.seen - done) / (last - first) if last > first else 0.0
    return report.seen / seconds, steady, report.encoder_idle


def main() -> None:
    """Run and print."""
    parser = options(__doc__)
    add_model(parser)
    add_url(parser)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runner", choices=["local", "ray", "both"], default="both")
    arguments = parser.parse_args()
    runners = ["local", "ray"] if arguments.runner == "both" else [arguments.runner]

    rates: dict[str, list[float]] = {}
    idle: dict[str, list[float]] = {}
    with corpus(arguments.images) as folder, node(arguments.url) as (cluster, name):
        files = sorted(folder.iterdir())
        one, many = (registry.load_encoder(ModelSpec(name=arguments.model, threads=threads)) for threads in (1, 0))
        bare(files[:32], many)
        for turn in range(arguments.rounds):
            for label, loop, encoder in (("bare threaded", bare_threaded, one), ("bare plain", bare, many)):
                start = time.perf_counter()
                loop(files, encoder)
                rates.setdefault(label, []).append(len(files) / (time.perf_counter() - start))
            for runner in runners:
                whole, steady, idle_share = timed_ingest(
                    folder, cluster.connection, f"{name}-{runner}-{turn}", runner, arguments.model
                )
                rates.setdefault(f"ingest {runner}", []).append(whole)
                rates.setdefault(f"ingest {runner}, steady", []).append(steady)
                idle.setdefault(runner, []).append(idle_share or 0.0)
    about = f"{arguments.images} images, {arguments.model}, median of {arguments.rounds} rounds"
    publish(result(about, rates, idle), arguments.json)


def result(about: str, rates: Mapping[str, list[float]], idle: Mapping[str, list[float]]) -> Result:
    """A line a loop."""
    medians = {label: statistics.median(values) for label, values in rates.items()}
    limit, plain = medians["bare threaded"], medians["bare plain"]
    rows = [(label, f"{rate:.1f}", f"{rate / limit:.2f}", f"{rate / plain:.2f}") for label, rate in medians.items()]
    ratios = [
        Ratio(what=f"ingest {runner}, images/s", against=ALONE, value=medians[f"ingest {runner}"] / limit, goal=GOAL)
        for runner in idle
    ]
    return Result(
        about=about,
        tables=(ReportTable(head=("", "images/s", "of threaded", "of plain"), rows=tuple(rows)),),
        ratios=tuple(ratios),
        remarks=tuple(f"encoder idle share, {runner}: {statistics.median(shares):.2f}" for runner, shares in idle.items()),
        figures={"images_per_s": medians, "rounds": rates, "encoder_idle": idle},
    )


if __name__ == "__main__":
    main()
