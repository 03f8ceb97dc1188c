"""Policies for an existing index: the script gives the same bits as Python, and can be rolled back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.commands import CommandRunner
from support.errors import expect_error
from support.messages import forward_messages
from support.polling import poll_until
from support.servers.recording_proxy import RecordingProxy, StubResponse

from stair_es import SparseVector, feature_names
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.products import ManagedProduct
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget
from stair_es.cluster.metadata.policy_state import PolicyState
from stair_es.cluster.policy import preview
from stair_es.cluster.policy.manager import PolicyManager, PolicyTarget
from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview, preview_changes
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.errors import ClusterError, UsageError
from stair_es.taught_words import TaughtWord
from stair_es.token_policy import TokenPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    Stored = dict[str, dict[str, Any]]

Vectors = dict[str, SparseVector]
Observe = Callable[[UpdateProgress], None]
UNLIMITED = UpdateLimits()
CAT_AND_DOG = {"1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
SETTINGS = DocumentSettings(top_token_count=5, impacts=True)
_LATIN = "dog dogs ##dog cat kitten car automobile a.b 100% % %2E it's x|y b2b Æ e\u0301 привет ٣ ½"
_OTHER = "犬 日本 ひ ｶ \u3041\u3041 \uf900\uf900 \U00020000\u3400 \ue000z \uffdc \U00010400 \U00020000 \U0001f600"
WORDS = [*_LATIN.split(), *_OTHER.split(), "", "ab" * 130]
"""Escapes, what `impacts` leaves out, and characters whose order differs between code points and UTF-16."""


def draw_vector(rng: np.random.Generator, at_least: int = 0) -> SparseVector:
    chosen = rng.choice(len(WORDS), size=int(rng.integers(at_least, len(WORDS))), replace=False)
    kinds = (
        lambda: float(rng.random()) + 1e-9,  # all 53 bits
        lambda: float(np.float32(rng.random() + 1e-6)),
        lambda: int(rng.integers(1, 2000)) / 2000,  # ties, and halves for the rounding of impacts
        lambda: 2.0,
        lambda: float(rng.random()) * 1e-20 + 1e-30,
    )
    return SparseVector.from_pairs((WORDS[i], kinds[int(rng.integers(len(kinds)))]()) for i in chosen)


def draw_vectors(seed: int, count: int, at_least: int) -> Vectors:
    rng = np.random.default_rng(seed)
    return {f"{i}": draw_vector(rng, at_least) for i in range(count)}


def draw_policy(rng: np.random.Generator) -> TokenPolicy:
    mixed = [str(word) for word in rng.permutation(WORDS)]
    sources, targets = mixed[:8], [*mixed[8:11], "new.word", "neu"]
    merge: dict[str, tuple[str, ...]] = {}
    for source in sources[2:]:
        target = str(rng.choice(targets))
        merge[target] = (*merge.get(target, ()), source)
    rename = {source: str(rng.choice(targets)) for source in sources[:2]}
    caps = [*targets[:2], *mixed[11:16]]
    return TokenPolicy(
        mute=tuple(mixed[16:20]),
        floor={word: float(rng.random()) + 1e-3 for word in [targets[2], *mixed[20:24]]},
        cap={word: float(rng.random()) + 1e-3 for word in caps},
        rename=rename,
        merge=merge,
        teach={word: draw_taught_word(word, rng) for word in ("windmill", "art nouveau", "kühlschrank")},
    )


def draw_taught_word(word: str, rng: np.random.Generator) -> TaughtWord:
    tokens = rng.choice(WORDS, size=int(rng.integers(1, 20)), replace=False)
    floor = float(rng.random())
    return TaughtWord(
        word=word,
        tokens={str(token): int(rng.integers(1, 1001)) / 1000 for token in tokens},
        floor=floor,
        full=floor + float(rng.random()) * 5 + 0.01,
    )


def ignore_progress(_: UpdateProgress) -> None:
    pass


class PolicyCluster(Cluster):
    """What the functions under test take, in one place."""

    def __init__(self, client: OpenSearch, url: str, alias: str, settings: DocumentSettings = SETTINGS) -> None:
        self.settings = settings
        super().__init__(Connection(url=url), client)
        self.url, self.alias = url, alias
        self.manager = PolicyManager(self, alias)
        self.messages: list[str] = []
        self.updated_as: ManagedProduct = ""
        """The product as which the documents of `open_with` are updated."""

    def open_index(self, policy: TokenPolicy | None = None, model: str = "m-1", shards: int = 1) -> WriteTarget:
        body = self.build_body()
        body["settings"]["index"]["number_of_shards"] = shards
        index_spec = self.build_index_spec(model)
        with forward_messages(self.messages.append):
            return open_index(self, self.alias, body, index_spec, policy)

    def open_with(self, vectors: Vectors, policy: TokenPolicy | None = None, shards: int = 1) -> WriteTarget:
        """Open the index, and write documents with these vectors."""
        target = self.open_index(policy, shards=shards)
        self.write_vectors(vectors, policy)
        self.product = self.updated_as or self.product
        return target

    def build_index_spec(self, model: str = "m-1") -> IndexSpec:
        return IndexSpec(model_name="m", model_id=model, settings=dict(asdict(self.settings)))

    def build_body(self) -> dict[str, Any]:
        return build_index_body(get_cluster_info(self), self.settings)

    def write_vectors(self, vectors: Vectors, policy: TokenPolicy | None = None, to: str = "") -> None:
        documents = [(id_, build_document(id_, vector, policy, self.settings)) for id_, vector in vectors.items()]
        written = BulkWriter(cluster=self, index=to or self.get_live_index()).write(documents)
        assert set(written.outcomes.values()) <= {None}

    def get_live_index(self) -> str:
        [name] = self.client.indices.get_alias(name=self.alias)
        return str(name)

    def read_stored(self, index: str = "") -> Stored:
        self.client.indices.refresh(index=index or self.alias)
        body = {"size": 5000, "query": {"match_all": {}}}
        return {hit["_id"]: hit["_source"] for hit in self.client.search(index=index or self.alias, body=body)["hits"]["hits"]}

    def apply_policy(
        self, policy: TokenPolicy | None, limits: UpdateLimits = UNLIMITED, observe: Observe = ignore_progress
    ) -> dict[str, Any]:
        with forward_messages(self.messages.append):
            return dict(self.manager.apply_policy(policy, limits, observe))

    def roll_back(self, limits: UpdateLimits = UNLIMITED, observe: Observe = ignore_progress) -> dict[str, Any]:
        with forward_messages(self.messages.append):
            return dict(self.manager.rollback_policy(limits, observe, taught_words=True))

    def preview_policy(self, policy: TokenPolicy | None) -> tuple[PolicyPreview, list[DocumentChange]]:
        self.client.indices.refresh(index=self.alias)
        plan, [target, *_] = PolicyPreview(), self.manager.list_targets()
        return plan, list(preview_changes(self, target, policy, plan))

    def read_meta(self) -> dict[str, Any]:
        [index] = self.client.indices.get_mapping(index=self.alias).values()
        about: dict[str, Any] = index["mappings"]["_meta"]["stair_es"]
        return about

    def find_ids(self, word: str) -> set[str]:
        query = {"rank_feature": {"field": f"tokens.{feature_names.escape_feature(word)}", "linear": {}}}
        hits = self.client.search(index=self.alias, body={"size": 1000, "query": query})["hits"]["hits"]
        return {hit["_id"] for hit in hits}


def build_document(
    id_: str, vector: SparseVector, policy: TokenPolicy | None, settings: DocumentSettings = SETTINGS
) -> dict[str, Any]:
    return {"uri": f"file:///{id_}", "width": 3, **build_vector_fields(vector, settings, policy)}


def check_stored(stored: Stored, vectors: Vectors, policy: TokenPolicy | None) -> None:
    """To the bit, and in the same order."""
    assert stored.keys() == vectors.keys()
    for id_, vector in vectors.items():
        expected = build_document(id_, vector, policy)
        assert stored[id_] == expected
        assert list(stored[id_]["tokens"].items()) == list(expected["tokens"].items())


BOTH_WAYS = pytest.mark.parametrize("cluster", ["", "elasticsearch-serverless"], ids=["script", "from here"], indirect=True)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, client: OpenSearch, node_url: str, index_name: str) -> PolicyCluster:
    opened = PolicyCluster(client, node_url, index_name)
    opened.updated_as = getattr(request, "param", "")
    return opened


@BOTH_WAYS
def test_the_script_and_python_agree_to_the_bit(cluster: PolicyCluster) -> None:
    rng = np.random.default_rng(7)
    vectors = {f"{i}": draw_vector(rng) for i in range(200)}
    cluster.open_with(vectors)
    for _ in range(3):
        policy = draw_policy(rng)
        plan, planned = cluster.preview_policy(policy)
        [counts] = cluster.apply_policy(policy).values()
        stored = cluster.read_stored()
        check_stored(stored, vectors, policy)
        assert (counts.changed, counts.examined, counts.failed) == (plan.changed, plan.examined, {})
        assert {change.id: change.after for change in planned} == {
            change.id: policy.apply(vectors[change.id]).vector for change in planned
        }
        assert cluster.read_meta()["policy"] == {"digest": policy.digest, "policy": policy.to_json()}
    assert any(not source["tokens"] for source in stored.values())
    [repeated] = cluster.apply_policy(policy).values()
    assert (repeated.changed, cluster.preview_policy(policy)[0].changed) == (0, 0)
    plan, _ = cluster.preview_policy(None)
    [counts] = cluster.roll_back().values()
    assert counts.changed == counts.examined == plan.changed > 150
    check_stored(cluster.read_stored(), vectors, None)
    assert "policy" not in cluster.read_meta()


@pytest.mark.parametrize("slices", [0, 2])
def test_parts_that_go_at_once_are_counted_together(cluster: PolicyCluster, slices: int) -> None:
    policy, reports = TokenPolicy(mute=("dog",), cap={"cat": 1e-25}), list[UpdateProgress]()
    vectors = draw_vectors(12, 150, 15)
    cluster.open_with(vectors, shards=3)
    plan, _ = cluster.preview_policy(policy)
    limits = UpdateLimits(requests_per_second=200, slices=slices)
    [counts] = cluster.apply_policy(policy, limits, reports.append).values()
    assert (counts.changed, counts.examined) == (plan.changed, plan.examined)
    assert max(progress.processed for progress in reports) == max(progress.total for progress in reports) == plan.examined
    check_stored(cluster.read_stored(), vectors, policy)
    [counts] = cluster.roll_back(limits, reports.append).values()
    assert counts.changed == plan.changed
    check_stored(cluster.read_stored(), vectors, None)


@BOTH_WAYS
def test_rules_are_counted_and_found_words_follow(cluster: PolicyCluster) -> None:
    policy = TokenPolicy(mute=("egyptian",), cap={"cat": 0.5}, rename={"kitten": "young.cat"}, merge={"dog": ("dogs",)})
    vectors = {
        "cat": SparseVector.from_mapping({"cat": 0.75, "kitten": 0.5, "egyptian": 0.25}),
        "dog": SparseVector.from_mapping({"dogs": 1.5, "dog": 1.0}),
        "mute": SparseVector.from_mapping({"egyptian": 0.5}),
        "other": SparseVector.from_mapping({"cat": 0.25, "dog": 0.5}),
    }
    cluster.open_with(vectors)
    plan, planned = cluster.preview_policy(policy)
    assert (plan.examined, plan.changed, plan.emptied) == (4, 3, 1)
    assert dict(plan.rules) == {"mute egyptian": 2, "cap cat": 1, "kitten -> young.cat": 1, "dogs -> dog": 1}
    [cat] = [change for change in planned if change.id == "cat"]
    assert cat.token_changes == {"cat": (0.75, 0.5), "kitten": (0.5, None), "egyptian": (0.25, None), "young.cat": (None, 0.5)}
    assert cluster.read_stored()["cat"] == build_document("cat", vectors["cat"], None)

    [counts] = cluster.apply_policy(policy).values()
    assert (counts.changed, counts.unchanged, counts.examined) == (3, 1, 4)
    assert cluster.find_ids("egyptian") == cluster.find_ids("kitten") == cluster.find_ids("dogs") == set()
    assert (cluster.find_ids("young.cat"), cluster.find_ids("dog")) == ({"cat"}, {"dog", "other"})
    assert cluster.client.count(index=cluster.alias)["count"] == 4
    [target] = cluster.manager.list_targets()
    assert (cluster.manager.count_by_policy(target), cluster.manager.count_emptied(target)) == ({policy.digest: 3}, 1)
    cluster.roll_back()
    assert (cluster.find_ids("egyptian"), cluster.find_ids("young.cat")) == ({"cat", "mute"}, set())


def test_cluster_failures_between_pages_of_a_plan_are_our_errors(
    cluster: PolicyCluster, node_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "_PAGE_SIZE", 1)
    cluster.open_with(draw_vectors(13, 2, 10))
    with (
        RecordingProxy(
            node_url, gate=lambda request: StubResponse(status=500) if b"search_after" in request.body else None
        ) as proxy,
        Cluster(Connection(url=proxy.url)) as proxied,
    ):
        with expect_error("cluster-error") as caught:
            PolicyCluster(proxied.client, proxy.url, cluster.alias).preview_policy(TokenPolicy(mute=("cat",)))
        assert "500" in caught.value.message


def test_a_second_apply_reaches_documents_of_a_concurrent_ingest(cluster: PolicyCluster) -> None:
    policy, older = TokenPolicy(mute=("dog", "cat")), TokenPolicy(cap={"car": 0.01})
    vectors = draw_vectors(8, 300, 10)
    cluster.open_with(vectors, older)
    is_done, conflicts = threading.Event(), set[int]()

    def rewrite_documents() -> None:
        while not is_done.is_set():
            cluster.write_vectors({id_: vectors[id_] for id_ in list(vectors)[::7]}, older)

    writer = threading.Thread(target=rewrite_documents)

    def observe(progress: UpdateProgress) -> None:
        conflicts.add(progress.conflicts)
        if progress.changed > 100:  # it must end some time
            is_done.set()

    writer.start()
    try:
        cluster.apply_policy(policy, UpdateLimits(requests_per_second=200), observe)
    finally:
        is_done.set()
        writer.join()
    assert max(conflicts) > 0
    cluster.write_vectors({"0": vectors["0"]}, older)
    [counts] = cluster.apply_policy(None).values()
    assert counts.changed >= 1
    check_stored(cluster.read_stored(), vectors, policy)


@pytest.mark.parametrize("operation", ["apply", "rollback"])
def test_next_run_completes_a_killed_client(cluster: PolicyCluster, tmp_path: Path, operation: str) -> None:
    policy = TokenPolicy(name="p", mute=("dog",), cap={"cat": 0.25})
    vectors = draw_vectors(9, 400, 20)
    cluster.open_with(vectors)
    with run_apply(cluster, policy, tmp_path) as process:
        process.kill()
    assert process.returncode == -9
    assert cluster.read_meta()["policy"]["pending_operation"] == "apply"
    assert list_tasks(cluster)  # it goes on without its client
    cluster.messages.clear()

    [counts] = (cluster.apply_policy(policy) if operation == "apply" else cluster.roll_back()).values()
    assert counts.failed == {}
    assert any(cluster.get_live_index() in line for line in cluster.messages)  # that it completes the first one
    assert not list_tasks(cluster)
    check_stored(cluster.read_stored(), vectors, policy if operation == "apply" else None)
    assert cluster.read_meta().get("policy", {}).get("digest") == (policy.digest if operation == "apply" else None)
    assert "pending_operation" not in cluster.read_meta().get("policy", {})


def test_interrupted_clients_cancel_their_task(cluster: PolicyCluster, tmp_path: Path) -> None:
    cluster.open_with(draw_vectors(11, 200, 20))
    with run_apply(cluster, TokenPolicy(mute=("dog",)), tmp_path) as process:
        process.terminate()
        assert process.wait(120) == 143
    assert not list_tasks(cluster)
    assert cluster.read_meta()["policy"]["pending_operation"] == "apply"


@contextmanager
def run_apply(cluster: PolicyCluster, policy: TokenPolicy, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The installed command in the midst of its work."""
    (file := tmp_path / "p.json").write_text(json.dumps(policy.to_json()))
    command = [str(Path(sys.executable).with_name("stair-es")), "policy", "apply", str(file), "--requests-per-second", "20"]
    environment = os.environ | {"STAIR_ES_URL": cluster.url, "STAIR_ES_INDEX": cluster.alias}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            poll_until(lambda: 0 < count_updated(cluster) < 150)
            yield process
        finally:
            process.kill()


