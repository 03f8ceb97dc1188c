"""Ingests on a Ray cluster whose nodes are killed, frozen, added and mixed up while they run: real raylets on this machine."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from PIL import Image
from support.corpora.ingest_sources import ListSource
from support.errors import expect_error
from support.plugin_metadata import format_python_path, install_plugin, write_entry_points
from support.polling import poll_until

from stair_es.cluster.client.connection import Connection
from stair_es.errors import IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ReadLimits, ReadResult, SourceItem
from stair_es.system import ray_session
from stair_es.types import Json

pytestmark = pytest.mark.nightly("nodes of Ray are lost, frozen and late, by its own limits of time")

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Progress = Callable[[RunAccounting], None]
Run = Callable[..., IngestReport]


@dataclass(frozen=True)
class SlowLocator:
    """A small picture that takes a while to read. It notes which process read it, or kills that."""

    pids: str
    seconds: float = 0.05
    is_deadly: bool = False

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        if self.is_deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        (Path(self.pids) / str(os.getpid())).touch()
        file = io.BytesIO()
        Image.new("RGB", (16, 16), "red").save(file, "PNG")
        return ReadResult(file.getvalue())

    def to_json(self) -> dict[str, Json] | None:
        return None


LOSING_ENCODER = """
import os, pathlib
from stair_es.errors import DeviceLost
from stair_es_example.colors import ColorsPlugin
from stair_es_example.colors_encoder import ColorsEncoder

class LosingEncoder(ColorsEncoder):
    def encode_images(self, pixels_BHWC):
        mark = pathlib.Path(os.environ["LOST_DEVICE"])
        if len(pixels_BHWC) > 1 and not mark.exists():
            mark.write_text(str(os.getpid()))
            raise DeviceLost("CUDA error: an illegal memory access was encountered")
        return super().encode_images(pixels_BHWC)

class LosingPlugin(ColorsPlugin):
    def load(self, spec):
        return LosingEncoder(self.card)

