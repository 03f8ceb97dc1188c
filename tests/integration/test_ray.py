"""Ingests and trainings on one Ray session: workers that die, what each of them gets, hosts that ask to wait, training by two."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.commands import CommandRunner
from support.corpora.ingest_sources import ListSource, accept_items, build_worker_config, copy_photos
from support.errors import expect_error
from support.models import tiny_sparse, tiny_training
from support.plugin_metadata import format_python_path, install_colors_plugin
from support.servers.rate_limited_server import start_rate_limited_server

from stair_es import __version__
from stair_es.cluster.client.connection import Connection
from stair_es.errors import ClusterError, IngestError, StairError, UsageError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import DeferredImages
from stair_es.ingest.executors.ray import RayOptions, open_ray_workers
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.portion_scheduler import PortionScheduler
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import Intake
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Outcome
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, Source, SourceItem, SourceOptions, UrlPolicy
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.registry import open_source
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks, StepMetrics
from stair_es.training.ray_train import train_on_ray
from stair_es.training.train import train_model
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


@pytest.fixture(scope="module", autouse=True)
def colors_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model `colors`, here and in the workers of the session: they are restarted often, and it takes no time to load."""
    folder = tmp_path_factory.mktemp("plugin")
    with install_colors_plugin(folder), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", format_python_path(folder))
        yield


