"""Policies for an existing index: the script gives the same bits as Python, and can be rolled back."""

from __future__ import annotations

import json
import os
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
from support.messages import forward_messages
from support.polling import poll_until
from support.servers.recording_proxy import RecordingProxy, StubResponse
from typer.testing import CliRunner

from stair_es import SparseVector, feature_names
from stair_es.cli.main import app
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget
from stair_es.cluster.policy.manager import PolicyManager, PolicyTarget
from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview, preview_changes
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.errors import ClusterError, IndexMismatch, UnsupportedTarget, UsageError
from stair_es.token_policy import TokenPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    Stored = dict[str, dict[str, Any]]

SETTINGS = DocumentSettings(top_token_count=5, impacts=True)
_LATIN = "dog dogs ##dog cat kitten car automobile a.b 100% % %2E it's x|y b2b Æ e\u0301 привет ٣ ½"
_OTHER = "犬 日本 ひ ｶ \u3041\u3041 \uf900\uf900 \U00020000\u3400 \ue000z \uffdc \U00010400 \U00020000 \U0001f600"
WORDS = [*_LATIN.split(), *_OTHER.split(), "", "ab" * 130]
"""Escapes, what `impacts` leaves out, and characters whose order differs between code points and UTF-16."""


def _vector(rng: np.random.Generator, at_least: int = 0) -> SparseVector:
    chosen = rng.choice(len(WORDS), size=int(rng.integers(at_least, len(WORDS))), replace=False)
    kinds = (
        lambda: float(rng.random()) + 1e-9,  # all 53 bits
        lambda: float(np.float32(rng.random() + 1e-6)),
        lambda: int(rng.integers(1, 2000)) / 2000,  # ties, and halves for the rounding of impacts
        lambda: 2.0,
        lambda: float(rng.random()) * 1e-20 + 1e-30,
    )
    return SparseVector.from_pairs((WORDS[i], kinds[int(rng.integers(len(kinds)))]()) for i in chosen)


def _policy(rng: np.random.Generator) -> TokenPolicy:
    mixed = [str(word) for word in rng.permutation(WORDS)]
    sources, targets = mixed[:8], [*mixed[8:11], "new.word", "neu"]
    merge: dict[str, tuple[str, ...]] = {}
    for source in sources[2:]:
        target = str(rng.choice(targets))
        merge[target] = (*merge.get(target, ()), source)
    rename = {source: str(rng.choice(targets)) for source in sources[:2]}
    caps = [*targets[:2], *mixed[11:16]]
    return TokenPolicy(
        mute=tuple(mixed[16:20]), cap={word: float(rng.random()) + 1e-3 for word in caps}, rename=rename, merge=merge
    )


