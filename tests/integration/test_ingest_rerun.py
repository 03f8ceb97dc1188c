"""Reruns: images read again, documents removed by a resync, index swaps."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from support.corpora.ingest_sources import LONG_AGO, PHOTOS, ListSource, copy_photo, copy_photos
from support.messages import forward_messages
from support.paused_runs import PauseOnce
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

Run = Callable[..., IngestReport]


@dataclass(frozen=True)
class UnreadableLocator:
    """A place that must not be asked."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        raise ReadError("it was read")

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
    """A plugin's place that raises what comes."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        raise KeyError("no such member")


@pytest.fixture
def options(index_name: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(
        alias=index_name,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        runner="local",
        dead_letters=tmp_path / "letters.jsonl",
    )


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def run(node_url: str, messages: list[str]) -> Run:
    def run_(options: IngestOptions, *sources: Source, url: str = node_url) -> IngestReport:
        with forward_messages(messages.append):
            return run_ingest(sources, Connection(url=url), options, progress=lambda _: None)

    return run_


@pytest.fixture
def dry_run(node_url: str) -> Callable[..., DryRunReport]:
    def dry_run_(options: IngestOptions, *sources: Source) -> DryRunReport:
        return simulate_ingest(sources, Connection(url=node_url), options)

    return dry_run_


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos that nobody touched for a while: their size and time are to be trusted."""
    return copy_photos(tmp_path / "photos", 6)


def _source(folder: Path) -> Source:
    return open_source(str(folder))


def _without_bytes(folder: Path) -> ListSource:
    items = [
        replace(found, locator=UnreadableLocator()) for found in _source(folder).list_items() if isinstance(found, SourceItem)
    ]
    return ListSource(list(items), folder.as_uri())


def _counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.failed


def _stored(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"size": 1000, "query": {"match_all": {}}})["hits"]["hits"]
    return {hit["_source"]["uri"]: {**hit["_source"], "_id": hit["_id"]} for hit in hits}


def _set_clock(patch: pytest.MonkeyPatch, ahead_h: int) -> None:
    at = datetime.now(timezone.utc) + timedelta(hours=ahead_h)
    patch.setattr(stages, "get_timestamp", lambda: at.isoformat(timespec="milliseconds"))


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
def test_reruns_read_no_unchanged_images(run: Run, options: IngestOptions, folder: Path, id_by: str) -> None:
    options = replace(options, document=DocumentSettings(id=id_by))  # type: ignore[arg-type]
    assert _counts(run(options, _source(folder))) == (6, 6, 0, 0)
    assert _counts(run(options, _without_bytes(folder))) == (6, 0, 6, 0)
    changed = sorted(folder.iterdir())[0]
    os.utime(changed, (LONG_AGO, LONG_AGO + 5))
    assert _counts(run(options, _without_bytes(folder))) == (6, 0, 5, 1)


def test_touched_files_are_read_once(run: Run, options: IngestOptions, folder: Path, client: OpenSearch) -> None:
    run(options, _source(folder))
    before = _stored(client, options.alias)
    for path in folder.iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO + 7))
    assert _counts(run(options, _source(folder))) == (6, 0, 6, 0)
    assert _counts(run(options, _without_bytes(folder))) == (6, 0, 6, 0)
    after = _stored(client, options.alias)
    for uri, document in after.items():
        assert document["version"] != before[uri]["version"]
        touched_at = datetime.fromtimestamp(LONG_AGO + 7, timezone.utc).isoformat(timespec="milliseconds")
        assert before[uri]["modified_at"] < document["modified_at"] == touched_at
        assert document == {**before[uri], "version": document["version"], "modified_at": touched_at}


def test_not_modified_responses_are_trusted(run: Run, options: IngestOptions, folder: Path) -> None:
    path = sorted(folder.iterdir())[0]

    def source(version: str) -> ListSource:
        return ListSource([SourceItem("https://a.example/1.jpg", "list:", ConditionalLocator(str(path), version))], "list:")

    assert _counts(run(options, source('"etag-1"'))) == (1, 1, 0, 0)
    assert _counts(run(options, source('"etag-1"'))) == (1, 0, 1, 0)
    shutil.copy(sorted(folder.iterdir())[1], path)
    assert _counts(run(options, source('"etag-2"'))) == (1, 1, 0, 0)


