"""Forgotten images: nothing of them is left in any index, and no ingest takes them in again, unless asked."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.commands import CommandRunner
from support.corpora.ingest_sources import PHOTOS, copy_photo, list_images
from support.errors import expect_error
from support.messages import forward_messages
from support.paused_runs import PauseOnce
from support.plugin_metadata import install_colors_plugin
from support.servers.fault_proxy import Fault, FaultProxy, Request, Response

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_document_id
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import ClusterError, IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import simulate_ingest
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks import forgotten
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.ingest.sinks.forgotten import ForgetManager, ForgottenList
from stair_es.ingest.texts import TextIngestOptions, open_text_source
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source
from stair_es.token_policy import TokenPolicy

NAMES = ("tabby-cat", "dairy-cow", "wall-clock")
WITH_TOKENS = ClusterSinkOptions(token_index=True)
BY_CONTENT = DocumentSettings(id="content-hash")


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


class ForgetRuns:
    """Ingests of one folder into one alias, and an independent look at what is stored."""

    def __init__(self, url: str, alias: str, folder: Path) -> None:
        self.url, self.alias, self.folder, self.messages = url, alias, folder, list[str]()
        self.cluster = Cluster(Connection(url=url))
        self.client = self.cluster.client
        self.manager = ForgetManager(self.cluster, alias)
        self.options = IngestOptions(
            alias=alias, model=ModelSpec(name="colors"), dead_letters=folder.parent / "failed.jsonl", sink_options=WITH_TOKENS
        )

    def add_photo(self, name: str, photo: str = "") -> str:
        """Copy a photo into the folder, and return its URI."""
        path = self.folder / f"{name}.jpg"
        copy_photo(PHOTOS / f"{photo or name}.jpg", path)
        return path.as_uri()

    def get_uri(self, name: str) -> str:
        return (self.folder / f"{name}.jpg").as_uri()

    def ingest(self, url: str = "", **changed: Any) -> IngestReport:  # noqa: ANN401
        """Ingest the folder; the counts must add up."""
        options = replace(self.options, **changed)
        with forward_messages(self.messages.append):
            source = open_source(str(self.folder))
            report = run_ingest([source], Connection(url=url or self.url), options, progress=lambda _: None)
        assert report.seen == report.written + report.unchanged + report.failed + report.forgotten
        return report

    def count_ingested(self, **changed: Any) -> tuple[int, int, int]:  # noqa: ANN401
        """Ingest the folder, and return how many images were written, unchanged and forgotten."""
        report = self.ingest(**changed)
        assert report.failed == 0
        return report.written, report.unchanged, report.forgotten

    def list_stored(self, *fragments: str) -> dict[str, set[str]]:
        """Map each index below the alias, hidden ones, too, to the URIs that its documents have."""
        self.client.indices.refresh(index=f"{self.alias}*", params={"expand_wildcards": "all"})
        params = {"expand_wildcards": "all", "size": "1000"}
        hits = self.client.search(index=f"{self.alias}*", params=params)["hits"]["hits"]
        stored: dict[str, set[str]] = {}
        for hit in hits:
            text = json.dumps(hit["_source"])
            stored.setdefault(hit["_index"], set()).update(uri for uri in fragments if json.dumps(uri)[1:-1] in text)
        return {index: uris for index, uris in stored.items() if uris}

    def forget(self, *uris: str, **options: bool) -> list[int]:
        """Forget images, and return the number of removed documents of each; assert that nothing names them afterwards."""
        images = self.manager.forget(uris, **options)
        assert self.list_stored(*(image.uri for image in images)) == {}
        return [sum(count for index, count in image.documents.items() if not index.endswith(".tokens")) for image in images]


def build_runs(url: str, alias: str, tmp_path: Path) -> ForgetRuns:
    (tmp_path / "photos").mkdir()
    runs = ForgetRuns(url, alias, tmp_path / "photos")
    for name in NAMES:
        runs.add_photo(name)
    return runs


@pytest.fixture
def engine_runs(rank_features_url: str, engine_index: str, tmp_path: Path) -> ForgetRuns:
    """On each engine."""
    return build_runs(rank_features_url, engine_index, tmp_path)


@pytest.fixture
def runs(node_url: str, index_name: str, tmp_path: Path) -> ForgetRuns:
    return build_runs(node_url, index_name, tmp_path)


def test_forgotten_image_is_gone_and_stays_out_until_it_is_restored(engine_runs: ForgetRuns) -> None:
    cat = engine_runs.get_uri("tabby-cat")
    live = engine_runs.ingest().index
    assert set(engine_runs.list_stored(cat)) == {live, f"{live}.tokens"}
    [looked] = engine_runs.manager.forget([cat], dry_run=True)
    assert (looked.documents, len(engine_runs.list_stored(cat))) == ({live: 1}, 2)
    [image] = engine_runs.manager.forget([cat])
    assert (image.documents[live], image.documents[f"{live}.tokens"] > 1) == (1, True)
    assert engine_runs.list_stored(cat) == {}
    assert engine_runs.forget(cat, "file:///never-seen.jpg") == [0, 0]
    counts = simulate_ingest([open_source(str(engine_runs.folder))], Connection(url=engine_runs.url), engine_runs.options)
    assert (counts.forgotten, counts.unchanged, counts.new) == (1, 2, 0)
    assert engine_runs.count_ingested() == (0, 2, 1)
    found = {hit["_index"] for hit in engine_runs.client.search(index=f"{engine_runs.alias}*", size=1000)["hits"]["hits"]}
    assert found == {live, f"{live}.tokens"}  # the list is hidden
    assert engine_runs.manager.restore([cat, "file:///other.jpg"]) == {cat: True, "file:///other.jpg": False}
    assert engine_runs.count_ingested() == (1, 2, 0)


def test_images_of_elasticsearch_9_are_forgotten(
    elasticsearch9_url: str, make_index_name: Callable[[str], str], tmp_path: Path
) -> None:
    runs = build_runs(elasticsearch9_url, make_index_name(elasticsearch9_url), tmp_path)
    runs.options = replace(runs.options, document=DocumentSettings(vector="sparse_vector"))
    runs.ingest()
    assert runs.forget(runs.get_uri("tabby-cat")) == [1]
    assert runs.count_ingested() == (0, 2, 1)
    assert set(runs.manager.repeat().values()) == {0}


def test_all_indices_lose_the_image_and_a_build_leaves_it_out(runs: ForgetRuns) -> None:
    cat = runs.get_uri("tabby-cat")
    retired = runs.ingest().index
    live = runs.ingest(document=DocumentSettings(thumbnail_px=0)).index
    third = DocumentSettings(thumbnail_px=32)
    build = runs.ingest(document=third, sink_options=replace(WITH_TOKENS, swap="never")).index
    images = {retired, live, build}
    assert set(runs.list_stored(cat)) == {*images, *(f"{name}.tokens" for name in images)}
    assert runs.forget(cat) == [3]
    assert runs.count_ingested(document=third) == (0, 2, 1)
    assert runs.count_ingested(document=DocumentSettings(thumbnail_px=48)) == (2, 0, 1)
    assert runs.count_ingested(document=DocumentSettings(thumbnail_px=48), resync=True) == (0, 2, 1)


def test_a_document_stands_for_its_pages(runs: ForgetRuns) -> None:
    path = runs.folder / "scan.tif"
    pages = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "green")]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert runs.ingest().written == 6
    assert runs.forget(f"{path.as_uri()}#page=2") == [1]
    assert runs.count_ingested() == (0, 5, 1)
    assert runs.forget(path.as_uri()) == [2]
    assert runs.count_ingested() == (0, 3, 3)
    path.rename(runs.folder / "renamed.tif")
    assert runs.count_ingested() == (0, 3, 3)
    assert runs.manager.restore([path.as_uri()]) == {path.as_uri(): True}
    assert runs.count_ingested() == (2, 3, 1)  # one page was forgotten by its own


def test_a_row_is_kept_out_by_its_content(runs: ForgetRuns, tmp_path: Path) -> None:
    """Its address is a position, which the next row takes when it is deleted."""
    rows = [json.dumps({"image": base64.b64encode((PHOTOS / f"{name}.jpg").read_bytes()).decode()}) + "\n" for name in NAMES]
    runs.folder = tmp_path / "rows.jsonl"
    runs.folder.write_text("".join(rows))
    second = list_images(runs.folder)[1].uri
    assert runs.ingest().written == 3
    assert runs.forget(second) == [1]
    assert runs.count_ingested() == (0, 2, 1)
    runs.folder.write_text(rows[0] + rows[2])
    assert runs.count_ingested() == (1, 1, 0)
    runs.folder.write_text(rows[0] + rows[2] + rows[1])
    assert runs.count_ingested() == (0, 2, 1)
    assert runs.manager.restore([second]) == {second: True}
    assert runs.count_ingested() == (1, 2, 0)


@pytest.mark.parametrize("document", [DocumentSettings(), BY_CONTENT], ids=["uri", "content"])
def test_the_content_is_forgotten_unless_another_image_keeps_it(runs: ForgetRuns, document: DocumentSettings) -> None:
    runs.options = replace(runs.options, document=document)
    cow = runs.add_photo("cow", "dairy-cow") if document == DocumentSettings() else ""
    runs.ingest()
    [cat, clock] = map(runs.get_uri, ("tabby-cat", "wall-clock"))
    assert runs.forget(cat, clock) == [1, 1]
    runs.add_photo("renamed", "tabby-cat")
    assert runs.count_ingested() == (0, 2 if cow else 1, 3)
    if cow:
        [image] = runs.manager.forget([cow], dry_run=True)
        assert (image.copies, image.copy_count) == ((runs.get_uri("dairy-cow"),), 1)
        assert runs.forget(cow) == [1]
        assert runs.count_ingested() == (0, 1, 4)
        assert runs.count_ingested(document=DocumentSettings(thumbnail_px=0)) == (1, 0, 4)
        assert runs.manager.restore([cow]) == {cow: True}
        assert runs.count_ingested(document=DocumentSettings(thumbnail_px=0)) == (1, 1, 3)
        assert runs.forget(cow, same_content=True) == [1, 2]  # one of the other is in the retired index
        assert runs.count_ingested(document=DocumentSettings(thumbnail_px=0)) == (0, 0, 5)


def test_copies_are_counted_and_some_of_them_named(runs: ForgetRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "_PAGE_SIZE", 2)
    monkeypatch.setattr(forgotten, "MAX_NAMED_COPIES", 2)
    for number in range(5):
        runs.add_photo(f"copy-{number}", "tabby-cat")
    runs.ingest()
    [image] = runs.manager.forget([runs.get_uri("tabby-cat")])
    assert (image.copy_count, len(image.copies)) == (5, 2)
    assert runs.forget(*image.copies, same_content=True) == [1] * 5


def test_include_forgotten_takes_images_in_and_off_the_list(runs: ForgetRuns) -> None:
    runs.ingest()
    cat = runs.get_uri("tabby-cat")
    runs.forget(cat)
    assert runs.count_ingested() == (0, 2, 1)
    assert runs.count_ingested(include_forgotten=True) == (1, 2, 0)
    assert ForgottenList(runs.cluster, runs.alias).find_ids([make_document_id(cat)]) == set()
    assert runs.count_ingested(document=DocumentSettings(thumbnail_px=0)) == (3, 0, 0)


@pytest.mark.parametrize("has_list", [False, True])
@pytest.mark.parametrize("document", [DocumentSettings(), BY_CONTENT], ids=["uri", "content"])
def test_an_image_that_is_forgotten_during_a_run_is_deleted_at_its_end(
    runs: ForgetRuns, has_list: bool, document: DocumentSettings
) -> None:
    cat = runs.get_uri("tabby-cat")
    runs.ingest(document=document)
    if has_list:
        runs.forget("file:///other.jpg")
    for name in NAMES:
        copy_photo(
            PHOTOS / "kingfisher.jpg" if name == "tabby-cat" else PHOTOS / f"{name}.jpg", runs.folder / f"{name}.jpg", 1.6e9
        )
    copy_photo(PHOTOS / "red-panda.jpg", runs.folder / "another.jpg")
    plan = PauseOnce(lambda: runs.manager.forget([cat]))
    with FaultProxy(runs.url, plan) as proxy:
        report = runs.ingest(proxy.url, document=document)
    assert plan.done, plan.error
    assert report.failed == 0
    assert runs.list_stored(cat) == {}
    assert any("forgotten during this run" in message for message in runs.messages)
    assert runs.ingest(document=document).forgotten == 1


def test_a_run_that_fails_deletes_it_as_well(runs: ForgetRuns) -> None:
    cat = runs.get_uri("tabby-cat")
    live = runs.ingest().index
    copy_photo(PHOTOS / "kingfisher.jpg", runs.folder / "tabby-cat.jpg", 1.6e9)

    def forget_and_restore() -> None:
        [hit] = runs.client.search(index=live, body={"query": {"term": {"uri": cat}}})["hits"]["hits"]
        runs.manager.forget([cat])
        runs.client.index(index=live, id=hit["_id"], body=hit["_source"])  # as another request of the run
        raise IngestError("the run ends here")

    plan = PauseOnce(forget_and_restore, lambda request: request.is_bulk and b'"delete"' not in request.body)
    with FaultProxy(runs.url, plan) as proxy, pytest.raises(ClusterError):
        runs.ingest(proxy.url)
    assert isinstance(plan.error, IngestError)
    assert runs.list_stored(cat) == {}


@pytest.fixture
def interrupted_runs(runs: ForgetRuns) -> ForgetRuns:
    """A `forget` of the cat ended after the list was written, and before the document was deleted."""
    live = runs.ingest().index

    def refuse_deletion(request: Request) -> Fault | None:
        is_deletion = request.is_bulk and request.path.startswith(f"/{live}")
        return Fault("refused", lambda *_: Response.json({"error": "stopped"}, 401)) if is_deletion else None

    cat = runs.get_uri("tabby-cat")
    with FaultProxy(runs.url, refuse_deletion) as proxy, pytest.raises(ClusterError):
        ForgetManager(Cluster(Connection(url=proxy.url)), runs.alias).forget([cat])
    assert live in runs.list_stored(cat)
    return runs


def _ingest_again(runs: ForgetRuns) -> None:
    assert runs.count_ingested() == (0, 2, 1)


def _forget_again(runs: ForgetRuns) -> None:
    assert runs.forget(runs.get_uri("tabby-cat")) == [1]


def _repeat(runs: ForgetRuns) -> None:
    assert sum(runs.manager.repeat().values()) == 1


@pytest.mark.parametrize("complete", [_ingest_again, _forget_again, _repeat])
def test_an_interrupted_forget_is_completed(interrupted_runs: ForgetRuns, complete: Callable[[ForgetRuns], None]) -> None:
    complete(interrupted_runs)
    cat = interrupted_runs.get_uri("tabby-cat")
    assert interrupted_runs.list_stored(cat) == {}
    interrupted_runs.add_photo("renamed", "tabby-cat")  # its content was listed, too
    assert interrupted_runs.count_ingested() == (0, 2, 2)


def test_a_restored_document_is_removed_again(runs: ForgetRuns) -> None:
    live = runs.ingest().index
    cat = runs.get_uri("tabby-cat")
    before = runs.client.search(index=live, body={"query": {"term": {"uri": cat}}})["hits"]["hits"]
    runs.forget(cat)
    for hit in before:
        runs.client.index(index=live, id=hit["_id"], body=hit["_source"])
    assert runs.manager.repeat() == {live: 1}
    assert runs.list_stored(cat) == {}


def test_a_document_that_is_written_again_and_again_is_an_error(runs: ForgetRuns) -> None:
    live = runs.ingest().index
    id_ = make_document_id(runs.get_uri("tabby-cat"))
    answer = {"items": [{"delete": {"_id": id_, "_index": live, "status": 200, "result": "deleted"}}]}

    def pretend_deletion(request: Request) -> Fault | None:
        is_deletion = request.is_bulk and request.path.startswith(f"/{live}")
        return Fault("pretended", lambda *_: Response.json(answer)) if is_deletion else None

    with FaultProxy(runs.url, pretend_deletion) as proxy, expect_error("forgotten-images-written-again"):
        ForgetManager(Cluster(Connection(url=proxy.url)), runs.alias).forget([runs.get_uri("tabby-cat")])


def test_parallel_changes_lose_no_entry(runs: ForgetRuns) -> None:
    runs.ingest()
    uris = [runs.get_uri(name) for name in NAMES] + [f"file:///{number}.jpg" for number in range(5)]
    start = threading.Barrier(len(uris) + 1, timeout=60)

    def forget(uri: str) -> None:
        start.wait()
        ForgetManager(runs.cluster, runs.alias).forget([uri])

    def apply_policy() -> None:
        start.wait()
        PolicyManager(runs.cluster, runs.alias).apply_policy(TokenPolicy(mute=("black",)), UpdateLimits(), lambda _: None)

    with ThreadPoolExecutor(len(uris) + 1) as pool:
        futures = [pool.submit(apply_policy), *(pool.submit(forget, uri) for uri in uris)]
        for future in futures:
            future.result()
    ids = {make_document_id(uri) for uri in uris}
    assert ForgottenList(runs.cluster, runs.alias).find_ids(ids) == ids
    assert runs.list_stored(*uris) == {}


def test_more_images_than_a_request_and_longer_names_than_the_index_has(
    runs: ForgetRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "_BATCH_URIS", 2)
    live = runs.ingest().index
    long = "https://x.test/" + "x" * 9000
    runs.client.index(index=live, id=make_document_id(long), body={"uri": long})
    scan = "s3://bucket/a#b.pdf"  # a key may have a #
    for uri in (f"{scan}#page=1", f"{scan}#page=2", f"{scan}x"):
        runs.client.index(index=live, id=make_document_id(uri), body={"uri": uri})
    assert runs.forget(*map(runs.get_uri, NAMES), long, f"{scan}#page=2") == [1, 1, 1, 1, 1]
    [image] = runs.manager.forget([scan])
    assert image.documents == {live: 1}
    assert runs.list_stored(f"{scan}#", f"{scan}x") == {live: {f"{scan}x"}}
    assert ForgottenList(runs.cluster, runs.alias).find_ids([make_document_id(long)])


def test_texts_are_forgotten_too(runs: ForgetRuns) -> None:
    (path := runs.folder.parent / "texts.txt").write_text("red\nblue\nred\n")
    options = TextIngestOptions(alias=runs.alias, model=ModelSpec(name="colors"), dead_letters=runs.options.dead_letters)

    def ingest_texts() -> tuple[int, int, int]:
        report = run_ingest([open_text_source(str(path))], Connection(url=runs.url), options, progress=lambda _: None)
        return report.written, report.unchanged, report.forgotten

    assert ingest_texts() == (2, 1, 0)
    assert runs.forget(f"{path.as_uri()}#line=1") == [1]
    assert ingest_texts() == (0, 1, 2)


def test_only_indices_of_stair_es_lose_documents(runs: ForgetRuns) -> None:
    cat = runs.get_uri("tabby-cat")
    with expect_error("not-alias-of-one-index"):
        runs.manager.forget([cat])
    catalog = f"{runs.alias}-catalog"
    meta = {"stair_es": {"format_version": 2, "model": "colors-1"}}
    runs.client.indices.create(
        index=catalog, body={"mappings": {"_meta": meta, "properties": {"uri": {"type": "keyword"}}}, "aliases": {runs.alias: {}}}
    )
    runs.client.index(index=catalog, id="1", body={"uri": cat, "price": 3}, params={"refresh": "true"})
    with expect_error("documents-of-another-program"):
        runs.manager.forget([cat])
    assert runs.client.count(index=catalog)["count"] == 1


def test_the_name_of_the_list_may_be_taken(runs: ForgetRuns) -> None:
    runs.ingest()
    runs.client.indices.create(index=f"{runs.alias}.forgotten")
    with expect_error("forgotten-list-name-taken"):
        runs.manager.forget([runs.get_uri("tabby-cat")])
    assert runs.list_stored(runs.get_uri("tabby-cat")) != {}


def test_the_command_prints_a_receipt(runs: ForgetRuns, tmp_path: Path) -> None:
    run = CommandRunner({"STAIR_ES_URL": runs.url, "STAIR_ES_INDEX": runs.alias, "STAIR_ES_HOME": str(tmp_path / "home")})
    broken = runs.folder / "broken.jpg"
    broken.write_bytes(b"no image")
    assert run.run("ingest", runs.folder, "--model", "colors").exit_code == 3
    [letters] = (tmp_path / "home" / "dead-letters").iterdir()
    (listed := tmp_path / "uris.txt").write_text(f"{broken}\n\n{runs.get_uri('tabby-cat')}\n")
    looked = run.read_json("forget", "--from-file", listed, "--dry-run")
    assert (looked["dry_run"], looked["documents"], letters.exists()) == (True, 1, True)
    receipt = run.read_json("forget", "--from-file", listed)
    assert [(image["uri"], len(image["documents"])) for image in receipt["images"]] == [
        (broken.as_uri(), 0),
        (runs.get_uri("tabby-cat"), 1),
    ]
    assert (receipt["documents"], receipt["dead_letters"], letters.exists()) == (1, {str(letters): 1}, False)
    assert {"place", "detail", "remedy"} == set(receipt["not_reached"][0])
    assert run.read_json("ingest", runs.folder, "--model", "colors")["forgotten"] == 2
    assert "2 forgotten" in run.read_output("ingest", runs.folder, "--model", "colors")
    assert run.read_json("forget", broken, "--undo") == {"restored": [{"uri": broken.as_uri(), "was_listed": True}]}
    assert sum(run.read_json("forget", "--again")["documents"].values()) == 0
    assert runs.get_uri("dairy-cow") in run.read_output("forget", runs.folder / "dairy-cow.jpg")
