"""The arms of `benchmarks/ingest.py`, each in its own process: `-m harness.ingest_arms ARM FOLDER MODEL URL ALIAS` prints JSON.

`bare` only reads, decodes and encodes, with one thread per core, each of which processes one batch after the other: the fastest
loop that we know. `local` and `ray` are ingests. `ray-data` is a pipeline of Ray Data as its documentation writes one, with the
project's stages as functions, so that all arms but the first write the same documents.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.executors.threads import CPU_BATCH as BATCH_IMAGES
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import build_sink_plan, build_worker_config, load_sink_kind, resolve_ingest_model, run_ingest
from stair_es.ingest.stages import WorkerConfig, encode_batch, prepare_batch, write_batches
from stair_es.ingest.state import Batch, Pending
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.base import SourceItem
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source

_SAMPLE_S = 0.5
_WRITTEN_IMAGES = 256
_CHUNK_BYTES = 4 << 20


def measure_bare_loop(options: IngestOptions, folder: Path) -> list[tuple[float, int]]:
    """Read, decode and encode; return the seconds and the number of images. The model is loaded before."""
    files, encoder = sorted(folder.iterdir()), registry.load_encoder(replace(options.model, threads=1))

    def encode_files(part: Sequence[Path]) -> None:
        pixels = [decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for path in part]
        encoder.encode_images(np.stack(pixels))

    encode_files(files[:BATCH_IMAGES])
    parts = [files[start : start + BATCH_IMAGES] for start in range(0, len(files), BATCH_IMAGES)]
    began = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(encode_files, parts))
    return [(0.0, 0), (time.perf_counter() - began, len(files))]


def measure_ingest(options: IngestOptions, folder: Path, connection: Connection) -> list[tuple[float, int]]:
    """Ingest, and return the number of images that were done after some seconds each."""
    began, marks = time.perf_counter(), list[tuple[float, int]]()

    def mark_progress(done: int) -> None:
        if done:
            marks.append((time.perf_counter() - began, done))

    source = open_source(str(folder))
    report = run_ingest([source], connection, options, progress=lambda accounting: mark_progress(accounting.done_count))
    if report.written != report.seen:
        raise SystemExit(f"not all images were written: {report}")
    return [*marks, (time.perf_counter() - began, report.seen)]


class DataEncoder:
    """An actor of Ray Data: it loads the model once."""

    def __init__(self, config: WorkerConfig) -> None:
        self._encoder = registry.load_encoder(replace(config.model, threads=1))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode a batch of prepared images."""
        encoded = encode_batch(self._encoder, Batch(list(batch["image"])))
        return {"image": _build_column(encoded.images)}


def prepare_rows(batch: dict[str, Any], config: WorkerConfig) -> dict[str, Any]:
    """Read and decode the images of a batch."""
    return {"image": _build_column(prepare_batch(config, Batch([Pending(item) for item in batch["image"]])).images)}


def write_rows(batch: dict[str, Any], config: WorkerConfig) -> dict[str, Any]:
    """Write the documents of a batch."""
    [written], _ = write_batches(config, _CHUNK_BYTES, Batch(list(batch["image"])))
    return {"kind": np.array([outcome.kind for outcome in written.get_outcomes()])}


def _build_column(values: Sequence[object]) -> Any:  # noqa: ANN401  an array of objects
    column = np.empty(len(values), object)
    column[:] = values
    return column


def measure_ray_data(options: IngestOptions, folder: Path, connection: Connection) -> list[tuple[float, int]]:
    """Run the same stages as operators of Ray Data."""
    began, marks, done = time.perf_counter(), list[tuple[float, int]](), 0
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    model = resolve_ingest_model(options)
    session = load_sink_kind(options).open(build_sink_plan(options, model, connection))
    config = build_worker_config(options, model, session)
    items = [item for item in open_source(str(folder)).list_items() if isinstance(item, SourceItem)]
    cores = os.cpu_count() or 1
    dataset = (
        ray.data.from_items([{"image": item} for item in items], override_num_blocks=max(4, len(items) // 64))
        .map_batches(prepare_rows, batch_size=BATCH_IMAGES, num_cpus=0.25, fn_kwargs={"config": config})
        .map_batches(
            DataEncoder,
            batch_size=BATCH_IMAGES,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=cores),
            fn_constructor_kwargs={"config": config},
        )
        .map_batches(write_rows, batch_size=_WRITTEN_IMAGES, num_cpus=0.05, fn_kwargs={"config": config})
    )
    for batch in dataset.iter_batches(batch_size=None):
        done += len(batch["kind"])
        marks.append((time.perf_counter() - began, done))
    if done != len(items):
        raise SystemExit(f"{done} of {len(items)} images")
    ray.shutdown()
    return [*marks, (time.perf_counter() - began, done)]


@contextmanager
def sample_children() -> Iterator[dict[str, float]]:
    """Yield the CPU seconds of child processes by kind, complete at the end of the block. Those who end early lose 0.5 s."""
    seconds: dict[int, tuple[str, float]] = {}
    by_kind: dict[str, float] = defaultdict(float)
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(_SAMPLE_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    times, command = process.cpu_times(), " ".join(process.cmdline())
                except psutil.Error:
                    continue
                own = "ray::" in command and not any(name in command for name in ("IDLE", "Agent"))
                seconds[process.pid] = ("workers" if own else "Ray itself", times.user + times.system)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield by_kind
    finally:
        is_over.set()
        thread.join()
        for kind, used in seconds.values():
            by_kind[kind] += used


def main(arm: str, folder: str, model: str, url: str, alias: str) -> None:
    """Measure an arm, and print its marks and CPU seconds."""
    options = IngestOptions(alias=alias, model=ModelSpec(name=model), runner="ray" if arm == "ray" else "local")
    connection = Connection(url=url, timeout_s=120)
    arms: dict[str, Callable[[], list[tuple[float, int]]]] = {
        "bare": lambda: measure_bare_loop(options, Path(folder)),
        "local": lambda: measure_ingest(options, Path(folder), connection),
        "ray": lambda: measure_ingest(options, Path(folder), connection),
        "ray-data": lambda: measure_ray_data(options, Path(folder), connection),
    }
    cpu = time.process_time()
    with sample_children() as children:
        marks = arms[arm]()
    print(json.dumps({"marks": marks, "cpu": {"driver": time.process_time() - cpu, **children}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
