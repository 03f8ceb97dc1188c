"""Whole ingests into a real node: every image has one outcome, and state is kept in the index."""

from __future__ import annotations

import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from support.commands import CommandRunner
from support.corpora.hostile_files import build_deep_object, build_tar_member
from support.corpora.ingest_sources import PHOTOS, ListSource, build_worker_config, copy_photos
from support.errors import expect_error
from support.plugin_metadata import install_colors_plugin
from support.servers.fault_proxy import Request, Response, start_server

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import make_document_id
from stair_es.errors import IndexMismatch, IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.executors.threads import open_thread_executor
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.ingest.state import Batch, Pending
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.index_info import fetch_index_info
from stair_es.search.query import SearchQuery
from stair_es.sources.base import Source, SourceItem, SourceOptions
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

MODEL = ModelSpec(name="stair-mini", backend="onnx")


@dataclass(frozen=True)
class NodeRuns:
    """Ingests into one alias of the node."""

    client: OpenSearch
    url: str
    options: IngestOptions

    def ingest(self, *sources: Path | Source, **changed: Any) -> IngestReport:  # noqa: ANN401  options of ingest
        opened = [open_source(str(source)) if isinstance(source, Path) else source for source in sources]
        return run_ingest(opened, Connection(url=self.url), replace(self.options, **changed), progress=lambda _: None)

    def read_documents(self, alias: str = "") -> dict[str, dict[str, Any]]:
        hits = self.client.search(index=alias or self.options.alias, body={"size": 1000})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin, in this process but not in Ray's."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture
def runs(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> NodeRuns:
    options = IngestOptions(alias=index_name, model=ModelSpec(name="colors"), dead_letters=tmp_path / "dead" / "letters.jsonl")
    return NodeRuns(client, node_url, options)


def _read_dead_letters(report: IngestReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(str(report.dead_letters)).read_text().splitlines()]


def _get_counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.failed


def test_photos_are_written_once(runs: NodeRuns) -> None:
    count = len(list(PHOTOS.glob("*.jpg")))
    report = runs.ingest(PHOTOS, model=MODEL)
    assert _get_counts(report) == (count, count, 0, 0)
    assert report.dead_letters is None
    assert report.index.startswith(f"{runs.options.alias}-stair-mini")
    assert list(runs.client.indices.get_alias(name=runs.options.alias)) == [report.index]
    assert _get_counts(runs.ingest(PHOTOS, model=MODEL)) == (count, 0, count, 0)

    stored = runs.read_documents()
    assert len(stored) == count
    path = PHOTOS / "tabby-cat.jpg"
    source = stored[make_document_id(path.as_uri())]
    with Image.open(path) as image:
        assert (source["width"], source["height"], source["format"]) == (*image.size, "JPEG")
    assert (source["uri"], source["source"], source["model"]) == (path.as_uri(), PHOTOS.as_uri(), report.model)
    assert (source["name"], source["folder"], source["bytes"]) == (path.name, str(PHOTOS), path.stat().st_size)
    assert datetime.fromisoformat(source["modified_at"]).timestamp() == pytest.approx(path.stat().st_mtime, abs=0.001)
    assert len(source["perceptual_hash"]) == 16
    clauses = [
        {"terms": {"folder": [str(PHOTOS)]}},
        {"terms": {"name": ["tabby-cat.jpg"]}},
        {"range": {"bytes": {"gte": 1000}}},
        {"range": {"modified_at": {"lte": "now"}}},
    ]
    assert runs.client.count(index=runs.options.alias, body={"query": {"bool": {"filter": clauses}}})["count"] == 1
    assert source["thumbnail"].startswith("data:image/webp;base64,")
    assert "cat" in source["top_tokens"]
    assert len(source["top_tokens"]) == min(16, len(source["tokens"]))

    card = registry.resolve_model(MODEL).card
    pixels = decode_image(path.read_bytes(), card.image_spec, DecodeLimits()).pixels_HWC
    [vector] = registry.load_encoder(MODEL).encode_images(pixels[None])
    assert source["tokens"] == pytest.approx(vector.to_dict(), abs=2e-5)


def test_reruns_process_new_and_changed_images(runs: NodeRuns, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 6)
    first, second, *_ = sorted(folder.iterdir())
    assert _get_counts(runs.ingest(folder)) == (6, 6, 0, 0)
    before = runs.read_documents()

    Image.new("RGB", (300, 200), (10, 120, 30)).save(first)
    shutil.copy(PHOTOS / "wall-clock.jpg", folder / "new.jpg")
    assert _get_counts(runs.ingest(folder)) == (7, 2, 5, 0)
    after = runs.read_documents()
    changed = make_document_id(first.as_uri())
    assert after[changed]["sha256"] != before[changed]["sha256"]
    assert after[changed]["tokens"] != before[changed]["tokens"]
    assert after[make_document_id(second.as_uri())] == before[make_document_id(second.as_uri())]
    assert len(after) == 7


def test_hostile_files_have_their_outcome_and_harm_no_other(runs: NodeRuns, tmp_path: Path) -> None:
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

    report = runs.ingest(ListSource(listed), model=MODEL)
    assert _get_counts(report) == (19, 13, 0, 6)
    letters = {Path(letter["uri"]).name: letter for letter in _read_dead_letters(report)}
    assert {name: letter["stage"] for name, letter in letters.items()} == {
        "zero.jpg": "decode",
        "truncated.jpg": "decode",
        "text.jpg": "decode",
        "bomb.png": "decode",
        "loop.jpg": "read",
        "vanishing.jpg": "read",
    }
    assert "15000 x 15000" in letters["bomb.png"]["reason"]
    stored = runs.read_documents()
    assert {path.as_uri() for path in (*good, *odd)} <= {source["uri"] for source in stored.values()}
    assert len(stored) == 13
    assert all(source["tokens"] for source in stored.values())
    assert _get_counts(runs.ingest(folder, model=MODEL)) == (18, 0, 13, 5)


def test_foreign_indices_are_not_written(runs: NodeRuns, tmp_path: Path) -> None:
    folder, foreign = copy_photos(tmp_path / "photos", 1), f"{runs.options.alias}-foreign"
    body = {"mappings": {"properties": {"tokens": {"type": "keyword"}}}, "aliases": {runs.options.alias: {}}}
    runs.client.indices.create(index=foreign, body=body)
    with expect_error("foreign-index", IndexMismatch):
        runs.ingest(folder)
    with expect_error("index-not-an-alias", IndexMismatch):
        runs.ingest(folder, alias=foreign)
    runs.client.indices.create(index=f"{foreign}-2", body={"aliases": {runs.options.alias: {}}})
    with expect_error("alias-of-several-indices", IndexMismatch):
        runs.ingest(folder)
    assert runs.client.count(index=runs.options.alias)["count"] == 0


def test_rejected_documents_fail_and_the_rest_is_written(runs: NodeRuns, tmp_path: Path) -> None:
    folder = copy_photos(tmp_path / "photos", 2)
    Image.new("RGB", (70, 50)).save(folder / "wide.png")
    body = json.loads((Path(__file__).parents[2] / "mappings" / "image.json").read_text())
    body["mappings"]["properties"]["format"] = {"type": "boolean"}  # a user's own mapping that no photo fits
    own = tmp_path / "own.json"
    own.write_text(json.dumps(body))
    report = runs.ingest(folder, sink_options=ClusterSinkOptions(mapping=own))
    assert _get_counts(report) == (3, 0, 0, 3)
    letters = _read_dead_letters(report)
    assert {letter["stage"] for letter in letters} == {"write"}
    assert all("format" in letter["reason"] for letter in letters)


def test_tables_and_tars_are_ingested_past_invalid_members(runs: NodeRuns, tmp_path: Path) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))[:3]
    first, second, third = (photo.read_bytes() for photo in photos)
    members = [
        build_tar_member("a.jpg", first),
        build_tar_member("a.json", b'{"code": "A"}'),
        build_tar_member("b.jpg", second),
        build_tar_member("b.json", b'{"code": ' + build_deep_object() + b"}"),
        build_tar_member("c.jpg", third),
    ]
    (tmp_path / "x.tar").write_bytes(b"".join(members) + bytes(2 * tarfile.BLOCKSIZE))
    rows = [f"{photo},{price},0{price}" for photo, price in zip(photos, ("3", "20.5", "100"), strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(["path,cost,code", *rows]))
    columns = {"x.tar": {"code": "code"}, "x.csv": {"price:float": "cost", "code": "code"}}
    sources = [open_source(str(tmp_path / name), SourceOptions(columns=fields)) for name, fields in columns.items()]
    report = runs.ingest(*sources)
    assert _get_counts(report) == (6, 5, 0, 1)
    assert '"list"' in Path(str(report.dead_letters)).read_text()

    alias = runs.options.alias
    index_info = fetch_index_info(Cluster(Connection(url=runs.url), runs.client), alias)
    vector = SparseVector.from_pairs([("dog", 1.0)])
    assert index_info.list_remarks(SearchQuery(vector=vector, filters=[parse_filter("price:>20")])) == []
    hits = runs.client.search(index=alias, body={"query": parse_filter("price:>20"), "sort": ["price"]})["hits"]["hits"]
    assert [hit["_source"]["price"] for hit in hits] == [20.5, 100.0]
    [remark] = index_info.list_remarks(SearchQuery(vector=vector, filters=[parse_filter("code:>20")]))
    assert "'code' as text" in remark


def test_prices_become_numbers_by_the_remark_on_them(runs: NodeRuns, tmp_path: Path) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))[:2]
    (tmp_path / "shop.csv").write_text(f"file,price\n{photos[0]},9.5\n{photos[1]},20\n")
    body = json.loads((PHOTOS.parents[1] / "mappings" / "image.json").read_text())
    body["mappings"]["properties"]["price"] = {"type": "double"}
    (tmp_path / "own.json").write_text(json.dumps(body))
    alias = runs.options.alias

    def ingest_shop(index: str, *options: str) -> tuple[list[str], str]:
        """Return the remarks, and the type of the field."""
        command = CommandRunner({"STAIR_ES_URL": runs.url, "STAIR_ES_INDEX": index}, "ingest")
        report = command.read_json(tmp_path / "shop.csv", "--model", "colors", "--json", *options)
        [mapping] = runs.client.indices.get_mapping(index=index).values()
        return report["remarks"], mapping["mappings"]["properties"]["price"]["type"]

    [remark], kind = ingest_shop(alias, "--field", "price=price")
    assert kind == "text"
    assert ingest_shop(alias, "--field", "price=price", "--dry-run") == ([remark], "text")
    typed = next(part for part in remark.split() if part.startswith("price:"))
    assert ingest_shop(f"{alias}-typed", "--field", typed) == ([], "float")
    assert ingest_shop(alias, "--field", "price=price", "--mapping", str(tmp_path / "own.json")) == ([], "double")