def count_updated(cluster: PolicyCluster) -> int:
    cluster.client.indices.refresh(index=cluster.alias)
    count: int = cluster.client.count(index=cluster.alias, body={"query": {"exists": {"field": "policy"}}})["count"]
    return count


def list_tasks(cluster: PolicyCluster) -> list[str]:
    nodes = cluster.client.tasks.list(params={"actions": "*update/byquery", "detailed": "true"}).get("nodes", {})
    [target] = cluster.manager.list_targets()
    return [id_ for node in nodes.values() for id_, task in node["tasks"].items() if target.name in task["description"]]


@BOTH_WAYS
def test_rejected_documents_are_counted_and_repeated(cluster: PolicyCluster) -> None:
    policy, pipeline = TokenPolicy(mute=("cat",)), f"{cluster.alias}-refuse"
    vectors = {f"{i}": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25}) for i in range(20)}
    opened = cluster.open_with(vectors)
    refuse = {
        "processors": [{"script": {"source": "if (ctx._id == '7' || ctx._id == '8') { throw new Exception('not ' + ctx._id); }"}}]
    }
    cluster.client.ingest.put_pipeline(id=pipeline, body=refuse)
    try:
        cluster.client.indices.put_settings(index=opened.name, body={"index.default_pipeline": pipeline})
        [counts] = cluster.apply_policy(policy, UpdateLimits(requests_per_second=10)).values()
        assert (counts.changed, counts.unchanged, set(counts.failed), counts.examined) == (18, 0, {"7", "8"}, 20)
        assert all("not " in reason for reason in counts.failed.values())
        assert cluster.read_meta()["policy"]["pending_operation"] == "apply"
        cluster.client.indices.put_settings(index=opened.name, body={"index.default_pipeline": None})
        [counts] = cluster.apply_policy(None).values()
        assert (counts.changed, counts.examined) == (2, 2)
        assert "pending_operation" not in cluster.read_meta()["policy"]
        check_stored(cluster.read_stored(), vectors, policy)
    finally:
        cluster.client.ingest.delete_pipeline(id=pipeline)