class PolicyCluster(Cluster):
    """What the functions under test take, in one place."""

    def __init__(self, client: OpenSearch, url: str, alias: str, settings: DocumentSettings = SETTINGS) -> None:
        self.settings = settings
        super().__init__(Connection(url=url), client)
        self.url, self.alias = url, alias
        self.manager = PolicyManager(self, alias)
        self.messages: list[str] = []

    def open(self, policy: TokenPolicy | None = None, model: str = "m-1", shards: int = 1) -> WriteTarget:
        body = self.body()
        body["settings"]["index"]["number_of_shards"] = shards
        index_spec = self.index_spec(model)
        with forward_messages(self.messages.append):
            return open_index(self, self.alias, body, index_spec, policy)

    def index_spec(self, model: str = "m-1") -> IndexSpec:
        return IndexSpec(model_name="m", model_id=model, settings=dict(asdict(self.settings)))

    def body(self) -> dict[str, Any]:
        return build_index_body(get_cluster_info(self), self.settings)

    def write(self, vectors: dict[str, SparseVector], policy: TokenPolicy | None = None, to: str = "") -> None:
        documents = [(id_, _document(id_, vector, policy, self.settings)) for id_, vector in vectors.items()]
        written = BulkWriter(cluster=self, index=to or self.live()).write(documents)
        assert set(written.outcomes.values()) <= {None}

    def live(self) -> str:
        [name] = self.client.indices.get_alias(name=self.alias)
        return str(name)

    def stored(self, index: str = "") -> Stored:
        self.client.indices.refresh(index=index or self.alias)
        body = {"size": 5000, "query": {"match_all": {}}}
        return {hit["_id"]: hit["_source"] for hit in self.client.search(index=index or self.alias, body=body)["hits"]["hits"]}

    def apply(self, policy: TokenPolicy | None, speed: UpdateLimits | None = None) -> dict[str, Any]:
        with forward_messages(self.messages.append):
            return dict(self.manager.apply_policy(policy, speed or UpdateLimits(), lambda _: None))

    def rollback(self) -> dict[str, Any]:
        with forward_messages(self.messages.append):
            return dict(self.manager.rollback_policy(UpdateLimits(), lambda _: None))

    def plan(self, policy: TokenPolicy | None) -> tuple[PolicyPreview, list[DocumentChange]]:
        self.client.indices.refresh(index=self.alias)
        plan, [target, *_] = PolicyPreview(), self.manager.list_targets()
        return plan, list(preview_changes(self, target, policy, plan))

    def meta(self) -> dict[str, Any]:
        [index] = self.client.indices.get_mapping(index=self.alias).values()
        about: dict[str, Any] = index["mappings"]["_meta"]["stair_es"]
        return about

    def finds(self, word: str) -> set[str]:
        query = {"rank_feature": {"field": f"tokens.{feature_names.escape_feature(word)}", "linear": {}}}
        hits = self.client.search(index=self.alias, body={"size": 1000, "query": query})["hits"]["hits"]
        return {hit["_id"] for hit in hits}


def _document(
    id_: str, vector: SparseVector, policy: TokenPolicy | None, settings: DocumentSettings = SETTINGS
) -> dict[str, Any]:
    return {"uri": f"file:///{id_}", "width": 3, **build_vector_fields(vector, settings, policy)}


def _same(stored: Stored, vectors: dict[str, SparseVector], policy: TokenPolicy | None) -> None:
    """To the bit, and in the same order."""
    assert stored.keys() == vectors.keys()
    for id_, vector in vectors.items():
        wanted = _document(id_, vector, policy)
        assert stored[id_] == wanted
        assert list(stored[id_]["tokens"].items()) == list(wanted["tokens"].items())


@pytest.fixture
def cluster(client: OpenSearch, node_url: str, index_name: str) -> PolicyCluster:
    return PolicyCluster(client, node_url, index_name)


def test_the_script_and_python_agree_to_the_bit_over_random_vectors_and_policies(cluster: PolicyCluster) -> None:
    rng = np.random.default_rng(7)
    vectors = {f"{i}": _vector(rng) for i in range(200)}
    cluster.open()
    cluster.write(vectors)
    for _ in range(3):
        policy = _policy(rng)
        plan, planned = cluster.plan(policy)
        [counts] = cluster.apply(policy).values()
        stored = cluster.stored()
        _same(stored, vectors, policy)
        assert (counts.changed, counts.examined, counts.failed) == (plan.changed, plan.examined, {})
        assert {change.id: change.after for change in planned} == {
            change.id: policy.apply(vectors[change.id]).vector for change in planned
        }
        assert cluster.meta()["policy"] == {"digest": policy.digest, "policy": policy.to_json()}
    assert any(not source["tokens"] for source in stored.values())
    [again] = cluster.apply(policy).values()
    assert (again.changed, cluster.plan(policy)[0].changed) == (0, 0)
    plan, _ = cluster.plan(None)
    [counts] = cluster.rollback().values()
    assert counts.changed == counts.examined == plan.changed > 150
    _same(cluster.stored(), vectors, None)
    assert "policy" not in cluster.meta()


@pytest.mark.parametrize("slices", [0, 2])
def test_parts_that_go_at_once_are_counted_together(cluster: PolicyCluster, slices: int) -> None:
    rng = np.random.default_rng(12)
    policy, seen = TokenPolicy(mute=("dog",), cap={"cat": 1e-25}), list[UpdateProgress]()
    vectors = {f"{i}": _vector(rng, 15) for i in range(150)}
    cluster.open(shards=3)
    cluster.write(vectors)
    plan, _ = cluster.plan(policy)
    how = UpdateLimits(requests_per_second=200, slices=slices)
    with forward_messages(cluster.messages.append):
        [counts] = cluster.manager.apply_policy(policy, how, seen.append).values()
    assert (counts.changed, counts.examined) == (plan.changed, plan.examined)
    assert max(now.processed for now in seen) == max(now.total for now in seen) == plan.examined
    _same(cluster.stored(), vectors, policy)
    with forward_messages(cluster.messages.append):
        [counts] = cluster.manager.rollback_policy(how, seen.append).values()
    assert counts.changed == plan.changed
    _same(cluster.stored(), vectors, None)