@pytest.fixture(scope="module", autouse=True)
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the code of checkpoints, here and in the workers of the session: not that of the user."""
    import transformers.dynamic_module_utils

    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HF_MODULES_CACHE", folder)
        monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", folder)
        yield


@pytest.fixture
def ray_options(index_name: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(
        alias=index_name,
        model=ModelSpec(name="colors"),
        runner="ray",
        ray=RayOptions(encoders=1),
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
        pytest.param("127.0.0.1:1", IngestError, "ray-unreachable", marks=pytest.mark.nightly("Ray waits 20 s for an address")),
        pytest.param("ray://127.0.0.1:1", IngestError, "ray-unreachable", marks=pytest.mark.nightly("Ray waits for an address")),
        ("nonsense", UsageError, "not-a-ray-address"),
        ("host:port", UsageError, "not-a-ray-address"),
    ],
)
def test_an_address_without_ray_is_reported_at_once(
    run_on_ray: Run, ray_options: IngestOptions, address: str, kind: type[StairError], code: str
) -> None:
    """The first test of this file: an open session would be used instead."""
    with expect_error(code, kind):
        run_on_ray(replace(ray_options, ray=RayOptions(address=address)), ListSource(_build_items(1, {})))


@pytest.mark.usefixtures("local_ray")
def test_only_the_image_that_kills_each_worker_fails(
    run_on_ray: Run, ray_options: IngestOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stair_es.ingest.portion_scheduler._MAX_DEATHS_ALONE", 1)
    report = run_on_ray(ray_options, ListSource(_build_items(12, {1: str(tmp_path / "killed"), 5: None})))
    assert (tmp_path / "killed").exists()
    assert (report.seen, report.written, report.failed, report.documents) == (12, 11, 1, 11)
    assert report.dead_letters
    [letter] = Path(report.dead_letters).read_text().splitlines()
    assert '"given:5"' in letter
    assert "died" in letter


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_retry_after_loses_no_image_and_delays_no_other_host(
    node_url: str, ray_options: IngestOptions, runner: Literal["local", "ray"]
) -> None:
    retry_after_s, times_s, messages = 3.0, list[float](), list[str]()
    read_limits = ReadLimits(url_policy=UrlPolicy(allow_private=True, patience_s=60.0))
    options = replace(ray_options, runner=runner, source=SourceOptions(read_limits=read_limits))
    with start_rate_limited_server() as server:

        def delay_first_host(path: str) -> float | None:
            if path.startswith("/b"):
                return None
            times_s.append(time.monotonic())
            return retry_after_s if sum(path.startswith("/b") for _, path in server.requests) < 20 else None

        server.get_retry_after = delay_first_host
        mixed = [item for pair in zip(server.list_items("a", 20), server.list_items("b", 20), strict=True) for item in pair]
        report = run_ingest(
            [ListSource(mixed)],
            Connection(url=node_url),
            options,
            progress=lambda accounting: messages.append(accounting.waiting_message),
        )
    assert (report.seen, report.written, report.failed) == (40, 40, 0)  # b's images are read while a's wait, or none of a's is
    assert sum(time_s < times_s[0] + retry_after_s for time_s in times_s) <= 10  # one of each batch that was under way
    assert any("127.0.0.1" in message for message in messages)
    assert messages[-1] == ""


@pytest.mark.usefixtures("local_ray")
def test_ray_writes_the_documents_of_the_local_runner(
    client: OpenSearch, node_url: str, index_name: str, ray_options: IngestOptions, tmp_path: Path
) -> None:
    folder = copy_photos(tmp_path / "photos", 20)
    (folder / "zero.jpg").write_bytes(b"")

    def ingest_photos(runner: Literal["local", "ray"]) -> tuple[tuple[int, int, int, int], IngestReport]:
        options = replace(ray_options, alias=f"{index_name}-{runner}", runner=runner, ray=RayOptions())
        report = run_ingest([open_source(str(folder))], Connection(url=node_url), options, progress=lambda _: None)
        return (report.seen, report.written, report.unchanged, report.failed), report

    def read_documents(runner: str) -> dict[str, dict[str, Any]]:
        hits = client.search(index=f"{index_name}-{runner}", body={"size": 1000})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    assert ingest_photos("local")[0] == (21, 20, 0, 1)
    counts, report = ingest_photos("ray")
    assert (counts, report.runner) == ((21, 20, 0, 1), "ray")
    assert set(report.stage_seconds) == {"read", "decode", "encode", "write"}
    assert sum(report.to_dict()["stage_share"].values()) == pytest.approx(1.0, abs=0.01)
    local, by_ray = read_documents("local"), read_documents("ray")
    assert by_ray == {id_: {**local[id_], "ingested_at": source["ingested_at"]} for id_, source in by_ray.items()}
    assert by_ray.keys() == local.keys()
    assert ingest_photos("ray")[0] == (21, 0, 20, 1)


def _run_portions(config: WorkerConfig, options: RayOptions, items: Sequence[SourceItem]) -> list[Outcome]:
    intake = Intake(accept_items, DeferredImages(), BulkStats())
    with open_ray_workers(options) as workers, PrefetchQueue[SourceItem | ListingFailure](items, 10) as queue:
        workers.start(config, 2)
        batches = PortionScheduler(workers, intake, config.bulk).run(queue)
        return [outcome for batch in batches for outcome in batch.get_outcomes()]


def test_a_worker_without_room_is_not_waited_for(local_ray: Any, node_url: str) -> None:  # noqa: ANN401
    class Other:
        def wait_ready(self) -> None:
            pass

    other = local_ray.remote(num_cpus=local_ray.cluster_resources()["CPU"] / 2)(Other).remote()  # two encoders need all
    local_ray.get(other.wait_ready.remote())
    config = build_worker_config(Connection(url=f"{node_url}/no/such/place"))
    try:
        with pytest.raises(ClusterError, match=r"\b40\d\b"):  # the first worker began
            _run_portions(config, RayOptions(encoders=2), _build_items(3, {}))
    finally:
        local_ray.kill(other)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("changes", "code", "facts"),
    [
        ({"model": ModelSpec(name="there-is-no-such-model")}, "unknown-model", ["there-is-no-such-model"]),
        ({"model_id": "another-model-7"}, "worker-with-other-model", ["another-model-7", "stair-mini"]),
        ({"packages": {"stair-es": "0.0.7"}}, "worker-with-other-packages", ["0.0.7", __version__]),
    ],
    ids=["no-model", "other-model", "other-version"],
)
def test_a_worker_that_differs_from_the_driver_encodes_nothing(
    node_url: str, changes: dict[str, Any], code: str, facts: list[str]
) -> None:
    config = replace(build_worker_config(Connection(url=node_url)), **changes)
    with expect_error(code, IngestError) as caught:
        _run_portions(config, RayOptions(), _build_items(3, {}))
    assert all(fact in caught.value.message for fact in facts)


@pytest.mark.usefixtures("local_ray")
def test_a_worker_trusts_the_code_that_its_driver_trusts(node_url: str, tmp_path: Path) -> None:
    tiny_sparse.write_page_model(tmp_path / "pages")
    untrusting = replace(build_worker_config(Connection(url=node_url)), model=ModelSpec(name=str(tmp_path / "pages")))
    trusting = replace(untrusting, trusted_code=frozenset({tiny_sparse.build_trust(tmp_path / "pages")}))
    for config, code in ((untrusting, "remote-code-not-trusted"), (trusting, "worker-with-other-model")):
        with expect_error(code, IngestError):
            _run_portions(config, RayOptions(), _build_items(3, {}))


@pytest.mark.nightly("sessions of their own")
@pytest.mark.usefixtures("local_ray")
def test_relative_folder_and_settings_file_reach_the_workers(
    node_url: str, index_name: str, client: OpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone names the data folder, and the model whose code may run. A later search finds it by what the index says."""
    model = tmp_path / "splade"
    tiny_sparse.write_image_model(model)
    (tmp_path / "pictures").mkdir()
    for place, pixels_HWC in enumerate(np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)):
        Image.fromarray(pixels_HWC).save(tmp_path / "pictures" / f"{place}.png")
    settings = (
        f"url = '{node_url}'\nhome = 'home'\ntrust_remote_code = '{tiny_sparse.build_trust(model)}'\n[ingest]\nencoders = 1\n"
    )
    (tmp_path / "stair-es.toml").write_text(settings)
    monkeypatch.chdir(tmp_path)
    unset = dict.fromkeys(name for name in os.environ if name.startswith("STAIR_ES_"))
    command = CommandRunner({**unset, "XDG_DATA_HOME": str(tmp_path / "default")}, "--config", "stair-es.toml")
    report = command.read_json("ingest", "pictures", "--index", index_name, "--model", "splade", "--ray-address", "local")
    assert (report["runner"], report["written"], report["failed"]) == ("ray", 2, 0)
    assert (tmp_path / "home").is_dir()
    assert not (tmp_path / "default").exists()
    monkeypatch.chdir("/")
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STAIR_ES_TRUST_REMOTE_CODE", tiny_sparse.build_trust(model))
    metadata = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert metadata["model_name"] == str(model)
    with ImageSearch(index_name, url=node_url) as search:
        assert search.encoder.model_id == report["model"]
        [hit, *_] = search.search(tmp_path / "pictures" / "0.png").hits
        assert hit.score == pytest.approx(sum(reason.contribution for reason in hit.contributions), rel=0.01)