def test_custom_mappings_get_the_policy_fields(cluster: PolicyCluster) -> None:
    policy = TokenPolicy(mute=("cat",))
    body = cluster.build_body()
    for name in ("policy", "policy_undo"):
        del body["mappings"]["properties"][name]
    with forward_messages(cluster.messages.append):
        opened = open_index(cluster, cluster.alias, body, cluster.build_index_spec())
    cluster.write_vectors(CAT_AND_DOG)
    assert cluster.open_index().name == opened.name  # no new build for that
    cluster.apply_policy(policy)
    assert open_index(cluster, cluster.alias, body, cluster.build_index_spec()).name == opened.name
    check_stored(cluster.read_stored(), CAT_AND_DOG, policy)
    properties = cluster.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["properties"]
    assert (properties["policy"], properties["policy_undo"]) == ({"type": "keyword"}, {"type": "object", "enabled": False})


@pytest.mark.parametrize("type_", ["text", "keyword"])
def test_columns_of_the_same_name_are_kept(cluster: PolicyCluster, type_: str) -> None:
    """Of an index from before there were policies: taking a policy away must not take the column away."""
    cluster.open_index()
    alias, meta = f"{cluster.alias}-own", {"stair_es": cluster.read_meta()}
    mappings = {"_meta": meta, "properties": {"policy": {"type": type_}, "tokens": {"type": "rank_features"}}}
    cluster.client.indices.create(index=f"{alias}-1", body={"mappings": mappings, "aliases": {alias: {}}})
    document = {"policy": "no smoking", "tokens": {"a": 0.5}}
    cluster.client.index(index=alias, id="1", body=document, params={"refresh": "true"})
    manager = PolicyManager(cluster, alias)
    policy, observe = TokenPolicy(mute=("a",)), lambda _: None
    [target] = manager.list_targets()
    for change in (
        lambda: manager.apply_policy(policy, UpdateLimits(), observe),
        lambda: manager.rollback_policy(UpdateLimits(), observe),
        lambda: list(preview_changes(cluster, target, policy, PolicyPreview())),
    ):
        with expect_error("policy-field-taken"):
            change()
    assert (manager.count_by_policy(target), manager.count_emptied(target)) == ({}, 0)
    assert cluster.client.indices.get_mapping(index=alias)[f"{alias}-1"]["mappings"] == mappings
    assert cluster.client.get(index=alias, id="1")["_source"] == document