def test_resync_removes_excluded_files(runs: NodeRuns, tmp_path: Path) -> None:
    """Hidden files and links out of the folder."""
    for photo, place in zip(sorted(PHOTOS.glob("*.jpg")), ("photos/a.jpg", "photos/.old/b.jpg", "private/c.jpg"), strict=False):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / place)
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "private")

    def ingest_photos(*options: str) -> tuple[dict[str, Any], str]:
        command = CommandRunner({"STAIR_ES_URL": runs.url, "STAIR_ES_INDEX": runs.options.alias}, "ingest")
        result = command.run(tmp_path / "photos", "--model", "colors", "--runner", "local", "--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    report, messages = ingest_photos("--hidden", "--follow-links")
    assert report["written"] == 3
    assert "left out" not in messages
    report, messages = ingest_photos("--resync")
    assert (report["seen"], report["unchanged"] + report["written"], report["removed"]) == (1, 1, 2)
    assert all(fact in " ".join(messages.split()) for fact in ("1 hidden file", "--hidden", "1 link", "left out"))
    runs.client.indices.refresh(index=runs.options.alias)
    assert [source["uri"] for source in runs.read_documents().values()] == [(tmp_path / "photos" / "a.jpg").as_uri()]


def test_interrupts_end_the_wait_for_a_cluster(tmp_path: Path) -> None:
    requested = threading.Event()

    def reject_request(_: Request) -> Response:
        requested.set()
        return Response(status=503)

    [item] = open_source(str(copy_photos(tmp_path / "photos", 1))).list_items()
    assert isinstance(item, SourceItem)
    with start_server(reject_request) as url:
        config = build_worker_config(Connection(url=url), BulkPolicy(backoff_s=20, max_backoff_s=20, give_up_after_s=20))
        with suppress(KeyboardInterrupt), open_thread_executor(config, registry.resolve_model(config.model)) as executor:
            encoded = executor.submit("encode", executor.submit("prepare", Batch([Pending(item)])))
            task = executor.submit("write", 1 << 20, encoded)
            assert requested.wait(60)
            raise KeyboardInterrupt
        with expect_error("run-cancelled", IngestError):
            executor.get_result(task)