TRAINING = {"optim.lr": 1e-3, "optim.backbone_lr": 1e-4, "validation.keep": "last", "model.text.backbone.name": "text"}


@pytest.fixture
def training_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    tiny_training.write_set(tmp_path / "set", dropout=0.0)
    return tmp_path / "set"


def _read_losses(out: Path) -> list[float]:
    with (out / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]


@pytest.mark.nightly("training on Ray; test_torchrun compares two workers with one")
@pytest.mark.usefixtures("local_ray")
def test_two_training_workers_match_one(training_folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(training_folder, TRAINING)
    alone = train_model(config, tmp_path / "alone", device="cpu")
    messages: list[str] = []
    metrics: list[StepMetrics] = []
    callbacks = Callbacks(on_message=messages.append, on_metrics=metrics.append, on_progress=lambda what, done, total: None)
    together = train_on_ray(config, tmp_path / "together", callbacks, workers=2, device="cpu")
    assert (together.steps, together.pairs, together.best_step) == (alone.steps, alone.pairs, alone.best_step)
    assert _read_losses(tmp_path / "together") == pytest.approx(_read_losses(tmp_path / "alone"), rel=1e-3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "together"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name].float(), tensor.float(), atol=2e-3, rtol=1e-3, msg=name)
    assert [step_metrics.step for step_metrics in metrics if "loss" in step_metrics.values] == [1, 2, 3, 4, 5, 6]
    assert sum(line.startswith("model: ") for line in messages) == 1  # the first worker alone speaks
    messages.clear()
    with expect_error("state-of-other-training", UsageError):  # the error of a worker, as it was raised there
        train_on_ray(
            tiny_training.read_config(training_folder, {**TRAINING, "seed": 5}),
            tmp_path / "together",
            callbacks,
            workers=1,
            device="cpu",
        )
    assert not [line for line in messages if "restarting" in line]


@pytest.mark.nightly("training on Ray goes on after a lost worker")
@pytest.mark.usefixtures("local_ray")
def test_a_lost_worker_that_reads_shards_restarts_bit_for_bit(training_folder: Path, tmp_path: Path) -> None:
    shards = tiny_training.write_shards(training_folder)
    config = tiny_training.read_config(training_folder, {**TRAINING, **shards, "recipe.steps": 40, "validation.every": 3})
    train_on_ray(config, tmp_path / "straight", NO_CALLBACKS, workers=2, device="cpu")
    messages: list[str] = []
    killed: list[int] = []

    def kill_worker(metrics: StepMetrics) -> None:
        if metrics.step >= 7 and not killed:
            own = {each.pid for each in psutil.Process().children(recursive=True)}
            family = [each for each in psutil.process_iter(["cmdline", "create_time", "ppid"]) if each.pid in own]
            workers = [each for each in family if "RayTrainWorker" in str(each.info["cmdline"])]
            workers = [
                each for each in workers if each.info["ppid"] not in {other.pid for other in workers}
            ]  # without their readers
            process = max(workers, key=lambda each: float(each.info["create_time"]))
            killed.append(process.pid)
            process.kill()

    callbacks = Callbacks(on_message=messages.append, on_metrics=kill_worker, on_progress=lambda what, done, total: None)
    result = train_on_ray(config, tmp_path / "killed", callbacks, workers=2, device="cpu")
    assert (result.steps, len(killed)) == (40, 1)
    assert [line for line in messages if "restarting" in line and "(1 of 3)" in line]
    for name in ("model.safetensors", "log.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