@BOTH_WAYS
def test_an_unexpected_document_fails_alone(cluster: PolicyCluster) -> None:
    """Engines look at `tokens`, not at `policy_undo`; null is a weight that they take."""
    cluster.open_with({})
    documents: Stored = {
        "null": {"tokens": {"cat": None, "dog": 0.5}},
        "undo": {"tokens": {"dog": 0.5}, "policy": "x", "policy_undo": {"tokens": {"cat": "many"}, "added": []}},
        "list": {"tokens": {"dog": 0.5}, "policy": "x", "policy_undo": {"tokens": [1], "added": [1, None]}},
        "forms": {"tokens": {"dog": 0.5, "cat": 0.5}, "top_tokens": "dog", "impacts": ["dog|500"]},
    }
    follows = {"top_tokens": ["cat", "dog"]}  # a string is what a synthetic source has of one token
    null = {} if cluster.updated_as else {"cat": None}  # only the script keeps it
    for id_, document in documents.items():
        cluster.client.index(index=cluster.alias, id=id_, body=document, params={"refresh": "true"})
    [counts] = cluster.apply_policy(TokenPolicy(cap={"dog": 0.25})).values()
    assert (counts.changed, set(counts.failed)) == (3, {"undo"})
    stored = cluster.read_stored()
    assert stored["null"]["tokens"] == {"dog": 0.25, **null}
    assert stored["list"]["tokens"] == {"dog": 0.25}
    assert stored["forms"] == {**documents["forms"], **stored["forms"], **follows, "impacts": ["dog|500"]}
    plan, _ = cluster.preview_policy(TokenPolicy(mute=("cat",)))
    cluster.client.delete(index=cluster.alias, id="undo", params={"refresh": "true"})
    assert (plan.changed, plan.only_reverted) == (3, 2)
    cluster.roll_back()
    assert cluster.read_stored() == {
        "null": {"tokens": {"dog": 0.5, **null}},
        "list": {"tokens": {"dog": 0.5}},
        "forms": {**documents["forms"], **follows},
    }


