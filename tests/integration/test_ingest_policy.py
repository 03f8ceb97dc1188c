"""Ingests with a token policy: it is the index's, later runs keep it, and nothing is encoded again for its sake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.corpora.ingest_sources import PHOTOS, copy_photo
from support.errors import expect_error
from support.messages import forward_messages
from support.plugin_metadata import install_colors_plugin

from stair_es import SparseVector
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

POLICY = TokenPolicy(name="quiet", mute=("black",), cap={"brown": 0.25}, rename={"red": "dark.red"})
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "wall-clock.jpg")


class PolicyRuns:
    """Ingests of one folder into one alias."""

    def __init__(self, client: OpenSearch, url: str, options: IngestOptions, folder: Path) -> None:
        self.client, self.connection, self.options, self.folder = client, Connection(url=url), options, folder
        self.alias, self.messages = options.alias, list[str]()
        self.manager = PolicyManager(Cluster(self.connection, client), self.alias)

    def ingest_folder(self, **changed: object) -> IngestReport:
        options = replace(self.options, **changed)  # type: ignore[arg-type]
        with forward_messages(self.messages.append):
            return run_ingest([open_source(str(self.folder))], self.connection, options, progress=lambda _: None)

    def count_written(self, **changed: object) -> tuple[int, int]:
        """Ingest, and return how many documents were written, and how many unchanged."""
        report = self.ingest_folder(**changed)
        return report.written, report.unchanged

    def apply_policy(self, policy: TokenPolicy | None = POLICY) -> None:
        with forward_messages(self.messages.append):
            self.manager.apply_policy(policy, UpdateLimits(), _ignore_progress)

    def set_policy(self, **more: str) -> None:
        """Enter the policy into the metadata of the index, without a change of its documents."""
        [name] = self.client.indices.get_alias(name=self.alias)
        meta = self.client.indices.get_mapping(index=name)[name]["mappings"]["_meta"]
        meta["stair_es"]["policy"] = {"digest": POLICY.digest, "policy": POLICY.to_json(), **more}
        self.client.indices.put_mapping(index=name, body={"_meta": meta})

    def get_id(self, name: str) -> str:
        return make_document_id((self.folder / name).as_uri())

    def read_documents(self, alias: str = "") -> dict[str, dict[str, Any]]:
        """Map ids to documents."""
        self.client.indices.refresh(index=alias or self.alias)
        hits = self.client.search(index=alias or self.alias, body={"size": 100})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def read_document(self, name: str) -> dict[str, Any]:
        return self.read_documents()[self.get_id(name)]


def _ignore_progress(_: UpdateProgress) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture
def policy_runs(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> PolicyRuns:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        copy_photo(PHOTOS / name, folder / name)
    options = IngestOptions(alias=index_name, model=ModelSpec(name="colors"), dead_letters=tmp_path / "failed.jsonl")
    return PolicyRuns(client, node_url, options, folder)


def _get_vector(source: dict[str, Any]) -> SparseVector:
    return SparseVector.from_mapping(source["tokens"])


def test_index_keeps_its_policy_on_changes(policy_runs: PolicyRuns) -> None:
    plain = f"{policy_runs.alias}-plain"
    policy_runs.ingest_folder(alias=plain)
    originals = {id_: _get_vector(source) for id_, source in policy_runs.read_documents(plain).items()}
    assert policy_runs.count_written(policy=POLICY) == (3, 0)
    assert any(POLICY.label in message for message in policy_runs.messages)

    def check_documents() -> None:
        documents = policy_runs.read_documents()
        assert documents.keys() == originals.keys()
        for id_, source in documents.items():
            expected = build_vector_fields(originals[id_], DocumentSettings(), POLICY)
            assert {name: source[name] for name in source if name in {*expected, "policy", "policy_undo"}} == expected
        assert documents[policy_runs.get_id("tabby-cat.jpg")]["policy"] == POLICY.digest
        assert "policy" not in documents[policy_runs.get_id("wall-clock.jpg")]

    check_documents()
    assert policy_runs.count_written() == policy_runs.count_written(policy=POLICY) == (0, 3)
    copy_photo(PHOTOS / "tabby-cat.jpg", policy_runs.folder / "another.jpg")
    assert policy_runs.count_written() == (1, 3)
    assert policy_runs.read_document("another.jpg")["tokens"] == policy_runs.read_document("tabby-cat.jpg")["tokens"]
    (policy_runs.folder / "another.jpg").unlink()
    report = policy_runs.ingest_folder(document=DocumentSettings(thumbnail_px=0))  # other settings: a new index beside it
    assert report.swapped
    check_documents()


def test_another_policy_is_rejected_with_the_way_to_apply_it(policy_runs: PolicyRuns) -> None:
    policy_runs.ingest_folder(policy=POLICY)
    other = replace(policy_runs.options, policy=TokenPolicy(mute=("dog",)))
    for call in (
        lambda: policy_runs.ingest_folder(policy=other.policy),
        lambda: simulate_ingest([open_source(str(policy_runs.folder))], policy_runs.connection, other),
    ):
        with expect_error("other-policy", IndexMismatch) as caught:
            call()
        assert POLICY.name in caught.value.message
        assert f"apply FILE --index {policy_runs.alias}" in caught.value.remedy


def test_rerun_after_apply_writes_only_new_images(policy_runs: PolicyRuns) -> None:
    policy_runs.ingest_folder()
    before = policy_runs.read_documents()
    policy_runs.apply_policy()
    with_policy = policy_runs.read_documents()
    for id_, source in before.items():
        assert with_policy[id_] == {**source, **build_vector_fields(_get_vector(source), DocumentSettings(), POLICY)}
    assert policy_runs.count_written() == (0, 3)
    assert policy_runs.read_documents() == with_policy
    copy_photo(PHOTOS / "tabby-cat.jpg", policy_runs.folder / "new.jpg")
    assert policy_runs.count_written() == (1, 3)
    assert policy_runs.read_document("new.jpg")["policy"] == POLICY.digest
    (policy_runs.folder / "new.jpg").unlink()
    policy_runs.ingest_folder(resync=True)
    policy_runs.manager.rollback_policy(UpdateLimits(), _ignore_progress)
    assert policy_runs.read_documents() == before
    assert policy_runs.count_written() == (0, 3)


def test_images_without_tokens_are_kept_and_reported(policy_runs: PolicyRuns) -> None:
    policy_runs.ingest_folder()
    tokens = {token for source in policy_runs.read_documents().values() for token in source["tokens"]}
    alias = f"{policy_runs.alias}-e"
    assert policy_runs.count_written(alias=alias, policy=TokenPolicy(mute=tuple(sorted(tokens)))) == (3, 0)
    assert any("3 images" in message and "tokens" in message for message in policy_runs.messages)
    assert policy_runs.count_written(alias=alias) == (0, 3)


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
def test_a_policy_applied_during_a_run_is_reported_at_its_end(policy_runs: PolicyRuns, fails: bool) -> None:
    policy_runs.ingest_folder()
    copy_photo(PHOTOS / "dairy-cow.jpg", policy_runs.folder / "new.jpg")
    messages = list[str]()

    def apply_meanwhile(message: str) -> None:
        messages.append(message)
        if "images found" in message:  # while the run is under way
            policy_runs.manager.apply_policy(POLICY, UpdateLimits(), _ignore_progress)
            if fails:
                raise IngestError("stopped on the way", code="stopped")

    outcome = expect_error("stopped") if fails else nullcontext()
    source = open_source(str(policy_runs.folder))
    with forward_messages(apply_meanwhile), outcome:
        run_ingest([source], policy_runs.connection, policy_runs.options, progress=lambda _: None)
    assert any("policy" in message and "changed" in message for message in messages)


def test_an_incompletely_applied_policy_is_reported(policy_runs: PolicyRuns) -> None:
    policy_runs.ingest_folder()
    policy_runs.set_policy(pending_operation="apply")
    assert policy_runs.count_written() == (0, 3)
    assert any(f"apply --index {policy_runs.alias}" in message for message in policy_runs.messages)


@pytest.mark.parametrize("swap", ["auto", "always"])
def test_a_build_without_the_policy_of_the_index_is_not_swapped(policy_runs: PolicyRuns, swap: SwapMode) -> None:
    """Whoever applied a policy to the live index alone: the policy must not be lost by a swap that says nothing."""
    policy_runs.ingest_folder()
    other, options = DocumentSettings(thumbnail_px=0), ClusterSinkOptions(swap=swap)
    assert policy_runs.ingest_folder(document=other, sink_options=ClusterSinkOptions(swap="never")).not_swapped_reason
    policy_runs.set_policy()
    report = policy_runs.ingest_folder(document=other, sink_options=options)
    assert not report.swapped
    assert POLICY.label in str(report.not_swapped_reason)
    policy_runs.apply_policy(None)
    assert policy_runs.ingest_folder(document=other, sink_options=options).swapped
    assert policy_runs.read_document("tabby-cat.jpg")["policy"] == POLICY.digest


def test_option_accepts_a_file(policy_runs: PolicyRuns, node_url: str, tmp_path: Path) -> None:
    file, command = tmp_path / "quiet.json", CommandRunner({"STAIR_ES_URL": node_url}, "ingest")
    arguments = (policy_runs.folder, "-i", policy_runs.alias, "--model", "colors", "--policy", file)
    file.write_text(json.dumps({**POLICY.to_json(), "name": ""}))
    command.read_output(*arguments)
    assert {source.get("policy") for source in policy_runs.read_documents().values()} == {POLICY.digest, None}
    file.write_text('{"stair_es_policy": 1, "mute": ["a", "a"]}')
    error = command.read_error(*arguments)
    assert (error.code, "mute[1]" in error.message) == ("policy-token-in-two-rules", True)
