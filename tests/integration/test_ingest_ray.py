"""Ray: workers that die, a model and settings that each gets, addresses where nobody answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from support.corpora.ingest_sources import ListSource
from support.errors import expect_error
from support.models import tiny_sparse
from support.models.tiny_checkpoints import build_vdr_config, draw_vdr_weights, write_checkpoint

from stair_es.cluster.bulk.writer import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import IngestError, StairError, UsageError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.executors.ray import RayOptions, count_gpu_encoders, open_ray_executor
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster import ClusterSinkWriter
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Batch, Pending
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch
from stair_es.sources.base import Locator, ReadLimits, ReadResult, Source, SourceItem
from stair_es.sources.image.decode import DecodeLimits
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.registry import open_source
from stair_es.types import Json

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
Run = Callable[..., IngestReport]


@dataclass(frozen=True)
class CrashingLocator:
    """A place that kills the process that reads it: always, or until a file says that it did."""

    photo: str
    once: str | None = None

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        if self.once is None or not Path(self.once).exists():
            if self.once:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ReadResult(Path(self.photo).read_bytes())

    def to_json(self) -> dict[str, Json] | None:
        return None


@pytest.fixture
def ray_options(index_name: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(
        alias=index_name,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        runner="ray",
        batch_images=4,
        dead_letters=tmp_path / "letters.jsonl",
    )


@pytest.fixture
def run_on_ray(node_url: str) -> Run:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test

    def run_source(ray_options: IngestOptions, source: Source) -> IngestReport:
        return run_ingest([source], Connection(url=node_url), ray_options, progress=lambda _: None)

    return run_source


def _build_items(count: int, deadly: dict[int, str | None]) -> list[SourceItem]:
    photos = sorted(PHOTOS.glob("*.jpg"))
    locators: list[Locator] = [
        CrashingLocator(str(photos[i]), deadly[i]) if i in deadly else FileLocator(photos[i].as_uri()) for i in range(count)
    ]
    return [SourceItem(f"given:{i}", "given:", locator) for i, locator in enumerate(locators)]


@pytest.mark.parametrize(
    ("address", "kind", "code"),
    [
        ("127.0.0.1:1", IngestError, "ray-unreachable"),
        ("ray://127.0.0.1:1", IngestError, "ray-unreachable"),
        ("nonsense", UsageError, "not-a-ray-address"),
        ("host:port", UsageError, "not-a-ray-address"),
    ],
)
def test_an_address_without_ray_is_reported_at_once(
    run_on_ray: Run, ray_options: IngestOptions, address: str, kind: type[StairError], code: str
) -> None:
    with expect_error(code, kind):
        run_on_ray(replace(ray_options, ray=RayOptions(address=address)), ListSource(_build_items(1, {})))


@pytest.mark.usefixtures("local_ray")
def test_dead_workers_are_replaced(run_on_ray: Run, ray_options: IngestOptions, tmp_path: Path) -> None:
    items = _build_items(20, {7: str(tmp_path / "first"), 13: str(tmp_path / "second")})
    report = run_on_ray(ray_options, ListSource(items))
    assert (report.seen, report.written, report.failed, report.documents) == (20, 20, 0, 20)


@pytest.mark.usefixtures("local_ray")
def test_only_the_image_that_kills_each_worker_fails(run_on_ray: Run, ray_options: IngestOptions) -> None:
    report = run_on_ray(ray_options, ListSource(_build_items(12, {5: None})))
    assert (report.seen, report.written, report.failed) == (12, 11, 1)
    assert report.dead_letters
    [letter] = Path(report.dead_letters).read_text().splitlines()
    assert '"given:5"' in letter
    assert "died" in letter


def _build_worker_config(node_url: str, model: str) -> WorkerConfig:
    writer = ClusterSinkWriter(cluster=Cluster(Connection(url=node_url)), index="none", policy=BulkPolicy())
    return WorkerConfig(
        writer=writer,
        is_empty=True,
        model=ModelSpec(name=model, backend="onnx"),
        model_id="none",
        image_spec=registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec,
        document=DocumentSettings(),
        read_limits=ReadLimits(),
        decode_limits=DecodeLimits(),
    )


def test_unplaceable_encoders_are_dropped(local_ray: Any, node_url: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    class Other:
        def wait_ready(self) -> None:
            pass

    monkeypatch.setattr("stair_es.ingest.executors.ray._START_TIMEOUT_S", 3.0)
    other = local_ray.remote(num_cpus=0.7 * local_ray.cluster_resources()["CPU"])(Other).remote()  # two encoders need half
    local_ray.get(other.wait_ready.remote())
    try:
        with open_ray_executor(_build_worker_config(node_url, "stair-mini"), RayOptions(address="auto", encoders=2)) as executor:
            assert executor.encoders == 1
    finally:
        local_ray.kill(other)


@pytest.mark.usefixtures("local_ray")
def test_an_encoder_that_cannot_start_fails_the_run(node_url: str) -> None:
    config = _build_worker_config(node_url, "there-is-no-such-model")
    photo = next(PHOTOS.glob("*.jpg"))
    with open_ray_executor(config, RayOptions(encoders=1)) as executor:
        prepared = executor.submit("prepare", Batch([Pending(SourceItem(photo.as_uri(), "given:", FileLocator(str(photo))))]))
        with expect_error("encoder-not-started", IngestError) as caught:
            executor.get_result(executor.submit("write", 1 << 20, executor.submit("encode", prepared)))
        assert "there-is-no-such-model" in caught.value.message


@pytest.mark.usefixtures("local_ray")
def test_a_relative_folder_reaches_the_workers_of_ray(
    run_on_ray: Run,
    ray_options: IngestOptions,
    node_url: str,
    client: OpenSearch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's workers load the model themselves, wherever they are; a later search finds it by what the index says."""
    folder = write_checkpoint(tmp_path / "VDR Tiny", build_vdr_config(), draw_vdr_weights())
    _save_pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    ray_options = replace(ray_options, model=ModelSpec(name="VDR Tiny"), ray=RayOptions(encoders=1))
    report = run_on_ray(ray_options, open_source(str(tmp_path / "pictures")))
    assert (report.written, report.failed) == (2, 0)
    monkeypatch.chdir("/")
    index_settings = next(iter(client.indices.get(index=ray_options.alias).values()))["mappings"]["_meta"]["stair_es"]
    assert index_settings["model_name"] == str(folder)
    with ImageSearch(ray_options.alias, url=node_url) as search:
        assert search.encoder.model_id == report.model
        for place in range(2):
            hit = search.search(tmp_path / "pictures" / f"{place}.png").hits[0]
            assert hit.uri.endswith(f"{place}.png")
            assert hit.score == pytest.approx(sum(reason.contribution for reason in hit.contributions), rel=0.01)