def test_parallel_build_inherits_the_policy(cluster: PolicyCluster) -> None:
    first, second = TokenPolicy(mute=("cat",)), TokenPolicy(mute=("dog",))
    live = cluster.open_index(first)
    assert live.policy == cluster.open_index().policy == cluster.open_index(first).policy == first
    cluster.write_vectors(CAT_AND_DOG, first)
    build = cluster.open_index(model="m-2")
    assert (build.replaces, build.policy) == (live.name, first)
    cluster.write_vectors(CAT_AND_DOG, first, to=build.name)
    assert {name: counts.changed for name, counts in cluster.apply_policy(second).items()} == {live.name: 1, build.name: 1}
    for name in (live.name, build.name):
        check_stored(cluster.read_stored(name), CAT_AND_DOG, second)
    assert cluster.open_index(model="m-2").policy == cluster.open_index().policy == second
    for model in ("m-1", "m-2", "m-3"):
        with expect_error("other-policy") as caught:
            cluster.open_index(first, model=model)
        assert "policy apply" in caught.value.remedy


def test_builds_of_another_model_leave_taught_words_out(cluster: PolicyCluster) -> None:
    """They come back if the new index is taught, and nothing else of the policy is lost."""
    word = TaughtWord(word="pet", tokens={"cat": 1.0, "dog": 1.0}, floor=0.1, full=1.0, model="m-1")
    muted = TokenPolicy(mute=("dog",))
    both = muted.change_words({"pet": word})
    live = cluster.open_with(CAT_AND_DOG, both)
    assert cluster.read_stored()["1"]["tokens"] == {"cat": 0.5, "#pet": word.compute_weight(CAT_AND_DOG["1"])}
    build = cluster.open_index(model="m-2")
    assert build.policy == muted
    assert any("pet" in message for message in cluster.messages)
    with expect_error("taught-for-other-model"):
        cluster.open_index(both, model="m-3")
    cluster.write_vectors(CAT_AND_DOG, muted, to=build.name)
    changed = cluster.apply_policy(TokenPolicy(cap={"cat": 0.25}))
    assert {name: counts.changed for name, counts in changed.items()} == {live.name: 1, build.name: 1}
    capped = TokenPolicy(cap={"cat": 0.25})
    check_stored(cluster.read_stored(live.name), CAT_AND_DOG, capped.change_words({"pet": word}))
    check_stored(cluster.read_stored(build.name), CAT_AND_DOG, capped)
    assert [change for event in cluster.read_meta()["policy_history"] for change in event["changes"]] == [
        "- mute dog",
        "+ cap cat",
    ]


