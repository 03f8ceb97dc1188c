"""What workers reserve on the nodes of a Ray cluster, what they have in common with the driver, their GPUs and children."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from support.corpora.ingest_sources import PHOTOS, build_worker_config
from support.errors import expect_error

from stair_es.cluster.client.connection import Connection
from stair_es.errors import DeviceOutOfMemory, IngestError, ModelError, UsageError
from stair_es.ingest import pipeline
from stair_es.ingest.executors.base import WorkerDied
from stair_es.ingest.executors.ray import RayOptions, choose_worker_shape, count_slots, parse_encoders
from stair_es.ingest.executors.ray_worker import check_installation
from stair_es.ingest.executors.threads import GPU_BATCH, ThreadExecutor
from stair_es.ingest.options import IngestOptions, choose_runner
from stair_es.ingest.stages import encode_batch
from stair_es.ingest.state import Batch, Encoded, Fetched, ImageState, Pending, Prepared
from stair_es.model.base import ModelSpec
from stair_es.model.registry import Model, resolve_model
from stair_es.sources.base import ReadLimits, ReadResult, SourceItem
from stair_es.sources.image.decode import DecodedImage
from stair_es.sources.io.local_file import FileLocator
from stair_es.types import Json, Pixels, Runner, SparseVector

HEAD = {"CPU": 0.0}


@pytest.mark.parametrize(
    ("gpus", "share", "slots"),
    [([], 1, 0), ([0, 2], 0, 0), ([1, 1], 0.4, 4), ([2], 0.5, 4), ([4], 1 / 3, 12), ([4, 1, 0], 2, 2), ([1], 0.6, 1)],
)
def test_encoders_are_counted_gpu_by_gpu(gpus: list[float], share: float, slots: int) -> None:
    nodes = [{"CPU": 8.0, "GPU": float(count)} for count in gpus]
    shape = choose_worker_shape(nodes, RayOptions(gpus_per_encoder=share))
    assert shape.gpus == (share if slots else 0)
    if slots:
        assert shape.slots == count_slots(nodes, shape) == slots


@pytest.mark.parametrize(
    ("nodes", "encoders", "shape"),
    [
        ([{"CPU": 2.0}], 0, (1, 2, 0)),
        ([HEAD, {"CPU": 4.0}, {"CPU": 4.0}], 0, (2, 4, 0)),
        ([{"CPU": 16.0}, {"CPU": 6.0}], 0, (3, 6, 0)),
        ([{"CPU": 12.0}], 0, (2, 6, 0)),
        ([{"CPU": 64.0}], 0, (8, 8, 0)),
        ([{"CPU": 2.0}], 2, (2, 1, 0)),
        ([{"CPU": 2.0}], 4, (4, 0.5, 0)),
        ([{"CPU": 64.0}], 4, (8, 8, 0)),
        ([HEAD], 0, (1, 1, 0)),
        ([HEAD, {"CPU": 32.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], 0, (3, 8, 1)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 0.0, "GPU": 1.0}], 0, (9, 8, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], 0, (4, 0, 1)),
    ],
)
def test_workers_share_the_cores_of_their_node(
    nodes: list[dict[str, float]], encoders: int, shape: tuple[int, float, float]
) -> None:
    chosen = choose_worker_shape(nodes, RayOptions(encoders=encoders))
    assert (chosen.slots, chosen.cpus, chosen.gpus) == shape


@pytest.mark.parametrize(
    ("text", "encoders"),
    [("0", (0, 0)), ("4", (0, 4)), ("1..1", (1, 1)), ("2..16", (2, 16)), ("0..2", None)]
    + [(text, None) for text in ("", "..", "3..2", "-1", "1..", "..4", "1...4", "two", "1.5", "²")],
)
def test_encoders_are_a_number_or_a_range(text: str, encoders: tuple[int, int] | None) -> None:
    if encoders is None:
        with expect_error("invalid-encoders", UsageError) as caught:
            parse_encoders(text)
        assert repr(text) in caught.value.message
    else:
        assert parse_encoders(text) == encoders


def test_one_and_a_half_gpus_are_rejected() -> None:
    with expect_error("invalid-gpus-per-encoder", UsageError) as caught:
        choose_worker_shape([{"GPU": 4.0}], RayOptions(gpus_per_encoder=1.5))
    assert "1.5" in caught.value.message


@pytest.mark.parametrize(
    ("worker", "facts"),
    [
        ({"stair-es": "1.0"}, ["plugin missing instead of 2"]),
        ({"stair-es": "1.1", "plugin": "2"}, ["stair-es 1.1 instead of 1.0"]),
        ({"stair-es": "1.0", "plugin": "2", "more": "3"}, ["more 3 instead of none"]),
        ({"stair-es": "1.1"}, ["plugin", "stair-es"]),
    ],
)
def test_other_packages_are_named(worker: dict[str, str], facts: list[str]) -> None:
    driver = {"stair-es": "1.0", "plugin": "2"}
    check_installation(driver, driver)
    with expect_error("worker-with-other-packages", ModelError) as caught:
        check_installation(driver, worker)
    assert all(fact in caught.value.message for fact in facts)


@dataclass(frozen=True)
class KillingLocator:
    """A place that kills the process that reads it."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def to_json(self) -> dict[str, Json] | None:
        return None