KIND = LosingPlugin()
"""
"""An encoder whose device is lost once, in the process that it notes."""


@dataclass
class RayNodes:
    """A cluster whose head, the driver's node, has no CPUs."""

    cluster: Any
    frozen: list[psutil.Process] = field(default_factory=list)

    def add_node(self, **resources: float) -> Any:  # noqa: ANN401  a node of Ray
        return self.cluster.add_node(**{"num_cpus": 1, **resources})

    def kill_node(self, node: Any) -> None:  # noqa: ANN401
        self.cluster.remove_node(node, allow_graceful=False)

    def wait_for_deaths(self) -> None:
        """Wait until the head knows which nodes are left."""
        left = 1 + len(self.cluster.worker_nodes)
        poll_until(lambda: sum(node["Alive"] for node in self.cluster.global_state.node_table()) == left)

    def freeze_node(self, node: Any) -> None:  # noqa: ANN401
        """Stop the raylet of a node and its workers, as a machine that hangs."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in [raylet, *raylet.children(recursive=True)]:
            process.suspend()
            self.frozen.append(process)

    def remove_all(self) -> None:
        for process in self.frozen:
            process.resume()
        self.frozen.clear()
        for node in list(self.cluster.worker_nodes):
            self.cluster.remove_node(node)
        self.wait_for_deaths()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "losing.py").write_text(LOSING_ENCODER)
    points = ("colors = stair_es_example.colors:KIND", "losing = losing:KIND")
    with install_plugin(folder, "example", *points), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", format_python_path(folder))
        private = ray_session._build_auth_variables(os.environ, imported="ray" in sys.modules)
        noticed = {"RAY_health_check_period_ms": "1000"}  # five times, until a killed node counts as dead: not 15 s
        for name, value in {**ray_session.START_TIMEOUTS, **private, **noticed}.items():
            patch.setenv(name, value)
        from ray import cloudpickle
        from ray.cluster_utils import Cluster

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[RayNodes]:  # noqa: ANN401
    nodes = RayNodes(cluster)
    try:
        yield nodes
    finally:
        nodes.remove_all()


@pytest.fixture
def run_on_nodes(nodes: RayNodes, node_url: str, index_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    monkeypatch.setattr("stair_es.ingest.portion_scheduler._STALL_S", 4.0)
    monkeypatch.setattr("stair_es.ingest.portion_scheduler._STALL_MEDIANS", 1)
    monkeypatch.setattr("stair_es.ingest.executors.ray._NODES_POLL_S", 1.0)

    def run_images(
        count: int,
        progress: Progress = lambda _: None,
        *,
        model: str = "colors",
        deadly: int | None = None,
        **ray: Any,  # noqa: ANN401
    ) -> IngestReport:
        locators = [SlowLocator(str(tmp_path), is_deadly=i == deadly) for i in range(count)]
        items = [SourceItem(f"given:{i}", "given:", locator) for i, locator in enumerate(locators)]
        options = IngestOptions(
            alias=index_name,
            model=ModelSpec(name=model),
            runner="ray",
            ray=RayOptions(address=nodes.cluster.address, **ray),
            batch_images=4,
            dead_letters=tmp_path / "letters.jsonl",
        )
        return run_ingest([ListSource(items)], Connection(url=node_url), options, progress=progress)

    return run_images


def test_lost_frozen_and_late_nodes_cost_no_image(
    run_on_nodes: Run,
    nodes: RayNodes,
    client: OpenSearch,
    index_name: str,
    tmp_path: Path,
) -> None:
    first, second = nodes.add_node(), nodes.add_node()
    events: list[tuple[int, Callable[[], object]]] = [
        (40, lambda: nodes.kill_node(first)),
        (80, nodes.add_node),
        (200, lambda: nodes.freeze_node(second)),
    ]

    def disturb(accounting: RunAccounting) -> None:
        if events and accounting.done_count >= events[0][0]:
            _, change_nodes = events.pop(0)
            change_nodes()

    report = run_on_nodes(500, disturb)
    assert not events
    assert (report.seen, report.written, report.failed, report.documents) == (500, 500, 0, 500)
    assert client.count(index=index_name)["count"] == 500
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) >= 3


def test_a_node_with_other_packages_gets_no_image(
    run_on_nodes: Run,
    nodes: RayNodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = nodes.add_node()
    write_entry_points(tmp_path / "other", "example", "colors = stair_es_example.colors:KIND", version="2.0.0")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", format_python_path(tmp_path / "other"))
        nodes.add_node()
    report = run_on_nodes(40, encoders=2, min_encoders=2)  # begins when each has started or refused
    assert (report.written, report.failed) == (40, 0)
    assert "2.0.0 instead of 1.0.0" in caplog.text
    nodes.kill_node(first)
    nodes.wait_for_deaths()
    with expect_error("worker-with-other-packages", IngestError):
        run_on_nodes(2)


def test_an_image_kills_its_decoder_but_no_model_on_a_gpu(
    run_on_nodes: Run,
    nodes: RayNodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaths = list[object]()
    monkeypatch.setattr("stair_es.ingest.portion_scheduler.PortionScheduler._isolate_images", lambda *args: deaths.append(args))
    nodes.add_node(num_gpus=1)  # a GPU that is only a number
    report = run_on_nodes(20, deadly=7)
    assert (report.written, report.failed, deaths) == (19, 1, [])
    assert report.dead_letters
    assert '"given:7"' in Path(report.dead_letters).read_text()
    with expect_error("gpus-too-few"):
        run_on_nodes(20, encoders=2)


def test_a_lost_gpu_restarts_its_worker(
    run_on_nodes: Run, nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "lost"
    with monkeypatch.context() as patch:
        patch.setenv("LOST_DEVICE", str(mark))
        nodes.add_node(num_gpus=1)
    report = run_on_nodes(20, model="losing")
    assert (report.written, report.failed) == (20, 0)
    assert not psutil.pid_exists(int(mark.read_text()))


def test_a_range_of_encoders_waits_for_its_minimum(
    run_on_nodes: Run, nodes: RayNodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stair_es.ingest.executors.ray._WAITING_S", 1.0)
    nodes.add_node(num_gpus=1)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_on_nodes, 100, encoders=4, min_encoders=2)
        poll_until(lambda: "of 2 encoders have started" in caplog.text or run.done())
        assert not run.done()
        nodes.add_node(num_gpus=1)
        report = run.result()
    assert (report.written, report.failed) == (100, 0)


def test_a_run_without_workers_waits_for_another_node(
    run_on_nodes: Run, nodes: RayNodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stair_es.ingest.executors.ray._WAITING_S", 12.0)  # longer than Ray repeats a call by itself
    only, done = nodes.add_node(), list[int]()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_on_nodes, 300, lambda accounting: done.append(accounting.done_count))
        poll_until(lambda: bool(done and done[-1] > 20) or run.done())
        nodes.kill_node(only)
        poll_until(lambda: "0 of 1 encoders have started" in caplog.text or run.done())
        assert not run.done()
        nodes.add_node()
        report = run.result()
    assert (report.seen, report.written, report.failed) == (300, 300, 0)
