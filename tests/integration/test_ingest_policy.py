"""Ingests with a token policy: it is the index's, later runs keep it, and nothing is encoded again for its sake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.corpora.ingest_sources import PHOTOS, copy_photo
from support.messages import forward_messages
from typer.testing import CliRunner

from stair_es import SparseVector
from stair_es.cli.main import app
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields, make_document_id
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.errors import IndexMismatch, IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import simulate_ingest
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions, SwapMode
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source
from stair_es.token_policy import TokenPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

POLICY = TokenPolicy(name="quiet", mute=("tabby",), cap={"cat": 0.25}, rename={"kitten": "young.cat"})
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg")


class Runs:
    """Ingests of one folder into one alias."""

    def __init__(self, url: str, options: IngestOptions, folder: Path) -> None:
        self.connection, self.options, self.folder = Connection(url=url), options, folder
        self.messages: list[str] = []

    def run(self, **changed: object) -> tuple[int, int]:
        report = self.report(**changed)
        return report.written, report.unchanged

    def report(self, **changed: object) -> IngestReport:
        options = replace(self.options, **changed)  # type: ignore[arg-type]
        with forward_messages(self.messages.append):
            return run_ingest([open_source(str(self.folder))], self.connection, options, progress=lambda _: None)

    def id(self, name: str) -> str:
        return make_document_id((self.folder / name).as_uri())


@pytest.fixture
def runs(node_url: str, index_name: str, tmp_path: Path) -> Runs:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        copy_photo(PHOTOS / name, folder / name)
    model = ModelSpec(name="stair-mini", backend="onnx")
    return Runs(node_url, IngestOptions(alias=index_name, model=model, dead_letters=tmp_path / "failed.jsonl"), folder)


@pytest.fixture
def stored(client: OpenSearch, index_name: str) -> Callable[[], dict[str, dict[str, Any]]]:
    def stored_() -> dict[str, dict[str, Any]]:
        client.indices.refresh(index=index_name)
        return {hit["_id"]: hit["_source"] for hit in client.search(index=index_name, body={"size": 100})["hits"]["hits"]}

    return stored_


def _vector(source: dict[str, Any]) -> SparseVector:
    return SparseVector.from_mapping(source["tokens"])


def test_index_keeps_its_policy_on_changes(runs: Runs, stored: Callable[[], dict[str, Any]], client: OpenSearch) -> None:
    plain = replace(runs.options, alias=f"{runs.options.alias}-plain")
    runs.report(alias=plain.alias)
    originals = {
        hit["_id"]: _vector(hit["_source"]) for hit in client.search(index=plain.alias, body={"size": 9})["hits"]["hits"]
    }
    assert runs.run(policy=POLICY) == (3, 0)
    assert f"token policy: {POLICY.label}" in runs.messages

    def check() -> None:
        found = stored()
        assert found.keys() == originals.keys()
        for id_, source in found.items():
            expected = build_vector_fields(originals[id_], DocumentSettings(), POLICY)
            assert {name: source[name] for name in source if name in {*expected, "policy", "policy_undo"}} == expected
        assert found[runs.id("tabby-cat.jpg")]["policy"] == POLICY.digest
        assert "policy" not in found[runs.id("dairy-cow.jpg")]

    check()
    assert runs.run() == runs.run(policy=POLICY) == (0, 3)
    copy_photo(PHOTOS / "tabby-cat.jpg", runs.folder / "another.jpg")
    assert runs.run() == (1, 3)
    assert stored()[runs.id("another.jpg")]["tokens"] == stored()[runs.id("tabby-cat.jpg")]["tokens"]
    (runs.folder / "another.jpg").unlink()
    report = runs.report(document=DocumentSettings(thumbnail_px=0))  # other settings: a new index beside it
    assert report.swapped
    check()
    client.indices.delete(index=f"{plain.alias}*")


def test_another_policy_is_rejected_with_the_way_to_apply_it(runs: Runs) -> None:
    runs.run(policy=POLICY)
    other = replace(runs.options, policy=TokenPolicy(mute=("dog",)))
    for go in (
        lambda: runs.report(policy=other.policy),
        lambda: simulate_ingest([open_source(str(runs.folder))], runs.connection, other),
    ):
        with pytest.raises(IndexMismatch, match=r"has the policy quiet .*") as caught:
            go()
        assert f"stair-es policy apply FILE --index {runs.options.alias}" in caught.value.remedy


def test_rerun_after_apply_writes_only_new_images(
    runs: Runs, stored: Callable[[], dict[str, Any]], client: OpenSearch, tmp_path: Path
) -> None:
    runs.run()
    before = stored()
    manager = PolicyManager(Cluster(runs.connection, client), runs.options.alias)
    manager.apply_policy(POLICY, UpdateLimits(), _ignore)
    with_policy = stored()
    for id_, source in before.items():
        expected = {**source, **build_vector_fields(_vector(source), DocumentSettings(), POLICY)}
        assert with_policy[id_] == expected
    assert runs.run() == (0, 3)
    assert stored() == with_policy
    copy_photo(PHOTOS / "tabby-cat.jpg", runs.folder / "new.jpg")
    assert runs.run() == (1, 3)
    assert stored()[runs.id("new.jpg")]["policy"] == POLICY.digest
    (runs.folder / "new.jpg").unlink()
    runs.report(resync=True)
    manager.rollback_policy(UpdateLimits(), _ignore)
    assert stored() == before
    assert runs.run() == (0, 3)


def test_images_without_words_are_kept_and_reported(runs: Runs, stored: Callable[[], dict[str, Any]]) -> None:
    runs.run()
    words = {word for source in stored().values() for word in source["tokens"]}
    assert runs.run(alias=f"{runs.options.alias}-e", policy=TokenPolicy(mute=tuple(sorted(words)))) == (3, 0)
    assert any("leaves 3 images without tokens" in line for line in runs.messages)
    assert runs.run(alias=f"{runs.options.alias}-e") == (0, 3)


def test_a_policy_applied_during_a_run_is_reported_at_its_end(runs: Runs, client: OpenSearch) -> None:
    runs.run()
    manager = PolicyManager(Cluster(runs.connection, client), runs.options.alias)
    copy_photo(PHOTOS / "wall-clock.jpg", runs.folder / "new.jpg")

    def say(line: str) -> None:
        runs.messages.append(line)
        if "images found" in line:  # while the run is under way
            manager.apply_policy(POLICY, UpdateLimits(), _ignore)

    with forward_messages(say):
        run_ingest([open_source(str(runs.folder))], runs.connection, runs.options, progress=lambda _: None)
    assert any("the token policy of the index changed during this run" in line for line in runs.messages)


def test_failed_runs_report_a_missed_policy(runs: Runs, client: OpenSearch) -> None:
    runs.run()
    copy_photo(PHOTOS / "wall-clock.jpg", runs.folder / "new.jpg")

    def say(line: str) -> None:
        runs.messages.append(line)
        if "images found" in line:
            PolicyManager(Cluster(runs.connection, client), runs.options.alias).apply_policy(POLICY, UpdateLimits(), _ignore)
            raise IngestError("stopped on the way")

    with forward_messages(say), pytest.raises(IngestError, match="stopped on the way"):
        run_ingest([open_source(str(runs.folder))], runs.connection, runs.options, progress=lambda _: None)
    assert any("the token policy of the index changed during this run" in line for line in runs.messages)


def test_an_incompletely_applied_policy_is_reported(runs: Runs, client: OpenSearch) -> None:
    runs.run()
    [name] = client.indices.get_alias(name=runs.options.alias)
    meta = client.indices.get_mapping(index=name)[name]["mappings"]["_meta"]
    meta["stair_es"]["policy"] = {"digest": POLICY.digest, "policy": POLICY.to_json(), "pending_operation": "apply"}
    client.indices.put_mapping(index=name, body={"_meta": meta})
    assert runs.run() == (0, 3)
    assert any(f"stair-es policy apply --index {runs.options.alias}" in line for line in runs.messages)


@pytest.mark.parametrize("swap", ["auto", "always"])
def test_a_build_without_the_policy_of_the_index_does_not_replace_it(
    runs: Runs, client: OpenSearch, stored: Callable[[], dict[str, Any]], swap: SwapMode
) -> None:
    """Whoever applied a policy to the live index alone: the policy must not be lost by a swap that says nothing."""
    runs.run()
    other, options = DocumentSettings(thumbnail_px=0), ClusterSinkOptions(swap=swap)
    assert runs.report(document=other, sink_options=ClusterSinkOptions(swap="never")).not_swapped_reason
    [live] = client.indices.get_alias(name=runs.options.alias)
    about = client.indices.get_mapping(index=live)[live]["mappings"]["_meta"]
    about["stair_es"]["policy"] = {"digest": POLICY.digest, "policy": POLICY.to_json()}
    client.indices.put_mapping(index=live, body={"_meta": about})
    report = runs.report(document=other, sink_options=options)
    assert not report.swapped
    assert f"it has the token policy {POLICY.label}, this build none" in str(report.not_swapped_reason)
    with forward_messages(runs.messages.append):
        PolicyManager(Cluster(runs.connection, client), runs.options.alias).apply_policy(None, UpdateLimits(), _ignore)
    assert runs.report(document=other, sink_options=options).swapped
    assert stored()[runs.id("tabby-cat.jpg")]["policy"] == POLICY.digest


def _ignore(_: UpdateProgress) -> None:
    pass


def test_option_accepts_a_file(runs: Runs, node_url: str, stored: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    (file := tmp_path / "quiet.json").write_text(json.dumps({**POLICY.to_json(), "name": ""}))
    command = ["ingest", str(runs.folder), "-i", runs.options.alias, "--policy", str(file), "--url", node_url]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert {source.get("policy") for source in stored().values()} == {POLICY.digest, None}
    file.write_text('{"stair_es_policy": 1, "mute": ["a", "a"]}')
    result = CliRunner().invoke(app, command)
    assert "mute[1]: 'a' already has a rule" in str(result.exception)
