"""The page and its cluster: requests, outages, and aliases that move."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.corpora.web_corpus import PHOTOS, Corpus, get_alias_target, ingest_corpus, ingest_folder
from support.models import tiny_stair
from support.servers.hostile_http_server import PageClient, Response, serve_page
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import ClusterUnreachable, IndexMismatch, StairError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.retry import RetryPolicy
from stair_es.search import index_cache
from stair_es.token_policy import parse_policy

READS = re.compile(r"/([^/_?]+/_(search|count|msearch|mget|mapping)|_nodes/_local)?")
CAT = {"text": "a cat and a dog"}


def read_only(asked: RecordedRequest) -> StubResponse | None:
    """Let pass what credentials that may only read suffice for."""
    path = asked.target.partition("?")[0]
    allowed = asked.method == "GET" or (asked.method == "POST" and path.rpartition("/")[2] in ("_search", "_count", "_msearch"))
    if allowed and READS.fullmatch(path):
        return None
    return StubResponse(status=403, body=b'{"error": {"reason": "read only"}, "status": 403}')


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-cluster", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture
def _fresh_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request asks the cluster for the state of the index, as often as ever, but without waiting between attempts."""
    monkeypatch.setattr(index_cache, "STATE_MAX_AGE_S", 0.0)
    monkeypatch.setattr(RetryPolicy, "compute_delay_s", lambda *_: 0.0)


def everything(page: PageClient, corpus: Corpus) -> dict[str, int]:
    """Return each route's status. Those that wait for the cluster are asked side by side."""
    id_ = corpus.get_id("tabby-cat")
    read = ("/", f"/api/image/{id_}", f"/api/image/{id_}/neighbors", f"/thumb/{id_}", f"/original/{id_}")
    asked: dict[str, Callable[[], Response]] = {target: partial(page.get, target) for target in read}
    asked["/api/image"] = partial(page.post_image, (PHOTOS / "tabby-cat.jpg").read_bytes())
    for method in METHODS:
        for target in ("/api/search", "/api/facets"):
            asked[f"{target} {method}"] = partial(page.post, target, {**CAT, "method": method})
    asked["like"] = partial(page.post, "/api/search", {"similar_to": id_})
    about = page.get("/api/about").status  # first: while somebody looks whether the cluster is back, it says what it knows
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = {name: pool.submit(ask) for name, ask in asked.items()}
        return {"/api/about": about, **{name: answer.result().status for name, answer in answers.items()}}


METHODS = ("stair", "bag", "bm25")


def test_credentials_that_may_only_read_suffice_for_every_route(node_url: str, corpus: Corpus) -> None:
    with RecordingProxy(node_url, gate=read_only) as proxy:
        with serve_page(Connection(url=proxy.url), corpus.alias, roots=(corpus.folder,)) as page:
            assert set(everything(page, corpus).values()) == {200}
        paths = {(request.method, request.target.partition("?")[0]) for request in proxy.requests}
        assert paths == {
            ("GET", "/"),
            ("GET", "/_cluster/settings"),  # for the clause limit; the gate has refused it
            ("GET", f"/{corpus.alias}/_mapping"),
            ("POST", f"/{corpus.alias}/_search"),
        }


def test_the_read_only_proxy_stops_writes(node_url: str, corpus: Corpus) -> None:
    with (
        RecordingProxy(node_url, gate=read_only) as proxy,
        Cluster(Connection(url=proxy.url)) as cluster,
        pytest.raises(Exception, match="read only"),
    ):
        cluster.client.index(index=corpus.index, id="x", body={})


@pytest.mark.usefixtures("_fresh_state")
def test_page_reports_an_unavailable_cluster_and_recovers(node_url: str, corpus: Corpus) -> None:
    away = threading.Event()
    gone = StubResponse(status=503, body=b"{}")
    with (
        RecordingProxy(node_url, gate=lambda asked: gone if away.is_set() else None) as proxy,
        serve_page(Connection(url=proxy.url), corpus.alias, roots=(corpus.folder,)) as page,
    ):
        assert set(everything(page, corpus).values()) == {200}
        away.set()
        statuses = everything(page, corpus)
        assert statuses.pop("/") == 200  # the page itself, which can say so
        assert statuses.pop("/api/image") in (200, 503)
        assert set(statuses.values()) == {503}, statuses
        answer = page.post("/api/search", CAT)
        assert (answer.headers["retry-after"], set(answer.json)) == ("2", {"error", "error_type", "code", "remedy"})
        assert proxy.url not in str(answer.json)
        away.clear()
        assert set(everything(page, corpus).values()) == {200}


@pytest.mark.usefixtures("_fresh_state")
def test_closed_ports_are_unreachable_clusters(node_url: str, corpus: Corpus) -> None:
    with RecordingProxy(node_url) as proxy, serve_page(Connection(url=proxy.url), corpus.alias) as page:
        assert page.post("/api/search", CAT).status == 200
        proxy.kill()
        answer = page.post("/api/search", CAT)
        assert (answer.status, answer.json["error"]) == (503, "the search cluster doesn't answer")
        assert page.get("/api/about").status == 503
        assert page.get("/").status == 200
        assert proxy.url in page.messages[-1]  # the operator is told where