def test_an_image_kills_a_child_process_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    # Child processes unpickle a locator of this file. Last, so that a wheel is found before the tree.
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[3])])
    config = build_worker_config(Connection(url="http://127.0.0.1:1"))
    executor = ThreadExecutor(config, resolve_model(config.model), 2, 1, cores=1, dump=pickle.dumps)
    photo = next(PHOTOS.glob("*.jpg"))
    good, bad = SourceItem("given:1", "given:", FileLocator(photo.as_uri())), SourceItem("given:2", "given:", KillingLocator())
    try:
        first = executor.submit("prepare", Batch([Pending(good)]))
        [prepared] = executor.get_result(first).images
        assert isinstance(prepared, Prepared)
        with pytest.raises(WorkerDied):
            executor.get_result(executor.submit("encode", executor.submit("prepare", Batch([Pending(bad), Pending(good)]))))
        [again] = executor.get_result(executor.submit("prepare", Batch([Pending(good)]))).images
        assert again.decoded.pixels_HWC.tobytes() == prepared.decoded.pixels_HWC.tobytes()
    finally:
        executor.close()


class DeviceEncoder:
    """An encoder that notes what it encodes, and has no memory for an image whose first byte is 255."""

    def __init__(self, device: str | None, calls: list[tuple[str | None, int]]) -> None:
        self._device, self._calls = device, calls

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        self._calls.append((self._device, len(pixels_BHWC)))
        if (pixels_BHWC[:, 0, 0, 0] == 255).any():
            raise DeviceOutOfMemory("too large")
        return [SparseVector.from_pairs([("cat", 1.0)]) for _ in pixels_BHWC]


def _prepare_images(*first_bytes: int) -> Batch:
    images = list[ImageState]()
    for number, first_byte in enumerate(first_bytes):
        item = SourceItem(f"given:{number}", "given:", KillingLocator())
        pixels = np.full((4, 4, 3), first_byte, np.uint8)
        decoded = DecodedImage(
            pixels_HWC=pixels,
            box=(0, 0, 4, 4),
            width=4,
            height=4,
            format="PNG",
            taken_at=None,
            colors=(),
            perceptual_hash=None,
            thumbnail=None,
        )
        fetched = Fetched(item, str(number), b"", size_bytes=1, version=None, modified_at=None, sha256="", fingerprint="")
        images.append(Prepared(fetched, decoded, {}))
    return Batch(images)


def test_each_gpu_has_an_encoder_and_large_images_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[str | None, int]]()
    monkeypatch.setattr("stair_es.ingest.executors.threads.count_cuda_devices", lambda: 2)
    config = build_worker_config(Connection(url="http://127.0.0.1:1"))
    model = SimpleNamespace(can_use_gpu=True, spec=config.model, load=lambda threads, device=None: DeviceEncoder(device, calls))
    executor = ThreadExecutor(config, cast("Model", model), 0, 1, cores=1)
    try:
        assert (executor.encoders, executor.batch_images) == (4, GPU_BATCH)
        tasks = [executor.submit("encode", _prepare_images(0, 0), encoder=encoder) for encoder in range(4)]
        assert all(isinstance(state, Encoded) for task in tasks for state in executor.get_result(task).images)
        assert Counter(calls) == {("cuda:0", 2): 2, ("cuda:1", 2): 2}
        first, second, third = executor.get_result(executor.submit("encode", _prepare_images(0, 255, 0))).images
    finally:
        executor.close()
    assert isinstance(first, Encoded)
    assert isinstance(third, Encoded)
    assert (second.kind, second.stage, second.reason) == ("failed", "encode", "too large")
    with expect_error("device-out-of-memory"):  # no image fits: then it isn't the images
        encode_batch(executor.models[0], _prepare_images(255, 255))


@pytest.mark.parametrize(
    ("runner", "address", "gpus", "used"),
    [
        ("auto", None, 0, "local"),
        ("auto", None, 1, "local"),
        ("auto", None, 2, "local"),  # Ray is chosen, but doesn't start
        ("auto", "10.0.0.1:6379", 0, "error"),
        ("ray", None, 0, "error"),
        ("local", "10.0.0.1:6379", 2, "local"),
    ],
)
def test_threads_replace_a_ray_that_nobody_requested(
    runner: Runner, address: str | None, gpus: int, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def fail_to_start(options: RayOptions) -> Iterator[None]:
        raise IngestError("no time", code="ray-not-started")
        yield

    monkeypatch.setattr(pipeline, "open_ray_workers", fail_to_start)
    monkeypatch.setattr("stair_es.ingest.options.count_cuda_devices", lambda: gpus)
    monkeypatch.setattr("stair_es.ingest.options.find_spec", lambda name: True)  # `make unit` installs no Ray
    options = IngestOptions(alias="a", model=ModelSpec(name="stair-mini"), runner=runner, ray=RayOptions(address=address))
    assert choose_runner(options)[0] == ("ray" if (gpus > 1 and runner == "auto") or used == "error" else "local")
    with expect_error("ray-not-started") if used == "error" else nullcontext(), ExitStack() as stack:
        assert pipeline._open_workers(options, stack) is None
