"""Reruns: images read again, documents removed by a resync, index swaps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from support.corpora.ingest_sources import LONG_AGO, PHOTOS, ListSource, copy_photo, copy_photos
from support.errors import expect_error
from support.messages import forward_messages
from support.paused_runs import PauseOnce
from support.plugin_metadata import install_colors_plugin
from support.polling import poll_until
from support.servers.fault_proxy import FaultProxy

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_content_id
from stair_es.errors import IngestError, ReadError, SourceError
from stair_es.ingest import stages
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import DryRunReport, simulate_ingest
from stair_es.ingest.enrichers.base import EnricherSpec
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, Source, SourceItem, SourceOptions
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.registry import open_source
from stair_es.types import Json

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

SMALLER = DocumentSettings(thumbnail_px=0)
"""Settings that need another index."""
NEW_PHOTOS = sorted(PHOTOS.glob("*.jpg"))[8:]
"""Photos that the folder of a test doesn't have."""


@dataclass(frozen=True)
class UnreadableLocator:
    """A place that must not be read."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        raise ReadError("it was read", code="was-read")

    def to_json(self) -> dict[str, Json] | None:
        return None


@dataclass(frozen=True)
class ConditionalLocator:
    """A store that tells versions only when it is read, and answers "not modified"."""

    path: str
    version: str

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        return None if known_version == self.version else ReadResult(Path(self.path).read_bytes(), self.version)

    def to_json(self) -> dict[str, Json] | None:
        return None


@dataclass(frozen=True)
class RaisingLocator(UnreadableLocator):
    """A plugin's place that raises an error of its own."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        raise KeyError("no such member")


