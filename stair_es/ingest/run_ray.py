"""The stages as a Ray Data graph, on every core and GPU that Ray has. The only file that imports ray.

One row is one batch, pickled into a bytes column: an Arrow dict column would become one wide struct full of nulls, and a
stage gets exactly what it gets in process. Reading, decoding and writing are CPU tasks; the encoder is a pool of actors that
load the model once.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_es.errors import IngestError, StairError
from stair_es.extras import need
from stair_es.ingest.stages import Batch, Job, decode_batch, encode_batch, read_batch, write_batch
from stair_es.model import catalogue

_Row = dict[str, bytes]


def run_ray(job: Job, todo: Sequence[Batch], address: str | None = None) -> Iterator[Batch]:
    """The finished batches of `todo`, as they get ready.

    Args:
        job: What the workers build their clients and models from.
        todo: The batches.
        address: A running Ray cluster; none starts one on this machine for the time of the run.

    Raises:
        MissingExtra: Ray isn't installed.
        StairError: A stage failed as a whole.
    """
    ray = need("ray", "ray")
    with _session(ray, address):
        graph = _graph(ray, job, todo)
        try:
            for row in graph.iter_rows():
                batch = pickle.loads(row["batch"])
                if isinstance(batch, StairError):
                    raise batch
                yield batch
        except ray.exceptions.RayError as error:
            raise IngestError(f"Ray failed: {getattr(error, 'cause', None) or error}") from error


def _graph(ray: Any, job: Job, todo: Sequence[Batch]) -> Any:  # noqa: ANN401  ray ships no types we could name
    from ray.data import ActorPoolStrategy

    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    # On CPUs the encoders take every core by threads=1, but reserve only half of them: the other stages need room.
    encoders: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 0.5}
    rows = [{"batch": pickle.dumps(batch)} for batch in todo]
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(_on_rows(read_batch), fn_kwargs={"job": job}, num_cpus=0.5)
        .map(_on_rows(decode_batch), fn_kwargs={"job": job}, num_cpus=0.5)
        .map(
            _Encoders,
            fn_constructor_kwargs={"job": job},
            compute=ActorPoolStrategy(size=gpus or cpus),
            **encoders,
        )
        .map(_on_rows(write_batch), fn_kwargs={"job": job}, num_cpus=0.5)
    )


class _Encoders:
    """One actor of the pool: loads the model once."""

    def __init__(self, job: Job) -> None:
        self.encoder = catalogue.load(replace(job.model, threads=1))

    def __call__(self, row: _Row) -> _Row:
        return _through(row, lambda batch: encode_batch(batch, self.encoder))


def _on_rows(stage: Callable[[Batch, Job], Batch]) -> Callable[[_Row, Job], _Row]:
    def on_row(row: _Row, job: Job) -> _Row:
        return _through(row, lambda batch: stage(batch, job))

    on_row.__name__ = stage.__name__
    return on_row


def _through(row: _Row, stage: Callable[[Batch], Batch]) -> _Row:
    """The row after one stage. An error of ours travels on in place of the batch: Ray would wrap it beyond recognition."""
    batch: Batch | StairError = pickle.loads(row["batch"])
    if isinstance(batch, StairError):
        return row
    try:
        batch = stage(batch)
    except StairError as error:
        batch = error
    return {"batch": pickle.dumps(batch)}


@contextmanager
def _session(ray: Any, address: str | None) -> Iterator[None]:  # noqa: ANN401
    """A Ray session that ends with the run, unless the caller already had one. Ray's own bars and logs stay out of ours."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side writes to our stderr, whatever log_to_driver says
    os.environ.setdefault("RAY_DATA_LOGGING_CONFIG", str(Path(__file__).with_name("ray_logging.yaml")))
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
