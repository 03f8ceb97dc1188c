"""What workers reserve on the nodes of a Ray cluster, what they have in common with the driver, and their child processes."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.corpora.ingest_sources import PHOTOS, build_worker_config
from support.errors import expect_error

from stair_es.cluster.client.connection import Connection
from stair_es.errors import ModelError, UsageError
from stair_es.ingest.executors.base import WorkerDied
from stair_es.ingest.executors.ray import RayOptions, choose_worker_shape, count_slots, parse_encoders
from stair_es.ingest.executors.ray_worker import check_installation
from stair_es.ingest.executors.threads import ThreadExecutor
from stair_es.ingest.state import Batch, Pending, Prepared
from stair_es.model.registry import resolve_model
from stair_es.sources.base import ReadLimits, ReadResult, SourceItem
from stair_es.sources.io.local_file import FileLocator
from stair_es.types import Json

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
        ([{"CPU": 64.0}], 0, (8, 8, 0)),
        ([{"CPU": 2.0}], 2, (2, 1, 0)),
        ([{"CPU": 2.0}], 4, (4, 0.5, 0)),
        ([{"CPU": 64.0}], 4, (8, 8, 0)),
        ([HEAD], 0, (1, 1, 0)),
        ([HEAD, {"CPU": 32.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], 0, (3, 8, 1)),
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
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the child processes unpickle a locator of this file
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