def _save_pictures(folder: Path) -> None:
    folder.mkdir()
    for place, pixels_HWC in enumerate(np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)):
        Image.fromarray(pixels_HWC).save(folder / f"{place}.png")


def test_settings_of_the_file_reach_the_workers_of_this_machine(
    node_url: str, index_name: str, client: OpenSearch, tmp_path: Path
) -> None:
    """The file alone names the data folder, and the model whose code may run; each worker loads that model."""
    tiny_sparse.write_image_model(tmp_path / "splade")
    _save_pictures(tmp_path / "pictures")
    settings = f"url = '{node_url}'\nhome = 'home'\ntrust_remote_code = '{tmp_path / 'splade'}'\n[ingest]\nencoders = 1\n"
    (tmp_path / "stair-es.toml").write_text(settings)
    arguments = ["--index", index_name, "--model", "splade", "--ray-address", "local", "--json"]
    base_environment = {name: value for name, value in os.environ.items() if not name.startswith(("STAIR_ES_", "RAY_"))}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("stair-es")), "--config", "stair-es.toml", "ingest", "pictures", *arguments],
        cwd=tmp_path,
        env={**base_environment, "HF_HOME": str(tmp_path / "hf"), "XDG_DATA_HOME": str(tmp_path / "default")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["runner"], report["written"]) == ("ray", 2)
    assert client.count(index=index_name)["count"] == 2
    assert (tmp_path / "home").is_dir()
    assert not (tmp_path / "default").exists()


@pytest.mark.parametrize(
    ("gpus", "share", "fit"),
    [([], 1, 0), ([0, 2], 0, 0), ([1, 1], 0.4, 4), ([2.0], 0.5, 4), ([4], 1 / 3, 12), ([4, 1, 0], 2, 2), ([1], 0.6, 1)],
)
def test_encoders_are_counted_gpu_by_gpu(gpus: list[float], share: float, fit: int) -> None:
    assert count_gpu_encoders(gpus, share) == fit


def test_one_and_a_half_gpus_are_rejected() -> None:
    with expect_error("invalid-gpus-per-encoder", UsageError) as caught:
        count_gpu_encoders([4], 1.5)
    assert "1.5" in caught.value.message