@dataclass
class FolderRuns:
    """Ingests of a folder into one alias. Nobody touched its six photos for a while: their size and time are to be trusted."""

    client: OpenSearch
    url: str
    options: IngestOptions
    folder: Path
    messages: list[str] = field(default_factory=list)

    def ingest(self, *sources: Source, url: str = "", **changed: Any) -> IngestReport:  # noqa: ANN401  options of ingest
        """Ingest the sources, or else the folder, with changed options."""
        options = replace(self.options, **changed)
        with forward_messages(self.messages.append):
            return run_ingest(sources or [self.open_folder()], Connection(url=url or self.url), options, progress=lambda _: None)

    def count(self, *sources: Source, **changed: Any) -> tuple[int, int, int, int]:  # noqa: ANN401  options of ingest
        """Ingest, and return the numbers of images seen, written, unchanged and failed."""
        return _get_counts(self.ingest(*sources, **changed))

    def simulate(self, *sources: Source, **changed: Any) -> DryRunReport:  # noqa: ANN401  options of ingest
        return simulate_ingest(sources or [self.open_folder()], Connection(url=self.url), replace(self.options, **changed))

    def open_folder(self) -> Source:
        return open_source(str(self.folder))

    def list_items(self) -> list[SourceItem]:
        return [item for item in self.open_folder().list_items() if isinstance(item, SourceItem)]

    def hide_bytes(self) -> ListSource:
        """Return the folder as a source of images that can't be read."""
        return self.list_source([replace(item, locator=UnreadableLocator()) for item in self.list_items()])

    def list_source(self, items: Sequence[SourceItem | ListingFailure], error: Exception | None = None) -> ListSource:
        """Return a source that lists these items as those of the folder."""
        return ListSource(items, self.folder.as_uri(), error)

    def list_paths(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def move_first(self, folder: Path) -> Path:
        """Move the first photo into a new folder."""
        folder.mkdir()
        return Path(shutil.move(self.list_paths()[0], folder))

    def read_documents(self) -> dict[str, dict[str, Any]]:
        """Map URIs to documents, with their ids."""
        self.client.indices.refresh(index=self.options.alias)
        hits = self.client.search(index=self.options.alias, body={"size": 1000})["hits"]["hits"]
        return {hit["_source"]["uri"]: {**hit["_source"], "_id": hit["_id"]} for hit in hits}

    def get_targets(self) -> list[str]:
        return list(self.client.indices.get_alias(name=self.options.alias))


@pytest.fixture(scope="module")
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield ModelSpec(name="colors")


@pytest.fixture
def runs(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path, colors_model: ModelSpec) -> FolderRuns:
    dead_letters = tmp_path / "letters.jsonl"
    options = IngestOptions(alias=index_name, model=colors_model, runner="local", dead_letters=dead_letters)
    return FolderRuns(client, node_url, options, copy_photos(tmp_path / "photos", 6))


def _get_counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.failed


def _set_clock(patch: pytest.MonkeyPatch, ahead_h: int) -> None:
    at = datetime.now(UTC) + timedelta(hours=ahead_h)
    patch.setattr(stages, "get_timestamp", lambda: at.isoformat(timespec="milliseconds"))


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
def test_reruns_read_no_unchanged_images(runs: FolderRuns, id_by: Literal["uri", "content-hash"]) -> None:
    runs.options = replace(runs.options, document=DocumentSettings(id=id_by))
    assert runs.count() == (6, 6, 0, 0)
    assert runs.count(runs.hide_bytes()) == (6, 0, 6, 0)
    os.utime(runs.list_paths()[0], (LONG_AGO, LONG_AGO + 5))
    assert runs.count(runs.hide_bytes()) == (6, 0, 5, 1)


def test_touched_files_are_read_once(runs: FolderRuns) -> None:
    runs.ingest()
    before = runs.read_documents()
    for path in runs.list_paths():
        os.utime(path, (LONG_AGO, LONG_AGO + 7))
    assert runs.count() == (6, 0, 6, 0)
    assert runs.count(runs.hide_bytes()) == (6, 0, 6, 0)
    for uri, document in runs.read_documents().items():
        assert document["version"] != before[uri]["version"]
        touched_at = datetime.fromtimestamp(LONG_AGO + 7, UTC).isoformat(timespec="milliseconds")
        assert before[uri]["modified_at"] < document["modified_at"] == touched_at
        assert document == {**before[uri], "version": document["version"], "modified_at": touched_at}


def test_not_modified_responses_are_trusted(runs: FolderRuns) -> None:
    path, other, *_ = runs.list_paths()

    def list_version(version: str) -> ListSource:
        return ListSource([SourceItem("https://a.example/1.jpg", "list:", ConditionalLocator(str(path), version))], "list:")

    assert runs.count(list_version('"etag-1"')) == (1, 1, 0, 0)
    assert runs.count(list_version('"etag-1"')) == (1, 0, 1, 0)
    shutil.copy(other, path)
    assert runs.count(list_version('"etag-2"')) == (1, 1, 0, 0)


def test_other_fields_or_enrichers_make_other_documents(runs: FolderRuns) -> None:
    def add_caption(caption: str) -> ListSource:
        return runs.list_source([replace(item, fields={"caption": caption, "stars": 3}) for item in runs.list_items()])

    assert runs.count(add_caption("a red bus")) == (6, 6, 0, 0)
    assert runs.count(add_caption("a red bus")) == (6, 0, 6, 0)
    assert runs.count(add_caption("a blue bus")) == (6, 6, 0, 0)
    query = {"query": {"match": {"caption": "blue"}}}
    hits = runs.client.search(index=runs.options.alias, body=query)["hits"]["hits"]
    assert [hit["_source"]["stars"] for hit in hits] == [3] * 6
    report = runs.ingest(add_caption("a blue bus"), enrichers=(EnricherSpec("filename"),))
    assert (_get_counts(report), report.swapped) == ((6, 6, 0, 0), True)
    first = runs.list_paths()[0]
    assert runs.read_documents()[first.as_uri()]["filename"] == first.stem.replace("-", " ")


def test_new_settings_build_a_new_index_and_swap_the_alias(runs: FolderRuns) -> None:
    first = runs.ingest()
    assert not first.swapped
    names = [first.index]
    runs.options = replace(runs.options, sink_options=ClusterSinkOptions(retain_indices=1))
    for thumbnail_px in (0, 32, 64):
        document = DocumentSettings(thumbnail_px=thumbnail_px)
        report = runs.ingest(document=document)
        assert (_get_counts(report), report.swapped, report.not_swapped_reason) == ((6, 6, 0, 0), True, "")
        assert runs.get_targets() == [report.index]
        assert report.deleted_indices == tuple(names[:-1])
        names = [names[-1], report.index]
        assert sorted(runs.client.indices.get(index=f"{runs.options.alias}-*")) == sorted(names)
        assert runs.count(runs.hide_bytes(), document=document) == (6, 0, 6, 0)
    settings = runs.client.indices.get_settings(index=report.index, params={"flat_settings": "true"})
    assert "index.refresh_interval" not in settings[report.index]["settings"]


def test_the_index_that_was_replaced_is_retained(runs: FolderRuns) -> None:
    """The alias was moved back to the oldest one by hand."""
    first, second = (runs.ingest(document=DocumentSettings(thumbnail_px=thumbnail_px)).index for thumbnail_px in (0, 32))
    alias = runs.options.alias
    move = [{"remove": {"index": second, "alias": alias}}, {"add": {"index": first, "alias": alias}}]
    runs.client.indices.update_aliases(body={"actions": move})
    report = runs.ingest(document=DocumentSettings(thumbnail_px=64))
    assert (report.swapped, report.deleted_indices) == (True, (second,))


def test_interrupted_builds_continue_before_they_are_searched(runs: FolderRuns) -> None:
    live = runs.ingest().index
    interrupted = runs.list_source(runs.list_items()[:4], SourceError("the store went away", code="store-gone"))
    with expect_error("store-gone"):
        runs.ingest(interrupted, document=SMALLER)
    assert runs.get_targets() == [live]
    report = runs.ingest(document=SMALLER)
    assert (_get_counts(report), report.swapped) == ((6, 2, 4, 0), True)


def test_builds_without_other_sources_are_not_swapped(runs: FolderRuns, tmp_path: Path) -> None:
    other = runs.move_first(tmp_path / "other").parent
    live = runs.ingest(runs.open_folder(), open_source(str(other))).index
    report = runs.ingest(document=SMALLER)
    assert not report.swapped
    assert other.as_uri() in report.not_swapped_reason
    assert runs.get_targets() == [live]
    report = runs.ingest(open_source(str(other)), document=SMALLER)
    assert (report.swapped, report.not_swapped_reason) == (True, "")
    assert len(runs.read_documents()) == 6


def test_builds_finished_by_a_parallel_run_continue_in_it(runs: FolderRuns) -> None:
    runs.ingest()
    folder, items = runs.folder, runs.list_items()
    options: dict[str, Any] = {"document": SMALLER, "sink_options": ClusterSinkOptions(retain_indices=0), "batch_images": 1}

    class OvertakenSource(ListSource):
        """Another run of the same command is through before this one has named its last image."""

        def list_items(self) -> Iterator[SourceItem | ListingFailure]:
            yield from self._items[:3]
            poll_until(lambda: runs.client.indices.exists_alias(name=f"{runs.options.alias}.building-*"))
            assert runs.ingest(**options, dead_letters=folder.parent / "beside.jsonl").swapped
            yield from self._items[3:]

    late_photo = folder.parent / "late.jpg"
    shutil.copy(NEW_PHOTOS[0], late_photo)
    late = SourceItem(late_photo.as_uri(), folder.as_uri(), FileLocator(str(late_photo)))
    report = runs.ingest(OvertakenSource([*items, late], folder.as_uri()), **options)
    assert (report.seen, report.failed) == (7, 0)
    assert runs.get_targets() == [report.index]
    assert len(runs.read_documents()) == 7


def test_swap_keeps_empty_sources(runs: FolderRuns, tmp_path: Path) -> None:
    moved = runs.move_first(tmp_path / "other")
    other = open_source(str(moved.parent))
    live = runs.ingest(runs.open_folder(), other).index
    shutil.move(moved, tmp_path / "away.jpg")  # as if the disk weren't mounted
    report = runs.ingest(runs.open_folder(), other, document=SMALLER)
    assert not report.swapped
    assert moved.parent.as_uri() in report.not_swapped_reason
    assert runs.get_targets() == [live]


def test_build_with_failed_live_images_needs_force(runs: FolderRuns) -> None:
    live = runs.ingest().index
    broken = runs.list_paths()[0]
    photo = broken.read_bytes()
    broken.write_bytes(b"broken")
    report = runs.ingest(document=SMALLER)
    assert (_get_counts(report), report.swapped) == ((6, 5, 0, 1), False)
    assert "1 of" in report.not_swapped_reason
    assert runs.get_targets() == [live]
    assert not runs.ingest(document=SMALLER, sink_options=ClusterSinkOptions(swap="never")).swapped
    broken.write_bytes(photo)
    assert runs.ingest(document=SMALLER).swapped
    broken.write_bytes(b"broken")
    assert runs.ingest(document=DocumentSettings(thumbnail_px=32), sink_options=ClusterSinkOptions(swap="always")).swapped


def test_resync_removes_only_documents_of_its_sources(runs: FolderRuns, tmp_path: Path) -> None:
    moved = runs.move_first(tmp_path / "other")
    runs.ingest(runs.open_folder(), open_source(str(moved.parent)))
    for path in runs.list_paths()[:2]:
        path.unlink()
    assert runs.ingest().removed == 0
    planned = runs.simulate(resync=True)
    assert planned.stale == len(planned.stale_uris) == 2
    assert len(runs.read_documents()) == 6
    assert runs.ingest(resync=True).removed == 2
    assert sorted(runs.read_documents()) == sorted(path.as_uri() for path in (*runs.list_paths(), moved))


def test_resync_spares_sources_that_are_empty_or_not_listed(runs: FolderRuns) -> None:
    runs.ingest()
    items, empty = runs.list_items(), runs.list_source([])
    failure = ListingFailure(f"{runs.folder.as_uri()}/sub", runs.folder.as_uri(), "forbidden")
    assert runs.ingest(runs.list_source([*items[:3], failure]), resync=True).removed == 0
    assert any(runs.folder.as_uri() in message and "listed" in message for message in runs.messages)
    elsewhere = ListSource([replace(items[0], source="elsewhere:")], "elsewhere:")
    assert runs.ingest(elsewhere, empty, resync=True).removed == 0
    assert any(runs.folder.as_uri() in message and "mounted" in message for message in runs.messages)
    with expect_error("no-images", IngestError):
        runs.ingest(empty, resync=True)
    assert len(runs.read_documents()) == 6


def test_ids_by_content_store_equal_pictures_once(runs: FolderRuns) -> None:
    runs.options = replace(runs.options, document=DocumentSettings(id="content-hash"), resync=True)
    original, copy = runs.list_paths()[0], runs.folder / "copy.jpg"
    runs.ingest()
    copy_photo(original, copy)
    report = runs.ingest()
    assert (_get_counts(report), report.documents) == ((7, 0, 7, 0), 6)
    document = runs.read_documents()[original.as_uri()]
    assert document["_id"] == make_content_id(document["sha256"])
    original.unlink()
    report = runs.ingest()
    assert (_get_counts(report), report.removed) == ((6, 0, 6, 0), 0)
    documents = runs.read_documents()
    assert (len(documents), copy.as_uri() in documents) == (6, True)


def test_ids_by_content_follow_changed_and_moved_photos(runs: FolderRuns, tmp_path: Path) -> None:
    """A dry run counts what isn't where it was: only reading tells that it is elsewhere now, or what came in its place."""
    runs.options = replace(runs.options, document=DocumentSettings(id="content-hash"))
    first, second, *_ = runs.list_paths()
    moved = tmp_path / "other" / "moved.jpg"
    moved.parent.mkdir()
    copy_photo(first, moved)
    other = open_source(str(moved.parent))
    runs.ingest()
    runs.ingest(other)
    first.unlink()
    second.write_bytes(NEW_PHOTOS[0].read_bytes())
    runs.ingest()
    assert runs.simulate(runs.open_folder(), other, resync=True).stale == 1
    assert runs.ingest(runs.open_folder(), other, resync=True).removed == 1
    assert runs.read_documents()[moved.as_uri()]["source"] == moved.parent.as_uri()
    assert runs.ingest(resync=True).removed == 0
    assert len(runs.read_documents()) == 6


def test_ids_by_content_write_a_changed_photo_once(runs: FolderRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document of its former bytes is dated a month ahead, so that it is taken for the newest one of this URI."""
    runs.options = replace(runs.options, document=DocumentSettings(id="content-hash"))
    with monkeypatch.context() as patch:
        _set_clock(patch, 31 * 24)
        runs.ingest()
    copy_photo(NEW_PHOTOS[0], runs.list_paths()[0])
    assert runs.count() == (6, 1, 5, 0)
    assert runs.count() == (6, 0, 6, 0)
    assert runs.ingest(resync=True).removed == 1


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
@pytest.mark.parametrize("ahead_h", [-1, 1, 31 * 24])
def test_resync_keeps_what_a_writer_with_another_clock_stores(
    runs: FolderRuns, monkeypatch: pytest.MonkeyPatch, ahead_h: int, id_by: Literal["uri", "content-hash"]
) -> None:
    """Nothing that is stored after the run began is removed, and everything whose image is gone is."""
    runs.options = replace(runs.options, document=DocumentSettings(id=id_by))
    photos, (back, *gone) = iter(NEW_PHOTOS), runs.list_paths()[:4]

    def store_photo(path: Path, written: int = 1) -> None:
        """Write a new photo, by another writer."""
        copy_photo(next(photos), path)
        with monkeypatch.context() as patch:
            _set_clock(patch, ahead_h)
            assert runs.ingest(dead_letters=runs.folder.parent / "beside.jsonl").written == written

    class SlowSource(ListSource):
        """While it is listed, a photo comes in that another run finds and this listing has missed."""

        def list_items(self) -> Iterator[SourceItem | ListingFailure]:
            yield from self._items
            store_photo(runs.folder / "while-listing.jpg")

    store_photo(runs.folder / "first.jpg", written=7)
    for path in (back, *gone):
        path.unlink()
    source = SlowSource(runs.list_items(), runs.folder.as_uri())
    while_comparing = runs.folder / "while-comparing.jpg"
    compares = PauseOnce(lambda: store_photo(while_comparing), lambda request: b'"_seq_no":{"lte"' in request.body)
    deletes = PauseOnce(lambda: store_photo(back), lambda request: request.is_bulk and b'"if_seq_no"' in request.body)
    with FaultProxy(runs.url, lambda request: compares(request) or deletes(request)) as proxy:
        report = runs.ingest(source, url=proxy.url, resync=True)
    assert (compares.error, deletes.error) == (None, None)
    assert report.removed == (len(gone) if id_by == "uri" else len(gone) + 1)
    assert sorted(runs.read_documents()) == [path.as_uri() for path in runs.list_paths()]


def test_a_dry_run_predicts_the_run_and_changes_nothing(runs: FolderRuns) -> None:
    first = runs.simulate(runs.hide_bytes())
    assert (first.seen, first.new, first.index) == (6, 6, None)
    assert not runs.client.indices.exists(index=f"{runs.options.alias}*", params={"allow_no_indices": "false"})
    index = runs.ingest().index
    os.utime(runs.list_paths()[0], (LONG_AGO, LONG_AGO + 5))
    copy_photo(PHOTOS / "wall-clock.jpg", runs.folder / "new.jpg")
    items = [item for item in runs.hide_bytes().list_items() if isinstance(item, SourceItem)]
    items[1] = replace(items[1], version=None)
    second = runs.simulate(runs.list_source([*items, ListingFailure("x:", runs.folder.as_uri(), "forbidden")]))
    assert (second.new, second.changed, second.unknown, second.unchanged, second.unlisted) == (1, 1, 1, 4, 1)
    assert second.index == index
    other = runs.simulate(runs.hide_bytes(), document=SMALLER)
    assert (other.new, other.index) == (7, None)


def test_dead_letters_are_retried(runs: FolderRuns, tmp_path: Path) -> None:
    broken = runs.list_paths()[0]
    photo = broken.read_bytes()
    broken.write_bytes(b"broken")
    report = runs.ingest()
    assert _get_counts(report) == (6, 5, 0, 1)
    letters = shutil.copy(str(report.dead_letters), tmp_path / "again.jsonl")
    assert runs.count(open_source(str(letters), SourceOptions(format="dead-letters"))) == (1, 0, 0, 1)
    broken.write_bytes(photo)
    assert runs.count(open_source(str(letters), SourceOptions(format="dead-letters"))) == (1, 1, 0, 0)
    assert runs.count() == (6, 0, 6, 0)


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
def test_an_invalid_uri_and_a_broken_locator_are_failed_images(runs: FolderRuns, id_by: Literal["uri", "content-hash"]) -> None:
    first, second, *others = runs.list_items()
    invalid = replace(first, uri="file:///\ud800.jpg")
    broken = replace(second, uri="odd:1", locator=RaisingLocator())
    for _ in range(2):
        report = runs.ingest(ListSource([invalid, broken, *others], "given:"), document=DocumentSettings(id=id_by))
        assert (report.seen, report.failed) == (6, 2)
    reasons = [json.loads(line)["reason"] for line in Path(str(report.dead_letters)).read_text().splitlines()]
    assert ["Unicode" in reasons[0], "KeyError" in reasons[1]] == [True, True]
    assert len(reasons) == 2


def test_the_same_image_named_twice_is_one_image(runs: FolderRuns) -> None:
    first = open_source(str(runs.list_paths()[0]))
    assert runs.count(runs.open_folder(), first, runs.open_folder()) == (6, 6, 0, 0)


def test_columns_with_reserved_names_are_skipped_and_named(runs: FolderRuns) -> None:
    items = [replace(item, fields={"width": "wide", "_id": "x", "artist": "me"}) for item in runs.list_items()]
    assert runs.count(runs.list_source(items)) == (6, 6, 0, 0)
    assert any("_id, width" in message for message in runs.messages)
    document = runs.read_documents()[items[0].uri]
    assert document["artist"] == "me"
    assert isinstance(document["width"], int)


def test_documents_of_stdin_are_never_removed(runs: FolderRuns) -> None:
    items = [replace(item, source="stdin:") for item in runs.list_items()]
    runs.ingest(ListSource(items, "stdin:"))
    assert runs.ingest(ListSource(items[:2], "stdin:"), resync=True).removed == 0
    assert any("--resync" in message and "stdin" in message for message in runs.messages)