def test_rules_are_counted_and_found_words_follow(cluster: PolicyCluster) -> None:
    policy = TokenPolicy(mute=("egyptian",), cap={"cat": 0.5}, rename={"kitten": "young.cat"}, merge={"dog": ("dogs",)})
    vectors = {
        "cat": SparseVector.from_mapping({"cat": 0.75, "kitten": 0.5, "egyptian": 0.25}),
        "dog": SparseVector.from_mapping({"dogs": 1.5, "dog": 1.0}),
        "mute": SparseVector.from_mapping({"egyptian": 0.5}),
        "other": SparseVector.from_mapping({"cat": 0.25, "dog": 0.5}),
    }
    cluster.open()
    cluster.write(vectors)
    plan, planned = cluster.plan(policy)
    assert (plan.examined, plan.changed, plan.emptied) == (4, 3, 1)
    assert dict(plan.rules) == {"mute egyptian": 2, "cap cat": 1, "kitten -> young.cat": 1, "dogs -> dog": 1}
    [cat] = [change for change in planned if change.id == "cat"]
    assert cat.token_changes == {"cat": (0.75, 0.5), "kitten": (0.5, None), "egyptian": (0.25, None), "young.cat": (None, 0.5)}
    assert cluster.stored()["cat"] == _document("cat", vectors["cat"], None)

    [counts] = cluster.apply(policy).values()
    assert (counts.changed, counts.unchanged, counts.examined) == (3, 1, 4)
    assert cluster.finds("egyptian") == cluster.finds("kitten") == cluster.finds("dogs") == set()
    assert (cluster.finds("young.cat"), cluster.finds("dog")) == ({"cat"}, {"dog", "other"})
    assert cluster.client.count(index=cluster.alias)["count"] == 4
    [target] = cluster.manager.list_targets()
    assert (cluster.manager.count_by_policy(target), cluster.manager.count_emptied(target)) == ({policy.digest: 3}, 1)
    cluster.rollback()
    assert (cluster.finds("egyptian"), cluster.finds("young.cat")) == ({"cat", "mute"}, set())


def test_cluster_failures_during_a_plan_are_our_errors(cluster: PolicyCluster, node_url: str) -> None:
    cluster.open()
    cluster.write({"cat": SparseVector.from_mapping({"cat": 0.75})})
    with (
        RecordingProxy(
            node_url, gate=lambda asked: StubResponse(status=500) if asked.target.startswith("/_search/scroll") else None
        ) as proxy,
        Cluster(Connection(url=proxy.url)) as behind,
    ):
        with pytest.raises(ClusterError, match="500"):
            PolicyCluster(behind.client, proxy.url, cluster.alias).plan(TokenPolicy(mute=("cat",)))
        assert [asked.method for asked in proxy.requests if asked.target.startswith("/_search/scroll")] == ["POST", "DELETE"]


def test_documents_of_a_concurrent_ingest_get_the_policy_by_a_second_apply(cluster: PolicyCluster) -> None:
    rng = np.random.default_rng(8)
    policy, older = TokenPolicy(mute=("dog", "cat")), TokenPolicy(cap={"car": 0.01})
    vectors = {f"{i}": _vector(rng, 10) for i in range(300)}
    cluster.open(older)
    cluster.write(vectors, older)
    ended, conflicts = threading.Event(), set[int]()

    def rewrite() -> None:
        while not ended.is_set():
            cluster.write({id_: vectors[id_] for id_ in list(vectors)[::7]}, older)

    writer = threading.Thread(target=rewrite)

    def see(now: UpdateProgress) -> None:
        conflicts.add(now.conflicts)
        if now.changed > 100:  # it must end some time
            ended.set()

    writer.start()
    try:
        with forward_messages(cluster.messages.append):
            cluster.manager.apply_policy(policy, UpdateLimits(requests_per_second=200), see)
    finally:
        ended.set()
        writer.join()
    assert max(conflicts) > 0
    cluster.write({"0": vectors["0"]}, older)
    [counts] = cluster.apply(None).values()
    assert counts.changed >= 1
    _same(cluster.stored(), vectors, policy)