def test_words_that_are_taught_at_once_are_all_kept(cluster: PolicyCluster) -> None:
    first, second = (TaughtWord(word=word, tokens={"cat": 1.0}, floor=0.1, full=1.0) for word in ("pet", "miez"))
    cluster.open_with(CAT_AND_DOG)

    class Slow(PolicyManager):
        def list_targets(self) -> list[PolicyTarget]:
            """List what is no longer true when it is used."""
            targets = super().list_targets()
            if "miez" not in (targets[0].state.policy or TokenPolicy()).teach:
                cluster.manager.change_words({"miez": second}, [], UNLIMITED, ignore_progress)
            return targets

    Slow(cluster, cluster.alias).change_words({"pet": first}, [], UNLIMITED, ignore_progress)
    check_stored(cluster.read_stored(), CAT_AND_DOG, TokenPolicy(teach={"pet": first, "miez": second}))
    Slow(cluster, cluster.alias).change_words({}, ["pet"], UNLIMITED, ignore_progress)
    check_stored(cluster.read_stored(), CAT_AND_DOG, TokenPolicy(teach={"miez": second}))
    changes = [change for event in cluster.read_meta()["policy_history"] for change in event["changes"]]
    assert changes == ["+ teach miez", "+ teach pet", "- teach pet"]