@pytest.mark.usefixtures("_fresh_state")
def test_hanging_cluster_delays_only_its_requests(node_url: str, corpus: Corpus) -> None:
    hanging, released = threading.Event(), threading.Event()

    def gate(asked: RecordedRequest) -> StubResponse | None:
        if hanging.is_set():
            released.wait(120)
        return None

    with (
        RecordingProxy(node_url, gate=gate) as proxy,
        serve_page(replace(Connection(url=proxy.url), timeout_s=3.0), corpus.alias) as page,
        ThreadPoolExecutor(12) as pool,
    ):
        assert page.post("/api/search", CAT).status == 200
        hanging.set()
        waiting = [pool.submit(page.post, "/api/search", CAT) for _ in range(10)]
        assert page.get("/").status == 200
        assert page.get("/static/api.js").status == 200
        assert {future.result(timeout=120).status for future in waiting} == {503}
        hanging.clear()
        released.set()
        assert page.post("/api/search", CAT).status == 200


@pytest.mark.parametrize("fault", [b"<html>one moment</html>", b"[]", b"{}", b""])
def test_invalid_responses_are_cluster_errors(node_url: str, corpus: Corpus, fault: bytes) -> None:
    broken = threading.Event()

    def gate(asked: RecordedRequest) -> StubResponse | None:
        return (
            StubResponse(status=200, body=fault)
            if broken.is_set() and asked.target.startswith(f"/{corpus.alias}/_search")
            else None
        )

    with RecordingProxy(node_url, gate=gate) as proxy, serve_page(Connection(url=proxy.url), corpus.alias) as page:
        broken.set()
        answer = page.post("/api/search", CAT)
        assert answer.status == 502
        assert set(answer.json) == {"error", "error_type", "code", "remedy"}
        assert "Traceback" not in str(answer.json)
        broken.clear()
        assert page.post("/api/search", CAT).status == 200


def test_an_interrupted_search_is_an_error(node_url: str, corpus: Corpus) -> None:
    slow = threading.Event()

    def gate(asked: RecordedRequest) -> StubResponse | None:
        if not asked.target.startswith(f"/{corpus.alias}/_search"):
            return None
        assert b'"timeout":"8s"' in asked.body.replace(b" ", b"")
        return (
            StubResponse(status=200, body=b'{"took": 8000, "timed_out": true, "hits": {"hits": []}}') if slow.is_set() else None
        )

    with RecordingProxy(node_url, gate=gate) as proxy, serve_page(Connection(url=proxy.url), corpus.alias) as page:
        assert page.post("/api/search", CAT).status == 200
        slow.set()
        answer = page.post("/api/search", CAT)
        assert (answer.status, answer.json["error"], answer.headers["retry-after"]) == (503, "the search timed out", "2")


def test_a_rejected_login_is_not_shown_to_visitors(node_url: str, corpus: Corpus) -> None:
    refused = threading.Event()

    def gate(asked: RecordedRequest) -> StubResponse | None:
        message = f'{{"error": {{"reason": "no {asked.headers.get("authorization")} hunter22"}}, "status": 403}}'
        return StubResponse(status=403, body=message.encode()) if refused.is_set() else None

    with RecordingProxy(node_url, gate=gate) as proxy:
        url = proxy.url.replace("http://", "http://reader:hunter22@")
        with serve_page(Connection(url=url), corpus.alias) as page:
            refused.set()
            answer = page.post("/api/search", CAT)
            assert answer.status == 502
            assert "hunter22" not in str(answer.json)
            assert "hunter22" not in str(page.messages)
            assert page.messages


@pytest.fixture
def own_corpus(node_url: str, index_name: str, tmp_path: Path) -> Iterator[Corpus]:
    """A corpus that a test may swap."""
    with ingest_corpus(node_url, index_name, tmp_path) as made:
        yield made


def test_swaps_within_a_model_are_followed(node_url: str, own_corpus: Corpus) -> None:
    with serve_page(Connection(url=node_url), own_corpus.alias, roots=(own_corpus.folder,)) as page:
        id_ = own_corpus.get_id("red-panda")
        before = page.post("/api/search", {"similar_to": id_}).json["hits"]
        shutil.copy(PHOTOS / "komodo-dragon.jpg", own_corpus.folder)
        ingest_folder(node_url, own_corpus.alias, own_corpus.folder, "stair-mini", document=DocumentSettings(top_token_count=8))
        assert get_alias_target(own_corpus.client, own_corpus.alias) != own_corpus.index
        found = page.post("/api/search", {"similar_to": id_, "k": 100}).json["hits"]
        assert {hit["name"] for hit in found} - {hit["name"] for hit in before} == {"komodo-dragon.jpg"}
        assert page.get(f"/api/image/{id_}").json["facts"]["index"] == get_alias_target(own_corpus.client, own_corpus.alias)
        assert page.post("/api/facets", {"text": "panda"}).status == 200


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that isn't the default one: the folder of a tiny checkpoint."""
    return str(tiny_stair.write_checkpoint(tmp_path_factory.mktemp("model") / "other"))