@pytest.mark.parametrize("then", ["apply", "rollback"])
def test_next_run_completes_a_killed_client(cluster: PolicyCluster, tmp_path: Path, then: str) -> None:
    rng = np.random.default_rng(9)
    policy = TokenPolicy(name="p", mute=("dog",), cap={"cat": 0.25})
    vectors = {f"{i}": _vector(rng, 20) for i in range(400)}
    cluster.open()
    cluster.write(vectors)
    with _applying(cluster, policy, tmp_path) as running:
        running.kill()
    assert running.returncode == -9
    assert cluster.meta()["policy"]["pending_operation"] == "apply"
    assert _tasks(cluster)  # it goes on without its client

    [counts] = (cluster.apply(policy) if then == "apply" else cluster.rollback()).values()
    assert counts.failed == {}
    assert any("has not finished" in line for line in cluster.messages)
    assert not _tasks(cluster)
    _same(cluster.stored(), vectors, policy if then == "apply" else None)
    assert cluster.meta().get("policy", {}).get("digest") == (policy.digest if then == "apply" else None)
    assert "pending_operation" not in cluster.meta().get("policy", {})


def test_interrupted_clients_cancel_their_task(cluster: PolicyCluster, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    cluster.open()
    cluster.write({f"{i}": _vector(rng, 20) for i in range(200)})
    with _applying(cluster, TokenPolicy(mute=("dog",)), tmp_path) as running:
        running.terminate()
        assert running.wait(120) == 143
    assert not _tasks(cluster)
    assert cluster.meta()["policy"]["pending_operation"] == "apply"


@contextmanager
def _applying(cluster: PolicyCluster, policy: TokenPolicy, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The installed command in the midst of its work."""
    (file := tmp_path / "p.json").write_text(json.dumps(policy.to_json()))
    command = [str(Path(sys.executable).with_name("stair-es")), "policy", "apply", str(file), "--requests-per-second", "20"]
    environment = os.environ | {"STAIR_ES_URL": cluster.url, "STAIR_ES_INDEX": cluster.alias}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            poll_until(lambda: 0 < _carrying(cluster) < 150)
            yield running
        finally:
            running.kill()


def _carrying(cluster: PolicyCluster) -> int:
    cluster.client.indices.refresh(index=cluster.alias)
    count: int = cluster.client.count(index=cluster.alias, body={"query": {"exists": {"field": "policy"}}})["count"]
    return count


def _tasks(cluster: PolicyCluster) -> list[str]:
    nodes = cluster.client.tasks.list(params={"actions": "*update/byquery", "detailed": "true"}).get("nodes", {})
    [target] = cluster.manager.list_targets()
    return [id_ for node in nodes.values() for id_, task in node["tasks"].items() if target.name in task["description"]]


def test_rejected_documents_are_counted_with_the_reason_and_can_be_repeated(
    cluster: PolicyCluster,
) -> None:
    policy, pipeline = TokenPolicy(mute=("cat",)), f"{cluster.alias}-refuse"
    vectors = {f"{i}": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25}) for i in range(20)}
    opened = cluster.open()
    cluster.write(vectors)
    refuse = {
        "processors": [{"script": {"source": "if (ctx._id == '7' || ctx._id == '8') { throw new Exception('not ' + ctx._id); }"}}]
    }
    cluster.client.ingest.put_pipeline(id=pipeline, body=refuse)
    try:
        cluster.client.indices.put_settings(index=opened.name, body={"index.default_pipeline": pipeline})
        [counts] = cluster.apply(policy, UpdateLimits(requests_per_second=10)).values()
        assert (counts.changed, counts.unchanged, set(counts.failed), counts.examined) == (18, 0, {"7", "8"}, 20)
        assert all("not " in reason for reason in counts.failed.values())
        assert cluster.meta()["policy"]["pending_operation"] == "apply"
        cluster.client.indices.put_settings(index=opened.name, body={"index.default_pipeline": None})
        [counts] = cluster.apply(None).values()
        assert (counts.changed, counts.examined) == (2, 2)
        assert "pending_operation" not in cluster.meta()["policy"]
        _same(cluster.stored(), vectors, policy)
    finally:
        cluster.client.ingest.delete_pipeline(id=pipeline)


def test_custom_mappings_get_the_policy_fields(cluster: PolicyCluster) -> None:
    policy = TokenPolicy(mute=("cat",))
    body = cluster.body()
    for name in ("policy", "policy_undo"):
        del body["mappings"]["properties"][name]
    with forward_messages(cluster.messages.append):
        opened = open_index(cluster, cluster.alias, body, cluster.index_spec())
    vectors = {"1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
    cluster.write(vectors)
    assert cluster.open().name == opened.name  # no new build for that
    cluster.apply(policy)
    assert open_index(cluster, cluster.alias, body, cluster.index_spec()).name == opened.name
    _same(cluster.stored(), vectors, policy)
    properties = cluster.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["properties"]
    assert (properties["policy"], properties["policy_undo"]) == ({"type": "keyword"}, {"type": "object", "enabled": False})


@pytest.mark.parametrize("type_", ["text", "keyword"])
def test_columns_of_the_same_name_are_kept(cluster: PolicyCluster, type_: str) -> None:
    """Of an index from before there were policies: taking a policy away must not take the column away."""
    cluster.open()
    own, meta = f"{cluster.alias}-own", {"stair_es": cluster.meta()}
    mappings = {"_meta": meta, "properties": {"policy": {"type": type_}, "tokens": {"type": "rank_features"}}}
    cluster.client.indices.create(index=f"{own}-1", body={"mappings": mappings, "aliases": {own: {}}})
    document = {"policy": "no smoking", "tokens": {"a": 0.5}}
    cluster.client.index(index=own, id="1", body=document, params={"refresh": "true"})
    manager = PolicyManager(cluster, own)
    policy, see = TokenPolicy(mute=("a",)), lambda _: None
    [target] = manager.list_targets()
    for go in (
        lambda: manager.apply_policy(policy, UpdateLimits(), see),
        lambda: manager.rollback_policy(UpdateLimits(), see),
        lambda: list(preview_changes(cluster, target, policy, PolicyPreview())),
    ):
        with pytest.raises(IndexMismatch, match="column 'policy', a name reserved"):
            go()
    assert (manager.count_by_policy(target), manager.count_emptied(target)) == ({}, 0)
    assert cluster.client.indices.get_mapping(index=own)[f"{own}-1"]["mappings"] == mappings
    assert cluster.client.get(index=own, id="1")["_source"] == document


def test_an_unexpected_document_fails_alone(cluster: PolicyCluster) -> None:
    """Engines look at `tokens`, not at `policy_undo`; null is a weight that they take."""
    cluster.open()
    odd: Stored = {
        "null": {"tokens": {"cat": None, "dog": 0.5}},
        "undo": {"tokens": {"dog": 0.5}, "policy": "x", "policy_undo": {"tokens": {"cat": "many"}, "added": []}},
        "list": {"tokens": {"dog": 0.5}, "policy": "x", "policy_undo": {"tokens": [1], "added": [1, None]}},
    }
    for id_, document in odd.items():
        cluster.client.index(index=cluster.alias, id=id_, body=document, params={"refresh": "true"})
    [counts] = cluster.apply(TokenPolicy(cap={"dog": 0.25})).values()
    assert (counts.changed, set(counts.failed)) == (2, {"undo"})
    stored = cluster.stored()
    assert stored["null"]["tokens"] == {"dog": 0.25, "cat": None}
    assert stored["list"]["tokens"] == {"dog": 0.25}
    cluster.client.delete(index=cluster.alias, id="undo", params={"refresh": "true"})
    plan, _ = cluster.plan(TokenPolicy(mute=("cat",)))
    assert (plan.changed, plan.only_reverted) == (2, 2)
    cluster.rollback()
    assert cluster.stored() == {"null": odd["null"], "list": {"tokens": {"dog": 0.5}}}


def test_parallel_build_inherits_the_policy(cluster: PolicyCluster) -> None:
    first, second = TokenPolicy(mute=("cat",)), TokenPolicy(mute=("dog",))
    vectors = {"1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
    live = cluster.open(first)
    assert live.policy == cluster.open().policy == cluster.open(first).policy == first
    cluster.write(vectors, first)
    build = cluster.open(model="m-2")
    assert (build.replaces, build.policy) == (live.name, first)
    cluster.write(vectors, first, to=build.name)
    assert {name: counts.changed for name, counts in cluster.apply(second).items()} == {live.name: 1, build.name: 1}
    for name in (live.name, build.name):
        _same(cluster.stored(name), vectors, second)
    assert cluster.open(model="m-2").policy == cluster.open().policy == second
    for model in ("m-1", "m-2", "m-3"):
        with pytest.raises(IndexMismatch, match="stair-es policy apply FILE"):
            cluster.open(first, model=model)


def test_build_started_during_an_apply_gets_the_policy(cluster: PolicyCluster) -> None:
    """It was made before `_meta` named the policy that it was to inherit."""
    policy = TokenPolicy(mute=("cat",))
    vectors = {"1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
    live = cluster.open()
    cluster.write(vectors)
    builds: list[WriteTarget] = []

    class Late(PolicyManager):
        def list_targets(self) -> list[PolicyTarget]:
            found = super().list_targets()
            if not builds:
                builds.append(cluster.open(model="m-2"))
                cluster.write(vectors, to=builds[0].name)
            return found

    with forward_messages(cluster.messages.append):
        done = Late(cluster, cluster.alias).apply_policy(policy, UpdateLimits(), lambda _: None)
    assert {name: counts.changed for name, counts in done.items()} == {live.name: 1, builds[0].name: 1}
    _same(cluster.stored(builds[0].name), vectors, policy)
    assert cluster.open(model="m-2").policy == policy


def test_a_foreign_index_or_one_without_a_policy_is_rejected(cluster: PolicyCluster) -> None:
    with pytest.raises(IndexMismatch, match="is not an alias"):
        cluster.apply(TokenPolicy(mute=("a",)))
    opened = cluster.open()
    with pytest.raises(UsageError, match="has no policy"):
        cluster.apply(None)
    with pytest.raises(IndexMismatch, match="is not an alias"):
        PolicyManager(cluster, opened.name).list_targets()
    [counts] = cluster.rollback().values()
    assert counts.examined == 0
    cluster.client.indices.create(index=f"{cluster.alias}-x", body={"aliases": {f"{cluster.alias}-y": {}}})
    with pytest.raises(IndexMismatch, match="not made by stair-es"):
        PolicyManager(cluster, f"{cluster.alias}-y").list_targets()


@pytest.mark.parametrize(
    ("node", "settings"),
    [
        ("elasticsearch7_url", DocumentSettings(top_token_count=5)),
        ("elasticsearch9_url", DocumentSettings(top_token_count=5, vector="sparse_vector")),
    ],
    ids=["elasticsearch7", "elasticsearch9"],
)
def test_policies_without_scripting_are_rejected_before_any_change(
    node: str, settings: DocumentSettings, request: pytest.FixtureRequest, make_index_name: Callable[[str], str]
) -> None:
    url: str = request.getfixturevalue(node)
    policy, other = TokenPolicy(mute=("cat",)), TokenPolicy(mute=("dog",))
    vectors = {"1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})}
    with Cluster(Connection(url=url)) as opened:
        cluster = PolicyCluster(opened.client, url, make_index_name(url), settings)
        assert cluster.open(policy).policy == cluster.open().policy == policy
        cluster.write(vectors, policy)
        assert {id_: source["policy"] for id_, source in cluster.stored().items()} == {"1": policy.digest}
        before = cluster.meta()
        for change in (partial(cluster.apply, other), cluster.rollback):
            with pytest.raises(UnsupportedTarget, match="it has no painless") as caught:
                change()
            assert "stair-es ingest --policy" in caught.value.remedy
        assert cluster.meta() == before
        [change_] = cluster.plan(other)[1]  # looking takes no script
        assert change_.token_changes == {"dog": (0.25, None), "cat": (None, 0.5)}


def test_a_task_cancelled_by_others_is_not_a_success(cluster: PolicyCluster) -> None:
    rng = np.random.default_rng(10)
    cluster.open()
    cluster.write({f"{i}": _vector(rng, 20) for i in range(100)})

    def call_off(now: UpdateProgress) -> None:
        if now.changed:
            for id_ in _tasks(cluster):
                cluster.client.tasks.cancel(task_id=id_)

    with pytest.raises(ClusterError, match="cancelled"), forward_messages(cluster.messages.append):
        cluster.manager.apply_policy(TokenPolicy(mute=("dog",)), UpdateLimits(requests_per_second=10), call_off)
    assert cluster.meta()["policy"]["pending_operation"] == "apply"


def test_of_two_runs_the_later_one_wins(cluster: PolicyCluster) -> None:
    """The first one's end must not take the second one's task along."""
    rng = np.random.default_rng(12)
    cluster.open()
    vectors = {f"{i}": _vector(rng, 20) for i in range(100)}
    cluster.write(vectors)
    second, ended, at_work = TokenPolicy(mute=("cat",)), list[dict[str, Any]](), threading.Event()

    def begun(now: UpdateProgress) -> None:
        if now.changed:
            at_work.set()

    def apply_second() -> None:
        with forward_messages(cluster.messages.append):
            ended.append(dict(cluster.manager.apply_policy(second, UpdateLimits(requests_per_second=20), begun)))

    later = threading.Thread(target=apply_second)

    def see(now: UpdateProgress) -> None:
        if now.changed and not later.ident:
            later.start()
            assert at_work.wait(120)

    with pytest.raises(ClusterError, match="cancelled"), forward_messages(cluster.messages.append):
        cluster.manager.apply_policy(TokenPolicy(mute=("dog",)), UpdateLimits(requests_per_second=10), see)
    assert not ended
    later.join(60)
    assert ended
    _same(cluster.stored(), vectors, second)


def test_the_commands(cluster: PolicyCluster, tmp_path: Path) -> None:
    environment = {"STAIR_ES_URL": cluster.url, "STAIR_ES_INDEX": cluster.alias}

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["policy", *arguments], env=environment)
        assert result.exit_code == code, result.output
        return result.stdout

    policy = TokenPolicy(name="quiet", mute=("cat",), cap={"dog": 0.125})
    (file := tmp_path / "quiet.json").write_text(json.dumps(policy.to_json()))
    opened = cluster.open()
    cluster.write({"2": SparseVector.from_mapping({"cat": 0.5}), "1": SparseVector.from_mapping({"cat": 0.5, "dog": 0.25})})
    cluster.stored()  # refreshed: a plan sees what a search sees
    assert "no policy" in run("show")
    shown = run("plan", str(file), "--ids", str(tmp_path / "ids.jsonl"))
    assert "2 of 2 documents with words of the policy would change" in shown
    assert "1 documents would have no word left" in shown
    ids = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    assert {line["id"]: line["rules"] for line in ids} == {"1": ["mute cat", "cap dog"], "2": ["mute cat"]}
    planned = json.loads(run("plan", str(file), "--json", "--samples", "1"))
    assert (planned["changed"], planned["rules"]) == (2, {"mute cat": 2, "cap dog": 1})
    assert [sample["id"] for sample in planned["samples"]] == ["1"]  # which changes most: a word goes, another one is capped
    assert json.loads(run("plan", str(file), "--json", "--samples", "0"))["samples"] == []
    assert "applied: 2 changed, 0 unchanged, 0 failed of 2 documents" in run("apply", str(file))
    [again] = json.loads(run("apply", "--json"))
    assert again == {"index": opened.name, "examined": 0, "changed": 0, "unchanged": 0, "failed": [], "token_index": None}
    [fact] = json.loads(run("show", "--json"))
    assert (fact["digest"], fact["documents"], fact["emptied"]) == (policy.digest, {policy.digest: 2}, 1)
    assert f"policy {policy.label}" in run("show")
    assert "rolled back: 2 changed" in run("rollback")