def test_a_word_that_was_half_forgotten_can_be_forgotten_again(cluster: PolicyCluster) -> None:
    word = TaughtWord(word="pet", tokens={"cat": 1.0}, floor=0.1, full=1.0)
    cluster.open_with(CAT_AND_DOG, TokenPolicy(teach={"pet": word}))

    class Failing(PolicyManager):
        def _check_unchanged(self, target: PolicyTarget, begun: PolicyState) -> None:
            raise ClusterError("it fails", code="update-failed")

    with expect_error("update-failed"):
        Failing(cluster, cluster.alias).change_words({}, ["pet"], UNLIMITED, ignore_progress)
    assert cluster.read_meta()["policy"] == {"digest": None, "pending_operation": "rollback"}
    cluster.manager.change_words({}, ["pet"], UNLIMITED, ignore_progress)
    check_stored(cluster.read_stored(), CAT_AND_DOG, None)
    with expect_error("not-a-taught-word"):
        cluster.manager.change_words({}, ["pet"], UNLIMITED, ignore_progress)


def test_a_run_that_is_overtaken_takes_nothing_back(cluster: PolicyCluster) -> None:
    first, second = (TaughtWord(word=word, tokens={"cat": 1.0}, floor=0.1, full=1.0) for word in ("pet", "miez"))
    cluster.open_with(CAT_AND_DOG)

    class Overtaken(PolicyManager):
        def _check_unchanged(self, target: PolicyTarget, begun: PolicyState) -> None:
            cluster.manager.change_words({"miez": second}, [], UNLIMITED, ignore_progress)
            super()._check_unchanged(target, begun)

    with expect_error("policy-changed-meanwhile"):
        Overtaken(cluster, cluster.alias).change_words({"pet": first}, [], UNLIMITED, ignore_progress)
    check_stored(cluster.read_stored(), CAT_AND_DOG, TokenPolicy(teach={"pet": first, "miez": second}))
    assert "pending_operation" not in cluster.read_meta()["policy"]


def test_build_started_during_an_apply_gets_the_policy(cluster: PolicyCluster) -> None:
    """It was made before `_meta` named the policy that it was to inherit."""
    policy = TokenPolicy(mute=("cat",))
    live = cluster.open_with(CAT_AND_DOG)
    builds: list[WriteTarget] = []

    class Late(PolicyManager):
        def list_targets(self) -> list[PolicyTarget]:
            targets = super().list_targets()
            if not builds:
                builds.append(cluster.open_index(model="m-2"))
                cluster.write_vectors(CAT_AND_DOG, to=builds[0].name)
            return targets

    with forward_messages(cluster.messages.append):
        results = Late(cluster, cluster.alias).apply_policy(policy, UpdateLimits(), lambda _: None)
    assert {name: counts.changed for name, counts in results.items()} == {live.name: 1, builds[0].name: 1}
    check_stored(cluster.read_stored(builds[0].name), CAT_AND_DOG, policy)
    assert cluster.open_index(model="m-2").policy == policy


def test_a_foreign_index_or_one_without_a_policy_is_rejected(cluster: PolicyCluster) -> None:
    with expect_error("not-alias-of-one-index"):
        cluster.apply_policy(TokenPolicy(mute=("a",)))
    opened = cluster.open_index()
    with expect_error("no-policy", UsageError):
        cluster.apply_policy(None)
    with expect_error("not-alias-of-one-index"):
        PolicyManager(cluster, opened.name).list_targets()
    [counts] = cluster.roll_back().values()
    assert counts.examined == 0
    cluster.client.indices.create(index=f"{cluster.alias}-x", body={"aliases": {f"{cluster.alias}-y": {}}})
    with expect_error("foreign-index"):
        PolicyManager(cluster, f"{cluster.alias}-y").list_targets()