def test_swaps_to_another_model_use_its_words(node_url: str, own_corpus: Corpus, other_model: str) -> None:
    with serve_page(Connection(url=node_url), own_corpus.alias) as page:
        id_ = own_corpus.get_id("tabby-cat")
        first = page.post("/api/search", {"text": "cat", "similar_to": id_}).json
        ingest_folder(node_url, own_corpus.alias, own_corpus.folder, other_model)
        assert get_alias_target(own_corpus.client, own_corpus.alias) != own_corpus.index
        found = page.post("/api/search", {"text": "cat", "similar_to": id_}).json
        stored = dict(page.get(f"/api/image/{id_}").json["tokens"])
        assert id_ in [hit["id"] for hit in found["hits"]]
        words = {word["token"]: word["weight"] for word in found["query"]}
        assert words != {word["token"]: word["weight"] for word in first["query"]}
        assert all(words[word] >= weight - 1e-6 for word, weight in stored.items())
        assert page.get("/api/about").json["model"] == registry.resolve_model(ModelSpec(name=other_model)).card.model_id


def test_requested_model_is_not_replaced(node_url: str, own_corpus: Corpus, other_model: str) -> None:
    other = registry.resolve_model(ModelSpec(name=other_model)).card.model_id
    with serve_page(Connection(url=node_url), own_corpus.alias, model="stair-mini") as page:
        assert page.post("/api/search", {"text": "cat"}).status == 200
        ingest_folder(node_url, own_corpus.alias, own_corpus.folder, other_model)
        answer = page.post("/api/search", {"text": "cat"})
        assert answer.status == 503
        assert other in answer.json["error"]
    with pytest.raises(IndexMismatch, match=other), serve_page(Connection(url=node_url), own_corpus.alias, model="stair-mini"):
        pass


def test_index_is_deleted_and_recreated(node_url: str, own_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "STATE_MAX_AGE_S", 0.0)
    with serve_page(Connection(url=node_url), own_corpus.alias) as page:
        own_corpus.client.indices.delete(index=own_corpus.index)
        answer = page.post("/api/search", {"text": "cat"})
        assert answer.status in (502, 503)
        ingest_folder(node_url, own_corpus.alias, own_corpus.folder, "stair-mini")
        assert page.post("/api/search", {"text": "cat"}).status == 200


def test_queries_use_policy_words(node_url: str, index_name: str, tmp_path: Path) -> None:
    for name in ("tabby-cat", "red-panda", "two-spaniels"):
        shutil.copy(PHOTOS / f"{name}.jpg", tmp_path)
    policy = parse_policy({"stair_es_policy": 1, "name": "pets", "rename": {"cat": "feline.pet"}, "mute": ["dog"]}, "here")
    ingest_folder(node_url, index_name, tmp_path, "stair-mini", policy=policy)
    with serve_page(Connection(url=node_url), index_name) as page:
        assert page.get("/api/about").json["policy"] == policy.label
        found = page.post("/api/search", {"text": "cat"}).json
        words = [word["token"] for word in found["query"]]
        assert "feline.pet" in words
        assert "cat" not in words
        assert found["hits"][0]["name"] == "tabby-cat.jpg"
        assert "feline.pet" in [reason["token"] for reason in found["hits"][0]["contributions"]]
        tabby = found["hits"][0]["id"]
        stored = dict(page.get(f"/api/image/{tabby}").json["tokens"])
        assert "feline.pet" in stored
        like = page.post("/api/search", {"similar_to": tabby, "factors": {"cat": 2}}).json
        shown = {word["token"]: word for word in like["query"]}
        assert shown["feline.pet"]["weight"] == pytest.approx(stored["feline.pet"], abs=1e-6)
        assert (shown["feline.pet"]["factor"], "cat" in shown) == (2.0, False)
        for name in ("cat", "feline.pet"):
            required = page.post("/api/search", {"text": "animal", "require": [name]}).json
            assert tabby in [hit["id"] for hit in required["hits"]]
            assert page.post("/api/search", {"text": "animal", "exclude": [name]}).json["hits"] is not None
            assert tabby not in [
                hit["id"] for hit in page.post("/api/search", {"text": "animal", "exclude": [name]}).json["hits"]
            ]
        assert (
            page.post("/api/facets", {"text": "cat", "filters": [{"field": "top_tokens", "all": ["feline.pet"]}]}).json["total"]
            >= 1
        )
        assert "feline.pet" in dict(page.post_image((PHOTOS / "tabby-cat.jpg").read_bytes()).json["tokens"])


def test_missing_and_foreign_indices_are_reported_before_the_page_is_served(node_url: str, index_name: str) -> None:
    with pytest.raises(StairError, match="no index or alias"), serve_page(Connection(url=node_url), index_name):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterUnreachable), serve_page(Connection(url=url), index_name):
            pass
