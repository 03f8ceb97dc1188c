"""Measure the memory of each process of an ingest, and its growth from a small to a large corpus.

    python benchmarks/memory.py                                   # 1,000 and 5,000 small images, this process and Ray
    python benchmarks/memory.py --images 1000,10000,100000        # the long run

Images are small JPEG files (64 x 48, each different). Each process's own memory is sampled once per second, and the table shows
the largest process of each kind. The memory is the USS, which would be free if the process ended, so Ray's shared object store
isn't counted once per worker. The search node isn't counted. With `--model` you can use a faster model of a plugin: memory hardly
depends on the model.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from harness.cluster import open_cluster
from harness.program import add_model_option, add_url_option, build_parser, publish_result
from harness.result import ReportTable, Result
from PIL import Image

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))
_EVERY_S = 1.0
_MB = 1024 * 1024


@contextmanager
def make_small_images(count: int) -> Iterator[Path]:
    """Yield a folder of `count` different images, 1,000 in each subfolder."""
    rng = random.Random(1)
    kinds = []
    for _ in range(50):
        buffer = io.BytesIO()
        Image.frombytes("RGB", (64, 48), rng.randbytes(64 * 48 * 3)).resize((8, 6)).resize((64, 48)).save(buffer, "JPEG")
        kinds.append(buffer.getvalue())
    with tempfile.TemporaryDirectory(prefix="stair-es-memory-") as folder:
        for i in range(count):
            path = Path(folder, f"{i // 1000:04}", f"{i:07}.jpg")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(kinds[i % len(kinds)] + i.to_bytes(8, "big"))
        yield Path(folder)


def classify_process(process: psutil.Process, driver: int) -> str:
    """Return the role of a process in the run."""
    if process.pid == driver:
        return "driver"
    title = " ".join(process.cmdline())
    for sign, kind in (("ray::RayWorker", "ray worker"), ("raylet", "raylet"), ("gcs_server", "ray gcs")):
        if sign in title:
            return kind
    return "other"


def run_watched(command: list[str]) -> tuple[dict[str, float], float, dict[str, object]]:
    """Run a command; return the peak in MB of each kind of process, the seconds, and the last line of JSON."""
    peaks: defaultdict[str, float] = defaultdict(float)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in family:
            try:
                kind = classify_process(member, process.pid)
                peaks[kind] = max(peaks[kind], member.memory_full_info().uss / _MB)
            except psutil.Error:
                continue
        time.sleep(_EVERY_S)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the ingest failed: {out[-500:]}")
    return dict(peaks), time.perf_counter() - start, json.loads(out.strip().splitlines()[-1])


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    add_url_option(parser)
    parser.add_argument("--images", default="1000,5000")
    parser.add_argument("--runners", default="local,ray")
    args = parser.parse_args()
    sizes = [int(size) for size in args.images.split(",")]
    table: dict[str, dict[str, dict[int, float]]] = {}
    speed: dict[str, dict[int, float]] = {}
    with open_cluster(args.url) as (cluster, name):
        for size in sizes:
            with make_small_images(size) as folder:
                for runner in args.runners.split(","):
                    options = ["--index", f"{name}-{runner}-{size}", "--runner", runner, "--model", args.model]
                    command = [STAIR_ES, "ingest", str(folder), "--url", cluster.connection.url, "--json", *options]
                    peaks, seconds, report = run_watched(command)
                    if report["written"] != size:
                        raise SystemExit(f"not all images were written: {report}")
                    speed.setdefault(runner, {})[size] = size / seconds
                    for kind, peak in peaks.items():
                        table.setdefault(runner, {}).setdefault(kind, {})[size] = peak
    rows = []
    for runner, kinds in table.items():
        lines = {f"{kind}, MB": by_size for kind, by_size in sorted(kinds.items())} | {"images/s": speed[runner]}
        rows += [(runner, name, *(f"{values.get(size, 0):,.0f}" for size in sizes)) for name, values in lines.items()]
    result = Result(
        about=f"model {args.model}; peak MB (USS) of the largest process of each kind",
        tables=(ReportTable(head=("runner", "process", *(f"{size:,} images" for size in sizes)), rows=tuple(rows)),),
        figures={"model": args.model, "peak_mb": table, "images_per_s": speed},
    )
    publish_result(result, args.json)


if __name__ == "__main__":
    main()