@pytest.mark.parametrize(
    ("node", "settings"),
    [
        ("elasticsearch7_url", DocumentSettings(top_token_count=5)),
        ("elasticsearch9_url", DocumentSettings(top_token_count=5, vector="sparse_vector")),
    ],
    ids=["elasticsearch7", "elasticsearch9"],
)
def test_engines_without_scripts_change_no_policy(
    node: str, settings: DocumentSettings, request: pytest.FixtureRequest, make_index_name: Callable[[str], str]
) -> None:
    url: str = request.getfixturevalue(node)
    policy, other = TokenPolicy(mute=("cat",)), TokenPolicy(mute=("dog",))
    with Cluster(Connection(url=url)) as opened:
        cluster = PolicyCluster(opened.client, url, make_index_name(url), settings)
        assert cluster.open_index(policy).policy == cluster.open_index().policy == policy
        cluster.write_vectors(CAT_AND_DOG, policy)
        assert {id_: source["policy"] for id_, source in cluster.read_stored().items()} == {"1": policy.digest}
        before = cluster.read_meta()
        for change in (partial(cluster.apply_policy, other), cluster.roll_back):
            with expect_error("no-scripts") as caught:
                change()
            assert all(part in caught.value.remedy for part in ("stair-es ingest", "--policy"))
        assert cluster.read_meta() == before
        [document_change] = cluster.preview_policy(other)[1]  # looking takes no script
        assert document_change.token_changes == {"dog": (0.25, None), "cat": (None, 0.5)}


def test_a_task_cancelled_by_others_is_not_a_success(cluster: PolicyCluster) -> None:
    cluster.open_with(draw_vectors(10, 100, 20))

    def cancel_tasks(progress: UpdateProgress) -> None:
        if progress.changed:
            for id_ in list_tasks(cluster):
                cluster.client.tasks.cancel(task_id=id_)

    with expect_error("update-cancelled"):
        cluster.apply_policy(TokenPolicy(mute=("dog",)), UpdateLimits(requests_per_second=10), cancel_tasks)
    assert cluster.read_meta()["policy"]["pending_operation"] == "apply"


def test_of_two_runs_the_later_one_wins(cluster: PolicyCluster) -> None:
    """The first one's end must not take the second one's task along."""
    cluster.open_index()
    vectors = draw_vectors(12, 100, 20)
    cluster.write_vectors(vectors)
    second, results_of_second, is_working = TokenPolicy(mute=("cat",)), list[dict[str, Any]](), threading.Event()

    def signal_progress(progress: UpdateProgress) -> None:
        if progress.changed:
            is_working.set()

    def apply_second() -> None:
        results_of_second.append(cluster.apply_policy(second, UpdateLimits(requests_per_second=20), signal_progress))

    second_thread = threading.Thread(target=apply_second)

    def observe(progress: UpdateProgress) -> None:
        if progress.changed and not second_thread.ident:
            second_thread.start()
            assert is_working.wait(120)

    with expect_error("update-cancelled"):
        cluster.apply_policy(TokenPolicy(mute=("dog",)), UpdateLimits(requests_per_second=10), observe)
    assert not results_of_second
    second_thread.join(60)
    assert results_of_second
    check_stored(cluster.read_stored(), vectors, second)


def test_the_commands(cluster: PolicyCluster, tmp_path: Path) -> None:
    command = CommandRunner({"STAIR_ES_URL": cluster.url, "STAIR_ES_INDEX": cluster.alias}, "policy")
    policy = TokenPolicy(name="quiet", mute=("cat",), cap={"dog": 0.125})
    (file := tmp_path / "quiet.json").write_text(json.dumps(policy.to_json()))
    opened = cluster.open_index()
    cluster.write_vectors(
        {"2": SparseVector.from_mapping({"cat": 0.5}), "1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
    )
    cluster.read_stored()  # refreshed: a plan sees what a search sees
    assert command.read_json("show")[0]["digest"] is None
    output = command.read_output("plan", file, "--ids", tmp_path / "ids.jsonl")
    assert re.search(r"\b2 of 2\b", output)
    assert [rule for rule in ("mute cat", "cap dog") if rule not in output] == []
    ids = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    assert {line["id"]: line["rules"] for line in ids} == {"1": ["mute cat", "cap dog"], "2": ["mute cat"]}
    plan = command.read_json("plan", file, "--samples", "1")
    assert (plan["changed"], plan["emptied"], plan["rules"]) == (2, 1, {"mute cat": 2, "cap dog": 1})
    assert [sample["id"] for sample in plan["samples"]] == ["1"]  # which changes most: a word goes, another one is capped
    assert command.read_json("plan", file, "--samples", "0")["samples"] == []
    counts = {"index": opened.name, "unchanged": 0, "failed": [], "token_index": None}
    assert command.read_json("apply", file) == [{**counts, "examined": 2, "changed": 2}]
    assert command.read_json("apply") == [{**counts, "examined": 0, "changed": 0}]
    assert opened.name in command.read_output("apply")
    [fact] = command.read_json("show")
    assert (fact["digest"], fact["documents"], fact["emptied"]) == (policy.digest, {policy.digest: 2}, 1)
    assert policy.label in command.read_output("show")
    assert re.search(r"\b2 changed\b", command.read_output("rollback"))
