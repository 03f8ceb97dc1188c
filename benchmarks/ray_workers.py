"""Ingest generated images with many Ray workers that sleep instead of encoding, and kill some. None may be lost or doubled.

    python benchmarks/ray_workers.py                                      # 20 workers, 10,000 images
    python benchmarks/ray_workers.py --workers 100 --images 100000        # 10 GB of memory, some minutes

All workers run on this machine, more than it has cores, so their rate says nothing. What counts is the driver's CPU per image,
with Ray's share, and that the counts add up, in the run and in the index.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from harness.cluster import open_cluster
from harness.program import add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

from stair_es import plugins
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import SourceItem

_EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin" / "src"
_MODULE = """
import io, time
from dataclasses import dataclass
from PIL import Image
from stair_es.sources.base import ReadResult
from stair_es_example.colors import ColorsPlugin
from stair_es_example.colors_encoder import ColorsEncoder

@dataclass(frozen=True)
class GeneratedImage:
    number: int
    def read(self, limits, known_version=None):
        color = (self.number % 256, self.number // 256 % 256, self.number // 65536)
        file = io.BytesIO()
        Image.new("RGB", (32, 24), color).save(file, "PNG")
        return ReadResult(file.getvalue())
    def to_json(self):
        return None

class SleepingEncoder(ColorsEncoder):
    def encode_images(self, pixels_BHWC):
        time.sleep(SECONDS * len(pixels_BHWC))
        return super().encode_images(pixels_BHWC)

class SleepingPlugin(ColorsPlugin):
    def load(self, spec):
        return SleepingEncoder(self.card)

KIND = SleepingPlugin()
"""


@dataclass
class GeneratedSource:
    """A source of small pictures that are made when they are read."""

    images: int
    locator: Any
    uri: str = "generated:"
    ignored: Mapping[str, int] = field(default_factory=dict)

    def list_items(self) -> Iterator[SourceItem]:
        """Yield the images."""
        for number in range(self.images):
            yield SourceItem(f"generated:{number:09}", self.uri, self.locator(number))


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument(
        "--kills", type=int, default=3, help="workers that are killed, one every five seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--sleep-ms", type=float, default=20.0, help="time that an image takes the encoder (default: %(default)s)"
    )
    args = parser.parse_args()
    with install_plugin(args.sleep_ms / 1000) as module, open_cluster(args.url) as (cluster, alias):
        source = GeneratedSource(args.images, module.GeneratedImage)
        figures = measure_run(source, cluster.connection, alias, args.workers, args.kills)
        cluster.client.indices.refresh(index=alias)
        figures["stored"] = cluster.client.count(index=alias)["count"]
    about = (
        f"{args.images:,} generated images, {args.workers} workers that sleep {args.sleep_ms:g} ms per image, {args.kills} kills"
    )
    publish_result(build_result(about, args.images, figures), args.json)


@contextmanager
def install_plugin(seconds: float) -> Iterator[Any]:
    """Yield the module of the sleeping encoder, which the workers find, too."""
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder:
        info = Path(folder) / "sleeping-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[stair_es.encoders]\nsleeping = sleeping:KIND\n")
        (Path(folder) / "sleeping.py").write_text(f"SECONDS = {seconds}\n{_MODULE}")
        paths = [folder, str(_EXAMPLE)]
        os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
        sys.path[:0] = paths
        plugins.list_plugins.cache_clear()
        yield import_module("sleeping")


def measure_run(source: GeneratedSource, connection: Connection, alias: str, workers: int, kills: int) -> dict[str, float]:
    """Ingest on a private Ray session with as many logical CPUs as workers, and return what it took."""
    import ray

    options = IngestOptions(
        alias=alias, model=ModelSpec(name="sleeping"), runner="ray", ray=RayOptions(encoders=workers), batch_images=16
    )
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    killed, is_over = list[int](), threading.Event()
    killer = threading.Thread(target=kill_workers, args=(kills, killed, is_over))
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        report = run_ingest([source], connection, options, progress=lambda accounting: start_once(killer, accounting.done_count))
    finally:
        is_over.set()
        ray.shutdown()
    return {
        "written": report.written,
        "failed": report.failed,
        "killed": len(killed),
        "start_s": report.start_seconds or 0.0,
        "images_per_s": report.seen / (time.perf_counter() - began),
        "driver_us": 1e6 * (time.process_time() - cpu_began) / report.seen,
    }


def start_once(thread: threading.Thread, done: int) -> None:
    """Start the thread with the first finished images."""
    if done and thread.ident is None:
        thread.start()


def kill_workers(count: int, killed: list[int], is_over: threading.Event) -> None:
    """Kill a random worker every five seconds."""
    while len(killed) < count and not is_over.wait(5.0):
        workers = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("ray::RayWorker")]
        if workers:
            victim = random.choice(workers)
            victim.kill()
            killed.append(victim.pid)


def build_result(about: str, images: int, figures: Mapping[str, float]) -> Result:
    """Return the figures, and whether each image is stored once."""
    rows = [(name, f"{value:,.1f}") for name, value in figures.items()]
    ratios = (
        Ratio(what="images written", against="images listed", value=figures["written"] / images),
        Ratio(what="documents in the index", against="images listed", value=figures["stored"] / images),
        Ratio(what="documents in the index", against="images listed", value=figures["stored"] / images, at_most=True),
    )
    return Result(about=about, tables=(ReportTable(head=("", "value"), rows=tuple(rows)),), ratios=ratios, figures=dict(figures))


if __name__ == "__main__":
    main()