def test_other_fields_or_enrichers_make_other_documents(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]

    def with_caption(caption: str) -> ListSource:
        return ListSource([replace(item, fields={"caption": caption, "stars": 3}) for item in items], folder.as_uri())

    assert _counts(run(options, with_caption("a red bus"))) == (6, 6, 0, 0)
    assert _counts(run(options, with_caption("a red bus"))) == (6, 0, 6, 0)
    assert _counts(run(options, with_caption("a blue bus"))) == (6, 6, 0, 0)
    found = client.search(index=options.alias, body={"query": {"match": {"caption": "blue"}}})["hits"]["hits"]
    assert len(found) == 6
    assert found[0]["_source"]["stars"] == 3
    report = run(replace(options, enrichers=(EnricherSpec("filename"),)), with_caption("a blue bus"))
    assert (_counts(report), report.swapped) == ((6, 6, 0, 0), True)
    documents = _stored(client, options.alias)
    first = sorted(folder.iterdir())[0]
    assert documents[first.as_uri()]["filename"] == first.stem.replace("-", " ")


def test_new_settings_build_a_new_index_and_swap_the_alias(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    first = run(options, _source(folder))
    assert not first.swapped
    names = [first.index]
    for thumbnail_px in (0, 32, 64):
        smaller = replace(
            options, document=DocumentSettings(thumbnail_px=thumbnail_px), sink_options=ClusterSinkOptions(retain_indices=1)
        )
        report = run(smaller, _source(folder))
        assert (_counts(report), report.swapped, report.not_swapped_reason) == ((6, 6, 0, 0), True, "")
        assert list(client.indices.get_alias(name=options.alias)) == [report.index]
        assert report.deleted_indices == tuple(names[:-1])
        names = [names[-1], report.index]
        assert sorted(client.indices.get(index=f"{options.alias}-*")) == sorted(names)
        assert _counts(run(smaller, _without_bytes(folder))) == (6, 0, 6, 0)
    settings = client.indices.get_settings(index=report.index, params={"flat_settings": "true"})[report.index]["settings"]
    assert "index.refresh_interval" not in settings


def test_the_index_that_was_replaced_is_retained(run: Run, options: IngestOptions, folder: Path, client: OpenSearch) -> None:
    """The alias was moved back to the oldest one by hand."""
    [first, second] = [
        run(replace(options, document=DocumentSettings(thumbnail_px=thumbnail_px)), _source(folder)).index
        for thumbnail_px in (0, 32)
    ]
    move = [{"remove": {"index": second, "alias": options.alias}}, {"add": {"index": first, "alias": options.alias}}]
    client.indices.update_aliases(body={"actions": move})
    report = run(replace(options, document=DocumentSettings(thumbnail_px=64)), _source(folder))
    assert (report.swapped, report.deleted_indices) == (True, (second,))


def test_an_interrupted_build_is_continued_and_searched_only_when_complete(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    live = run(options, _source(folder)).index
    smaller = replace(options, document=DocumentSettings(thumbnail_px=0))
    items = list(_source(folder).list_items())
    with pytest.raises(SourceError, match="went away"):
        run(smaller, ListSource(items[:4], folder.as_uri(), SourceError("the store went away")))
    assert list(client.indices.get_alias(name=options.alias)) == [live]
    report = run(smaller, _source(folder))
    assert (_counts(report), report.swapped) == ((6, 2, 4, 0), True)


def test_builds_without_other_sources_are_not_swapped(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.move(sorted(folder.iterdir())[0], other)
    live = run(options, _source(folder), _source(other)).index
    smaller = replace(options, document=DocumentSettings(thumbnail_px=0))
    report = run(smaller, _source(folder))
    assert not report.swapped
    assert other.as_uri() in report.not_swapped_reason
    assert list(client.indices.get_alias(name=options.alias)) == [live]
    report = run(smaller, _source(other))
    assert (report.swapped, report.not_swapped_reason) == (True, "")
    assert len(_stored(client, options.alias)) == 6


def test_a_build_finished_by_a_parallel_run_continues_in_the_live_index(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    run(options, _source(folder))
    smaller = replace(
        options, document=DocumentSettings(thumbnail_px=0), sink_options=ClusterSinkOptions(retain_indices=0), batch_images=1
    )
    beside = replace(smaller, dead_letters=folder.parent / "beside.jsonl")

    class Overtaken(ListSource):
        """Another run of the same command is through before this one has named its last image."""

        def list_items(self) -> Iterator[SourceItem | ListingFailure]:
            yield from self._items[:3]
            while not self._build_is_open():
                time.sleep(0.05)
            assert run(beside, _source(folder)).swapped
            yield from self._items[3:]

        def _build_is_open(self) -> bool:
            return bool(client.indices.exists_alias(name=f"{options.alias}.building-*"))

    more = folder.parent / "more.jpg"
    more.write_bytes(sorted(PHOTOS.glob("*.jpg"))[7].read_bytes())
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    late = SourceItem(more.as_uri(), folder.as_uri(), FileLocator(str(more)))
    report = run(smaller, Overtaken([*items, late], folder.as_uri()))
    assert (report.seen, report.failed) == (7, 0)
    assert list(client.indices.get_alias(name=options.alias)) == [report.index]
    assert len(_stored(client, options.alias)) == 7


def test_swap_keeps_empty_sources(run: Run, options: IngestOptions, folder: Path, client: OpenSearch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first = sorted(folder.iterdir())[0]
    shutil.move(first, other)
    live = run(options, _source(folder), _source(other)).index
    shutil.move(other / first.name, tmp_path / "away.jpg")  # as if the disk weren't mounted
    report = run(replace(options, document=DocumentSettings(thumbnail_px=0)), _source(folder), _source(other))
    assert not report.swapped
    assert other.as_uri() in report.not_swapped_reason
    assert list(client.indices.get_alias(name=options.alias)) == [live]


def test_build_with_failed_live_images_needs_force(run: Run, options: IngestOptions, folder: Path, client: OpenSearch) -> None:
    live = run(options, _source(folder)).index
    smaller = replace(options, document=DocumentSettings(thumbnail_px=0))
    broken = sorted(folder.iterdir())[0]
    photo = broken.read_bytes()
    broken.write_bytes(b"broken")
    report = run(smaller, _source(folder))
    assert (_counts(report), report.swapped) == ((6, 5, 0, 1), False)
    assert "1 of its images failed" in report.not_swapped_reason
    assert list(client.indices.get_alias(name=options.alias)) == [live]
    assert not run(replace(smaller, sink_options=ClusterSinkOptions(swap="never")), _source(folder)).swapped
    broken.write_bytes(photo)
    assert run(smaller, _source(folder)).swapped
    broken.write_bytes(b"broken")
    forced = replace(options, document=DocumentSettings(thumbnail_px=32), sink_options=ClusterSinkOptions(swap="always"))
    assert run(forced, _source(folder)).swapped


def test_resync_removes_only_documents_of_its_sources(
    run: Run, dry_run: Callable[..., DryRunReport], options: IngestOptions, folder: Path, client: OpenSearch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.move(sorted(folder.iterdir())[0], other)
    run(options, _source(folder), _source(other))
    for path in sorted(folder.iterdir())[:2]:
        path.unlink()
    resync = replace(options, resync=True)
    assert run(options, _source(folder)).removed == 0
    planned = dry_run(resync, _source(folder))
    assert planned.stale == len(planned.stale_uris) == 2
    assert len(_stored(client, options.alias)) == 6
    assert run(resync, _source(folder)).removed == 2
    assert sorted(_stored(client, options.alias)) == sorted(p.as_uri() for p in (*folder.iterdir(), *other.iterdir()))


def test_resync_spares_a_source_that_is_empty_or_could_not_be_listed(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch, messages: list[str]
) -> None:
    run(options, _source(folder))
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    resync = replace(options, resync=True)
    failure = ListingFailure(f"{folder.as_uri()}/sub", folder.as_uri(), "forbidden")
    assert run(resync, ListSource([*items[:3], failure], folder.as_uri())).removed == 0
    assert "couldn't be listed" in " ".join(messages)
    elsewhere = ListSource([replace(items[0], source="elsewhere:")], "elsewhere:")
    assert run(resync, elsewhere, ListSource([], folder.as_uri())).removed == 0
    assert "(is it mounted?)" in " ".join(messages)
    with pytest.raises(IngestError, match="no images"):
        run(resync, ListSource([], folder.as_uri()))
    assert len(_stored(client, options.alias)) == 6


def test_ids_by_content_store_the_same_picture_once_and_follow_it(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    options = replace(options, document=DocumentSettings(id="content-hash"), resync=True)
    original = sorted(folder.iterdir())[0]
    report = run(options, _source(folder))
    copy_photo(original, folder / "copy.jpg")
    report = run(options, _source(folder))
    assert (_counts(report), report.documents) == ((7, 0, 7, 0), 6)
    documents = _stored(client, options.alias)
    assert documents[original.as_uri()]["_id"] == make_content_id(documents[original.as_uri()]["sha256"])
    original.unlink()
    report = run(options, _source(folder))
    assert (_counts(report), report.removed) == ((6, 0, 6, 0), 0)
    documents = _stored(client, options.alias)
    assert (folder / "copy.jpg").as_uri() in documents
    assert len(documents) == 6


def test_ids_by_content_follow_changed_and_moved_photos(
    run: Run, dry_run: Callable[..., DryRunReport], options: IngestOptions, folder: Path, client: OpenSearch, tmp_path: Path
) -> None:
    """A dry run counts what isn't where it was: only reading tells that it is elsewhere now, or what came in its place."""
    options = replace(options, document=DocumentSettings(id="content-hash"))
    first, second = sorted(folder.iterdir())[:2]
    other = tmp_path / "other"
    other.mkdir()
    copy_photo(first, other / "moved.jpg")
    run(options, _source(folder))
    run(options, _source(other))
    first.unlink()
    second.write_bytes(sorted(PHOTOS.glob("*.jpg"))[8].read_bytes())
    run(options, _source(folder))
    resync = replace(options, resync=True)
    assert dry_run(resync, _source(folder), _source(other)).stale == 1
    assert run(resync, _source(folder), _source(other)).removed == 1
    assert _stored(client, options.alias)[(other / "moved.jpg").as_uri()]["source"] == other.as_uri()
    assert run(resync, _source(folder)).removed == 0
    assert len(_stored(client, options.alias)) == 6


def test_ids_by_content_write_a_changed_photo_once(
    run: Run, options: IngestOptions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document of its former bytes is dated a month ahead, so that it is taken for the newest one of this URI."""
    options = replace(options, document=DocumentSettings(id="content-hash"))
    with monkeypatch.context() as patch:
        _set_clock(patch, 31 * 24)
        run(options, _source(folder))
    copy_photo(sorted(PHOTOS.glob("*.jpg"))[8], sorted(folder.iterdir())[0])
    assert _counts(run(options, _source(folder))) == (6, 1, 5, 0)
    assert _counts(run(options, _source(folder))) == (6, 0, 6, 0)
    assert run(replace(options, resync=True), _source(folder)).removed == 1


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
@pytest.mark.parametrize("ahead_h", [-1, 1, 31 * 24])
def test_resync_keeps_what_a_writer_with_another_clock_stores(
    run: Run,
    options: IngestOptions,
    folder: Path,
    client: OpenSearch,
    node_url: str,
    monkeypatch: pytest.MonkeyPatch,
    ahead_h: int,
    id_by: str,
) -> None:
    """Nothing that is stored after the run began is removed, and everything whose image is gone is."""
    options = replace(options, document=DocumentSettings(id=id_by))  # type: ignore[arg-type]
    photos, (back, *gone) = iter(sorted(PHOTOS.glob("*.jpg"))[8:]), sorted(folder.iterdir())[:4]

    def store(path: Path, written: int = 1) -> None:
        """Write a new photo, by another writer."""
        copy_photo(next(photos), path)
        with monkeypatch.context() as patch:
            _set_clock(patch, ahead_h)
            assert run(replace(options, dead_letters=folder.parent / "beside.jsonl"), _source(folder)).written == written

    class Slow(ListSource):
        """While it is listed, a photo comes in that another run finds and this listing has missed."""

        def list_items(self) -> Iterator[SourceItem | ListingFailure]:
            yield from self._items
            store(folder / "while-listing.jpg")

    store(folder / "first.jpg", written=7)
    for path in (back, *gone):
        path.unlink()
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    compares = PauseOnce(lambda: store(folder / "while-comparing.jpg"), lambda request: b'"_seq_no":{"lte"' in request.body)
    deletes = PauseOnce(lambda: store(back), lambda request: request.is_bulk and b'"if_seq_no"' in request.body)
    with FaultProxy(node_url, lambda request: compares(request) or deletes(request)) as proxy:
        report = run(replace(options, resync=True), Slow(list(items), folder.as_uri()), url=proxy.url)
    assert (compares.error, deletes.error) == (None, None)
    assert report.removed == (len(gone) if id_by == "uri" else len(gone) + 1)
    assert sorted(_stored(client, options.alias)) == sorted(path.as_uri() for path in folder.iterdir())


def test_a_dry_run_predicts_the_run_and_changes_nothing(
    run: Run, dry_run: Callable[..., DryRunReport], options: IngestOptions, folder: Path, client: OpenSearch
) -> None:
    first = dry_run(options, _without_bytes(folder))
    assert (first.seen, first.new, first.index) == (6, 6, None)
    assert not client.indices.exists(index=f"{options.alias}*", params={"allow_no_indices": "false"})
    index = run(options, _source(folder)).index
    paths = sorted(folder.iterdir())
    os.utime(paths[0], (LONG_AGO, LONG_AGO + 5))
    copy_photo(PHOTOS / "wall-clock.jpg", folder / "new.jpg")
    items = [found for found in _without_bytes(folder).list_items() if isinstance(found, SourceItem)]
    items[1] = replace(items[1], version=None)
    second = dry_run(options, ListSource([*items, ListingFailure("x:", folder.as_uri(), "forbidden")], folder.as_uri()))
    assert (second.new, second.changed, second.unknown, second.unchanged, second.unlisted) == (1, 1, 1, 4, 1)
    assert second.index == index
    other = dry_run(replace(options, document=DocumentSettings(thumbnail_px=0)), _without_bytes(folder))
    assert (other.new, other.index) == (7, None)


def test_dead_letters_are_retried(run: Run, options: IngestOptions, folder: Path, tmp_path: Path) -> None:
    broken = sorted(folder.iterdir())[0]
    photo = broken.read_bytes()
    broken.write_bytes(b"broken")
    report = run(options, _source(folder))
    assert _counts(report) == (6, 5, 0, 1)
    letters = Path(shutil.copy(str(report.dead_letters), tmp_path / "again.jsonl"))
    retry = open_source(str(letters), SourceOptions(format="dead-letters"))
    assert _counts(run(options, retry)) == (1, 0, 0, 1)
    broken.write_bytes(photo)
    retry = open_source(str(letters), SourceOptions(format="dead-letters"))
    assert _counts(run(options, retry)) == (1, 1, 0, 0)
    assert _counts(run(options, _source(folder))) == (6, 0, 6, 0)


@pytest.mark.parametrize("id_by", ["uri", "content-hash"])
def test_an_invalid_uri_and_a_broken_locator_are_failed_images(
    run: Run, options: IngestOptions, folder: Path, id_by: Literal["uri", "content-hash"]
) -> None:
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    invalid = replace(items[0], uri="file:///\ud800.jpg")
    odd = replace(items[1], uri="odd:1", locator=RaisingLocator())
    options = replace(options, document=DocumentSettings(id=id_by))
    for _ in range(2):
        report = run(options, ListSource([invalid, odd, *items[2:]], "given:"))
        assert (report.seen, report.failed) == (6, 2)
    reasons = [json.loads(line)["reason"] for line in Path(str(report.dead_letters)).read_text().splitlines()]
    assert reasons == ["its URI is not valid Unicode", "KeyError: 'no such member'"]


def test_the_same_image_named_twice_is_one_image(run: Run, options: IngestOptions, folder: Path) -> None:
    first = sorted(folder.iterdir())[0]
    assert _counts(run(options, _source(folder), _source(first), _source(folder))) == (6, 6, 0, 0)


def test_columns_with_reserved_names_are_skipped_and_named(
    run: Run, options: IngestOptions, folder: Path, client: OpenSearch, messages: list[str]
) -> None:
    items = [found for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    given = ListSource([replace(item, fields={"width": "wide", "_id": "x", "artist": "me"}) for item in items], folder.as_uri())
    assert _counts(run(options, given)) == (6, 6, 0, 0)
    assert "_id, width" in " ".join(messages)
    document = _stored(client, options.alias)[items[0].uri]
    assert document["artist"] == "me"
    assert isinstance(document["width"], int)


def test_documents_of_stdin_are_never_removed(run: Run, options: IngestOptions, folder: Path, messages: list[str]) -> None:
    items = [replace(found, source="stdin:") for found in _source(folder).list_items() if isinstance(found, SourceItem)]
    run(options, ListSource(list(items), "stdin:"))
    assert run(replace(options, resync=True), ListSource(list(items[:2]), "stdin:")).removed == 0
    assert "stdin is a different stream each time" in " ".join(messages)
