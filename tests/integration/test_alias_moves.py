"""A run whose alias is moved, or whose index is replaced, writes only into its own index and never reports success."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.errors import expect_error
from support.messages import forward_messages
from support.paused_runs import COUNT, IngestRuns, PauseOnce, PhotoSource, install_models
from support.servers.fault_proxy import FaultProxy, Request

from stair_es import resources
from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.lifecycle import find_index
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.cluster.token_index import sync
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster import ClusterSinkWriter
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions, SwapMode
from stair_es.ingest.texts import TextIngestOptions, open_text_source
from stair_es.model.base import ModelSpec
from stair_es.token_policy import TokenPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


_ONE_BY_ONE = BulkPolicy(max_chunk_docs=1)


@contextmanager
def expect_mismatch(code: str, *names: str) -> Iterator[None]:
    """Assert that the block raises the error with this code, whose message has these names of indices and aliases."""
    with expect_error(code) as caught:
        yield
    assert [name for name in names if name not in caught.value.message] == []


@pytest.fixture
def runs(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> Iterator[IngestRuns]:
    options = IngestOptions(
        alias=index_name,
        model=ModelSpec(name="first"),
        runner="local",
        batch_images=2,
        document=DocumentSettings(thumbnail_px=0),
        dead_letters=tmp_path / "failed.jsonl",
    )
    with install_models(tmp_path):
        yield IngestRuns(client, node_url, options)


def is_delete(request: Request) -> bool:
    return request.is_bulk and request.body.startswith(b'{"delete"')


def is_token_write(request: Request) -> bool:
    return request.is_bulk and ".tokens" in request.path


def is_swap(request: Request) -> bool:
    return request.path.startswith("/_aliases")


def is_policy_update(request: Request) -> bool:
    return "_update_by_query" in request.path and b"match_none" not in request.body


def is_search_for_missing(request: Request) -> bool:
    return request.is_search and b'"collapse"' in request.body


def is_search_for_stale(request: Request) -> bool:
    return request.is_search and b'"_seq_no":{"lte"' in request.body


def test_another_model_s_run_swaps_the_alias(runs: IngestRuns) -> None:
    index = runs.run(photos=PhotoSource(0, 2)).index
    with expect_error("alias-moved") as caught:
        runs.run_paused(PauseOnce(lambda: runs.run("second", PhotoSource(0, 2)), skip=1))
    assert {index, runs.get_alias_target()} <= set(re.findall(r"[\w-]+", caught.value.message))
    runs.check_documents(runs.get_alias_target(), 2, "second-1")
    runs.check_documents(index, COUNT, "first-1")
    assert runs.run().swapped
    runs.check_documents(runs.get_alias_target(), COUNT, "first-1")


def test_two_models_into_a_new_name_at_once(runs: IngestRuns) -> None:
    """The first has made the index behind the alias, which is empty yet, when the second one comes, and swaps."""
    with expect_mismatch("alias-moved"):
        runs.run_paused(PauseOnce(lambda: runs.run("second")))
    runs.check_documents(runs.get_alias_target(), COUNT, "second-1")
    [index] = set(runs.client.indices.get(index=f"{runs.alias}-first-*"))
    runs.check_documents(index, COUNT, "first-1")


def test_the_alias_is_moved_to_a_foreign_index(runs: IngestRuns) -> None:
    index, foreign = runs.run(photos=PhotoSource(0, 1)).index, runs.create_foreign_index()
    with expect_mismatch("alias-moved", foreign, index):
        runs.run_paused(PauseOnce(lambda: runs.move_alias(runs.alias, foreign), skip=1))
    runs.check_documents(index, COUNT, "first-1")
    with expect_mismatch("foreign-index"):
        runs.run()
    runs.check_foreign_index(foreign)
    runs.move_alias(runs.alias, index)
    assert runs.run().unchanged == COUNT
    runs.check_foreign_index(foreign)


@pytest.mark.parametrize("swap", ["auto", "never"])
def test_the_alias_is_moved_while_the_next_index_is_built(runs: IngestRuns, swap: SwapMode) -> None:
    live, foreign = runs.run("second", PhotoSource(0, 2)).index, runs.create_foreign_index()
    plan = PauseOnce(lambda: runs.move_alias(runs.alias, foreign))
    with expect_mismatch("alias-moved", foreign):
        runs.run_paused(plan, sink_options=ClusterSinkOptions(swap=swap))
    [index] = set(runs.client.indices.get(index=f"{runs.alias}-first-*"))
    runs.check_documents(index, COUNT, "first-1")
    runs.check_documents(live, 2, "second-1")
    runs.check_foreign_index(foreign)


def test_removed_or_shared_alias_fails(runs: IngestRuns) -> None:
    index, foreign = runs.run(photos=PhotoSource(0, 1)).index, runs.create_foreign_index()
    add = {"actions": [{"add": {"index": foreign, "alias": runs.alias}}]}
    with expect_mismatch("alias-of-several-indices", foreign):
        runs.run_paused(PauseOnce(lambda: runs.client.indices.update_aliases(body=add)), PhotoSource(0, 4))
    runs.client.indices.delete_alias(index=foreign, name=runs.alias)
    with expect_mismatch("alias-moved"):
        runs.run_paused(PauseOnce(lambda: runs.client.indices.delete_alias(index=index, name=runs.alias)))
    runs.check_documents(index, COUNT, "first-1")
    runs.check_foreign_index(foreign)


@pytest.mark.parametrize("removed", ["alias", "index"])
def test_builds_replace_an_index_removed_during_the_run(runs: IngestRuns, removed: str) -> None:
    live = runs.run("second", PhotoSource(0, 2)).index

    def remove_target() -> None:
        if removed == "alias":
            runs.client.indices.delete_alias(index=live, name=runs.alias)
        else:
            runs.client.indices.delete(index=live)

    assert runs.run_paused(PauseOnce(remove_target)).swapped
    runs.check_documents(runs.get_alias_target(), COUNT, "first-1")


def test_unswapped_build_survives_removal_of_the_index(runs: IngestRuns) -> None:
    live = runs.run("second", PhotoSource(0, 2)).index
    report = runs.run_paused(
        PauseOnce(lambda: runs.client.indices.delete(index=live)), sink_options=ClusterSinkOptions(swap="never")
    )
    assert not report.swapped
    assert report.not_swapped_reason.endswith(f"PUT /{report.index}/_alias/{runs.alias}")
    assert not runs.client.indices.exists_alias(name=runs.alias)
    runs.check_documents(report.index, COUNT, "first-1")
    runs.client.indices.put_alias(index=report.index, name=runs.alias)
    assert runs.run().unchanged == COUNT


def test_resync_spares_foreign_indices(runs: IngestRuns) -> None:
    index = runs.run().index
    ids = tuple(sorted(runs.read_documents(index)))
    foreign = runs.create_foreign_index(ids)
    with expect_mismatch("alias-moved", index):
        runs.run_paused(PauseOnce(lambda: runs.move_alias(runs.alias, foreign), is_delete), PhotoSource(0, 3), resync=True)
    runs.check_documents(index, 3, "first-1")
    runs.check_foreign_index(foreign, ids)


def test_a_resync_while_another_model_s_run_swaps(runs: IngestRuns) -> None:
    index = runs.run().index
    with expect_mismatch("alias-moved"):
        runs.run_paused(PauseOnce(lambda: runs.run("second"), is_delete), PhotoSource(0, 3), resync=True)
    runs.check_documents(index, 3, "first-1")
    runs.check_documents(runs.get_alias_target(), COUNT, "second-1")


def test_alias_of_the_index_is_moved_manually(runs: IngestRuns) -> None:
    index, foreign = runs.run(photos=PhotoSource(0, 1)).index, runs.create_foreign_index()
    with expect_mismatch("write-alias-moved", repr(index), repr(foreign)):
        runs.run_paused(PauseOnce(lambda: runs.move_alias(make_write_alias(index), foreign)), PhotoSource(0, 3))
    misplaced = {id_ for id_ in runs.read_documents(foreign) if len(id_) > 1}
    assert 0 < len(misplaced) <= 2  # what was on its way
    assert runs.run(photos=PhotoSource(0, 3)).written == 2
    runs.check_documents(index, 3, "first-1")
    runs.move_alias(make_write_alias(index), foreign, is_write_index=True)
    with expect_mismatch("alias-given-to-other-index", index):
        runs.run()
    assert {id_ for id_ in runs.read_documents(foreign) if len(id_) > 1} == misplaced


@pytest.mark.parametrize("call", ["write", "update", "delete"])
def test_every_kind_of_write_notices_where_it_went(runs: IngestRuns, call: str) -> None:
    index, foreign = runs.run(photos=PhotoSource(0, 1)).index, runs.create_foreign_index()
    runs.move_alias(make_write_alias(index), foreign)
    writer = ClusterSinkWriter(cluster=Cluster(Connection(url=runs.url)), index=index, policy=BulkPolicy())
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: writer.write([("new", {"mine": "x"})], 1000),
        "update": lambda: writer.update([("missing", {"mine": "x"})]),
        "delete": lambda: writer.delete(["missing"]),
    }
    with expect_mismatch("write-alias-moved", repr(index), repr(foreign)):
        calls[call]()


def test_texts_keep_their_index(runs: IngestRuns, tmp_path: Path) -> None:
    (file := tmp_path / "texts.txt").write_text("".join(f"a {word} bus\n" for word in ("red", "blue", "green")))
    foreign = runs.create_foreign_index()
    options = TextIngestOptions(alias=runs.alias, model=ModelSpec(name="first"), dead_letters=tmp_path / "texts.jsonl")

    def ingest_texts(url: str) -> None:
        with forward_messages(runs.messages.append):
            run_ingest([open_text_source(str(file))], Connection(url=url), options, progress=lambda _: None)

    with (
        FaultProxy(runs.url, PauseOnce(lambda: runs.move_alias(runs.alias, foreign))) as proxy,
        expect_mismatch("alias-moved", foreign),
    ):
        ingest_texts(proxy.url)
    [index] = set(runs.client.indices.get(index=f"{runs.alias}-first-*"))
    assert len(runs.read_documents(index)) == 3
    runs.check_foreign_index(foreign)
    runs.move_alias(runs.alias, index)
    file.write_text("a black bus\n")
    with (
        FaultProxy(runs.url, PauseOnce(lambda: runs.recreate_index(index))) as proxy,
        expect_mismatch("index-recreated", repr(index)),
    ):
        ingest_texts(proxy.url)


def test_moved_token_aliases(runs: IngestRuns) -> None:
    index, foreign = runs.run(photos=PhotoSource(0, 1)).index, runs.create_foreign_index()
    plan = PauseOnce(lambda: runs.move_alias(runs.alias, foreign), is_token_write)
    with expect_mismatch("alias-moved", foreign):
        runs.run_paused(plan, sink_options=ClusterSinkOptions(token_index=True))
    assert len(runs.read_documents(f"{index}.tokens")) > COUNT
    runs.check_foreign_index(foreign)
    assert not runs.client.indices.exists_alias(name=f"{runs.alias}-tokens")
    runs.move_alias(runs.alias, index)
    plan = PauseOnce(lambda: runs.move_alias(f"{index}.tokens.write", foreign), is_token_write)
    with expect_mismatch("write-alias-moved", repr(f"{index}.tokens"), repr(foreign)):
        runs.run_paused(plan, PhotoSource(0, COUNT + 2))
    misplaced = len(runs.read_documents(foreign))
    report = runs.run(photos=PhotoSource(0, COUNT + 2)).token_index
    assert report
    assert report.images == COUNT + 2
    assert len(runs.read_documents(foreign)) == misplaced


@pytest.mark.parametrize("skip", [0, 2])
def test_an_index_created_again_between_requests_fails(runs: IngestRuns, skip: int) -> None:
    index = runs.run(photos=PhotoSource(0, 1)).index
    with expect_mismatch("index-recreated", repr(index)):
        runs.run_paused(PauseOnce(lambda: runs.recreate_index(index), skip=skip), bulk=_ONE_BY_ONE)
    assert len(runs.read_documents(index)) < COUNT
    runs.run()
    runs.check_documents(index, COUNT, "first-1")


@pytest.mark.parametrize("replaced", ["", ".tokens"])
def test_an_index_created_again_while_tokens_are_written_fails(
    runs: IngestRuns, monkeypatch: pytest.MonkeyPatch, replaced: str
) -> None:
    monkeypatch.setattr(sync, "_TOKENS_PER_BATCH", 1)  # one request for each image
    index = runs.run(photos=PhotoSource(0, 1)).index
    plan = PauseOnce(lambda: runs.recreate_index(f"{index}{replaced}"), is_token_write, skip=2)
    with expect_mismatch("index-recreated", repr(f"{index}{replaced}")):
        runs.run_paused(plan, sink_options=ClusterSinkOptions(token_index=True))
    report = runs.run().token_index
    assert report
    assert (report.images, report.failed) == (COUNT, 0)
    runs.check_documents(index, COUNT, "first-1")


@pytest.mark.parametrize(("is_match", "swapped"), [(is_search_for_missing, False), (is_swap, True)])
def test_a_build_created_again_before_the_swap_fails(
    runs: IngestRuns, is_match: Callable[[Request], bool], swapped: bool
) -> None:
    """If it happens after the last check before the swap, the old index is still there to be swapped back."""
    live = runs.run("second").index

    def recreate_build() -> None:
        runs.recreate_index(next(iter(runs.client.indices.get(index=f"{runs.alias}-first-*"))))

    with expect_mismatch("index-recreated"):
        runs.run_paused(PauseOnce(recreate_build, is_match), sink_options=ClusterSinkOptions(retain_indices=0))
    runs.check_documents(live, COUNT, "second-1")
    assert (runs.get_alias_target() != live) == swapped
    assert runs.run().written == COUNT
    runs.check_documents(runs.get_alias_target(), COUNT, "first-1")


@pytest.mark.parametrize("is_match", [is_search_for_stale, is_delete])
def test_resync_spares_an_index_created_again(runs: IngestRuns, is_match: Callable[[Request], bool]) -> None:
    """The writes of the new index are numbered from 0, so that a document of another writer looks older than the run."""
    index = runs.run().index
    document = {"uri": "file:///new.jpg", "source": PhotoSource().uri}

    def recreate_with_document() -> None:
        runs.recreate_index(index)
        runs.client.index(index=index, id="new", body=document, params={"refresh": "true"})

    with expect_mismatch("index-recreated", repr(index)):
        runs.run_paused(PauseOnce(recreate_with_document, is_match), PhotoSource(0, 3), resync=True)
    assert runs.read_documents(index) == {"new": document}


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_restored_index_fails(
    elasticsearch7_url: str, make_index_name: Callable[[str], str], runs: IngestRuns, is_closed: bool
) -> None:
    """Restored while it is closed, an index keeps its UUID."""
    client, name = Connection(url=elasticsearch7_url).client(), make_index_name(elasticsearch7_url)
    elasticsearch_runs = IngestRuns(client, elasticsearch7_url, replace(runs.options, alias=name))
    index = elasticsearch_runs.run(photos=PhotoSource(0, 1)).index
    client.snapshot.create_repository(repository=name, body={"type": "fs", "settings": {"location": name}})
    wait = {"wait_for_completion": "true"}
    client.snapshot.create(repository=name, snapshot="first", body={"indices": index}, params=wait)

    def restore_snapshot() -> None:
        if is_closed:
            client.indices.close(index=index, params={"wait_for_active_shards": "0"})  # as without, but 7.17 then doesn't warn
        else:
            client.indices.delete(index=index)
        client.snapshot.restore(repository=name, snapshot="first", body={"indices": index}, params=wait)

    try:
        with expect_mismatch("index-recreated", repr(index)):
            elasticsearch_runs.run_paused(PauseOnce(restore_snapshot, skip=2), bulk=_ONE_BY_ONE)
        elasticsearch_runs.run()
        elasticsearch_runs.check_documents(index, COUNT, "first-1")
    finally:
        client.snapshot.delete(repository=name, snapshot="first")
        client.snapshot.delete_repository(repository=name)
        client.close()


@pytest.mark.parametrize(("is_match", "replaced"), [(is_policy_update, ""), (is_token_write, ""), (is_token_write, ".tokens")])
def test_a_policy_on_an_index_created_again_fails(runs: IngestRuns, is_match: Callable[[Request], bool], replaced: str) -> None:
    index = runs.run(sink_options=ClusterSinkOptions(token_index=True)).index
    plan = PauseOnce(lambda: runs.recreate_index(f"{index}{replaced}"), is_match)
    with (
        FaultProxy(runs.url, plan) as proxy,
        Cluster(Connection(url=proxy.url)) as cluster,
        forward_messages(runs.messages.append),
        expect_mismatch("index-recreated", repr(f"{index}{replaced}")),
    ):
        PolicyManager(cluster, runs.alias).apply_policy(TokenPolicy(mute=("blue",)), UpdateLimits(), lambda _: None)
    assert plan.done


def test_a_policy_changes_no_foreign_documents(runs: IngestRuns) -> None:
    index, foreign = runs.run().index, runs.create_foreign_index()
    manager = PolicyManager(Cluster(Connection(url=runs.url), runs.client), runs.alias)
    moved: list[str] = []

    def move_alias_once(_: object) -> None:
        if not moved:
            runs.move_alias(runs.alias, foreign)
            moved.append(foreign)

    with expect_mismatch("foreign-index"), forward_messages(runs.messages.append):
        manager.apply_policy(TokenPolicy(mute=("blue",)), UpdateLimits(), move_alias_once)
    assert moved
    assert not any("blue" in source["tokens"] for source in runs.read_documents(index).values())
    runs.check_foreign_index(foreign)


def test_writing_creates_a_missing_alias_and_reading_does_not(runs: IngestRuns) -> None:
    index = runs.run(photos=PhotoSource(0, 1)).index
    runs.client.indices.delete_alias(index=index, name=make_write_alias(index))
    body, connection = resources.load_json_resource("mappings", "image"), Connection(url=runs.url)
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={})
    find_index(Cluster(connection, runs.client), runs.alias, body, index_spec)
    assert not runs.client.indices.exists_alias(name=make_write_alias(index))
    assert runs.run(photos=PhotoSource(0, 2)).written == 1
    assert list(runs.client.indices.get_alias(name=make_write_alias(index))) == [index]
