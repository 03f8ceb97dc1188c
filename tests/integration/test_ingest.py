"""Whole ingests into a real node: every image has one outcome, and state is kept in the index."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from support.corpora.ingest_sources import PHOTOS, ListSource, copy_photos
from support.servers.fault_proxy import Request, Response, start_server

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.bulk.writer import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_document_id
from stair_es.errors import ClusterError, IndexMismatch, IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import DryRunReport, simulate_ingest
from stair_es.ingest.executors.ray import RayOptions, open_ray_executor
from stair_es.ingest.executors.threads import open_thread_executor
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import StageScheduler
from stair_es.ingest.sinks.cluster import ClusterSinkWriter
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Batch, Pending
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ReadLimits, Source, SourceItem
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Run = Callable[..., IngestReport]


@pytest.fixture
def options(index_name: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(
        alias=index_name, model=ModelSpec(name="stair-mini", backend="onnx"), dead_letters=tmp_path / "dead" / "letters.jsonl"
    )


def _opened(sources: tuple[Path | str | Source, ...]) -> list[Source]:
    return [open_source(str(source)) if isinstance(source, (Path, str)) else source for source in sources]


@pytest.fixture
def run(node_url: str) -> Run:
    def run_(options: IngestOptions, *sources: Path | str | Source) -> IngestReport:
        return run_ingest(_opened(sources), Connection(url=node_url), options, progress=lambda _: None)

    return run_


@pytest.fixture
def dry_run(node_url: str) -> Callable[..., DryRunReport]:
    def dry_run_(options: IngestOptions, *sources: Path | str | Source) -> DryRunReport:
        return simulate_ingest(_opened(sources), Connection(url=node_url), options)

    return dry_run_


def _sources(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    hits = client.search(index=index, body={"size": 1000, "query": {"match_all": {}}})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def _counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.failed


def test_photos_are_written_once(run: Run, options: IngestOptions, client: OpenSearch) -> None:
    count = len(list(PHOTOS.glob("*.jpg")))
    report = run(options, PHOTOS)
    assert _counts(report) == (count, count, 0, 0)
    assert report.dead_letters is None
    assert report.index.startswith(f"{options.alias}-stair-mini")
    assert list(client.indices.get_alias(name=options.alias)) == [report.index]
    assert _counts(run(options, PHOTOS)) == (count, 0, count, 0)

    stored = _sources(client, options.alias)
    assert len(stored) == count
    path = PHOTOS / "tabby-cat.jpg"
    source = stored[make_document_id(path.as_uri())]
    with Image.open(path) as image:
        assert (source["width"], source["height"], source["format"]) == (*image.size, "JPEG")
    assert (source["uri"], source["source"], source["model"]) == (path.as_uri(), PHOTOS.as_uri(), report.model)
    assert (source["name"], source["folder"], source["bytes"]) == (path.name, str(PHOTOS), path.stat().st_size)
    assert datetime.fromisoformat(source["modified_at"]).timestamp() == pytest.approx(path.stat().st_mtime, abs=0.001)
    assert len(source["perceptual_hash"]) == 16
    wanted = {"folder": [str(PHOTOS)], "bytes": {"gte": 1000}, "modified_at": {"lte": "now"}, "name": ["tabby-cat.jpg"]}
    clauses = [{"terms" if isinstance(value, list) else "range": {field: value}} for field, value in wanted.items()]
    assert client.count(index=options.alias, body={"query": {"bool": {"filter": clauses}}})["count"] == 1
    assert source["thumbnail"].startswith("data:image/webp;base64,")
    assert "cat" in source["top_tokens"]
    assert len(source["top_tokens"]) == min(16, len(source["tokens"]))

    card = registry.resolve_model(ModelSpec(name="stair-mini")).card
    pixels = decode_image(path.read_bytes(), card.image_spec, DecodeLimits()).pixels_HWC
    [vector] = registry.load_encoder(options.model).encode_images(pixels[None])
    assert source["tokens"] == pytest.approx(vector.to_dict(), abs=2e-5)


def test_reruns_process_new_and_changed_images(run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 6)
    first, second, *_ = sorted(folder.iterdir())
    assert _counts(run(options, folder)) == (6, 6, 0, 0)
    before = _sources(client, options.alias)

    Image.new("RGB", (300, 200), (10, 120, 30)).save(first)
    shutil.copy(PHOTOS / "wall-clock.jpg", folder / "new.jpg")
    assert _counts(run(options, folder)) == (7, 2, 5, 0)
    after = _sources(client, options.alias)
    changed = make_document_id(first.as_uri())
    assert after[changed]["sha256"] != before[changed]["sha256"]
    assert after[changed]["tokens"] != before[changed]["tokens"]
    assert after[make_document_id(second.as_uri())] == before[make_document_id(second.as_uri())]
    assert len(after) == 7


def test_hostile_files_have_their_outcome_and_harm_no_other(
    run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path
) -> None:
    folder = copy_photos(tmp_path / "photos", 3)
    good = sorted(folder.iterdir())
    photo = good[0].read_bytes()
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(photo[: len(photo) // 2])
    (folder / "text.jpg").write_text("just words")
    Image.new("1", (15_000, 15_000)).save(folder / "bomb.png")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "round").symlink_to(folder)
    odd = [folder / name for name in ("a b.jpg", 'say "x".jpg', "naïve 日本.jpg", "line\nbreak.jpg", "<b>&amp;[red].jpg")]
    for path in odd:
        path.write_bytes(photo)
    Image.new("CMYK", (90, 60), (0, 200, 200, 0)).save(folder / "cmyk.jpg")
    Image.linear_gradient("L").convert("I;16").save(folder / "deep.png")
    Image.new("P", (80, 80)).save(folder / "palette.png", transparency=0)
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    vanishing = folder / "vanishing.jpg"
    vanishing.write_bytes(photo)
    listed = list(open_source(str(folder)).list_items())
    vanishing.unlink()

    report = run(options, ListSource(listed))
    assert _counts(report) == (19, 13, 0, 6)
    assert report.dead_letters is not None
    letters = [json.loads(line) for line in Path(report.dead_letters).read_text().splitlines()]
    reasons = {Path(letter["uri"]).name: (letter["stage"], letter["reason"]) for letter in letters}
    assert {name: stage for name, (stage, _) in reasons.items()} == {
        "zero.jpg": "decode",
        "truncated.jpg": "decode",
        "text.jpg": "decode",
        "bomb.png": "decode",
        "loop.jpg": "read",
        "vanishing.jpg": "read",
    }
    assert "15000 x 15000" in reasons["bomb.png"][1]
    stored = _sources(client, options.alias)
    assert {path.as_uri() for path in (*good, *odd)} <= {source["uri"] for source in stored.values()}
    assert len(stored) == 13
    assert all(source["tokens"] for source in stored.values())
    assert _counts(run(options, folder)) == (18, 0, 13, 5)


def test_index_with_another_mapping_is_unchanged(run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 1)
    foreign = f"{options.alias}-foreign"
    client.indices.create(
        index=foreign, body={"mappings": {"properties": {"tokens": {"type": "keyword"}}}, "aliases": {options.alias: {}}}
    )
    with pytest.raises(IndexMismatch, match="not made by stair-es"):
        run(options, folder)
    with pytest.raises(IndexMismatch, match="not an alias"):
        run(replace(options, alias=foreign), folder)
    assert client.count(index=foreign)["count"] == 0


def test_foreign_index_is_unchanged(run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 1)
    report = run(options, folder)
    mapping = client.indices.get_mapping(index=report.index)[report.index]["mappings"]
    client.indices.put_mapping(index=report.index, body={**mapping, "_meta": {}})
    with pytest.raises(IndexMismatch, match="not made by stair-es"):
        run(options, folder)


def test_an_alias_of_several_indices_is_rejected(run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path) -> None:
    for letter in "ab":
        client.indices.create(index=f"{options.alias}-{letter}", body={"aliases": {options.alias: {}}})
    with pytest.raises(IndexMismatch, match="several"):
        run(options, copy_photos(tmp_path / "photos", 1))


def test_rejected_documents_fail_and_the_rest_is_written(run: Run, options: IngestOptions, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 2)
    Image.new("RGB", (70, 50)).save(folder / "wide.png")
    body = json.loads((Path(__file__).parents[2] / "mappings" / "image.json").read_text())
    body["mappings"]["properties"]["format"] = {"type": "boolean"}  # a user's own mapping that no photo fits
    own = tmp_path / "own.json"
    own.write_text(json.dumps(body))
    report = run(replace(options, sink_options=ClusterSinkOptions(mapping=own)), folder)
    assert _counts(report) == (3, 0, 0, 3)
    assert report.dead_letters is not None
    letters = [json.loads(line) for line in Path(report.dead_letters).read_text().splitlines()]
    assert {letter["stage"] for letter in letters} == {"write"}
    assert all("format" in letter["reason"] for letter in letters)


@pytest.mark.usefixtures("local_ray")
def test_ray_gives_the_same_documents_as_the_local_runner(
    run: Run, options: IngestOptions, client: OpenSearch, tmp_path: Path
) -> None:
    folder = copy_photos(tmp_path / "photos", 20)
    (folder / "zero.jpg").write_bytes(b"")
    ray_options = replace(options, alias=f"{options.alias}-r", runner="ray")
    assert _counts(run(options, folder)) == (21, 20, 0, 1)
    report = run(ray_options, folder)
    assert (_counts(report), report.runner) == ((21, 20, 0, 1), "ray")
    assert set(report.stage_seconds) == {"read", "decode", "encode", "write"}
    assert sum(report.to_dict()["stage_share"].values()) == pytest.approx(1.0, abs=0.01)

    def without_time(alias: str) -> dict[str, dict[str, Any]]:
        return {id_: {**source, "ingested_at": ""} for id_, source in _sources(client, alias).items()}

    assert without_time(ray_options.alias) == without_time(options.alias)
    assert _counts(run(ray_options, folder)) == (21, 0, 20, 1)


def _config(connection: Connection, policy: BulkPolicy | None = None) -> WorkerConfig:
    return WorkerConfig(
        writer=ClusterSinkWriter(cluster=Cluster(connection), index="no", policy=policy or BulkPolicy()),
        is_empty=True,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        model_id="stair-mini-2",
        image_spec=registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec,
        document=DocumentSettings(),
        read_limits=ReadLimits(),
        decode_limits=DecodeLimits(),
    )


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_stage_errors_reach_the_caller_unchanged(node_url: str, runner: str, tmp_path: Path) -> None:
    config = _config(Connection(url=f"{node_url}/no/such/place"))
    source = open_source(str(copy_photos(tmp_path / "photos", 3)))
    opening = (
        open_thread_executor(config, registry.resolve_model(config.model), 2)
        if runner == "local"
        else open_ray_executor(config, RayOptions(), 2)
    )
    with pytest.raises(ClusterError, match="answered 4"), opening as executor, PrefetchQueue(source.list_items(), 10) as queue:
        list(
            StageScheduler(
                executor,
                AdaptiveThrottle(BulkPolicy()),
                config.is_empty,
                lambda found: found if isinstance(found, SourceItem) else None,
            ).run(queue)
        )


def test_interrupts_end_the_wait_for_a_cluster(tmp_path: Path) -> None:
    requested = threading.Event()

    def busy(_: Request) -> Response:
        requested.set()
        return Response(status=503)

    [found] = open_source(str(copy_photos(tmp_path / "photos", 1))).list_items()
    assert isinstance(found, SourceItem)
    with start_server(busy) as url:
        config = _config(Connection(url=url), BulkPolicy(backoff_s=20, max_backoff_s=20, give_up_after_s=20))
        with suppress(KeyboardInterrupt), open_thread_executor(config, registry.resolve_model(config.model)) as executor:
            task = executor.submit(
                "write", 1 << 20, executor.submit("encode", executor.submit("prepare", Batch([Pending(found)])))
            )
            assert requested.wait(60)
            raise KeyboardInterrupt
        with pytest.raises(IngestError, match="cancelled"):
            executor.get_result(task)
