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
from support.errors import expect_error
from support.models import tiny_stair
from support.servers.hostile_http_server import PageClient, Response, serve_page
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.config.policy_file import parse_policy
from stair_es.errors import ClusterUnreachable, IndexMismatch
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.retry import RetryPolicy
from stair_es.search import index_cache

READS = re.compile(r"/([^/_?]+/_(search|count|msearch|mget|mapping)|_nodes/_local)?")
CAT = {"text": "a cat and a dog"}


def allow_reads(request: RecordedRequest) -> StubResponse | None:
    """Let pass what credentials that may only read suffice for."""
    path = request.target.partition("?")[0]
    allowed = request.method == "GET" or (
        request.method == "POST" and path.rpartition("/")[2] in ("_search", "_count", "_msearch")
    )
    if allowed and READS.fullmatch(path):
        return None
    return StubResponse(status=403, body=b'{"error": {"reason": "read only"}, "status": 403}')


@pytest.fixture
def uncached_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request fetches the state of the index, and retries don't wait."""
    monkeypatch.setattr(index_cache, "STATE_MAX_AGE_S", 0.0)
    monkeypatch.setattr(RetryPolicy, "compute_delay_s", lambda *_: 0.0)


def get_statuses(page: PageClient, corpus: Corpus) -> dict[str, int]:
    """Return the status of each route. The requests that wait for the cluster run in parallel."""
    id_ = corpus.get_id("tabby-cat")
    read = ("/", f"/api/image/{id_}", f"/api/image/{id_}/neighbors", f"/thumb/{id_}", f"/original/{id_}")
    requests: dict[str, Callable[[], Response]] = {target: partial(page.get, target) for target in read}
    requests["/api/image"] = partial(page.post_image, (PHOTOS / "tabby-cat.jpg").read_bytes())
    for method in SEARCH_METHODS:
        for target in ("/api/search", "/api/facets"):
            requests[f"{target} {method}"] = partial(page.post, target, {**CAT, "method": method})
    requests["like"] = partial(page.post, "/api/search", {"similar_to": id_})
    about = page.get("/api/about").status  # first: while another request checks the cluster, it says what is known
    with ThreadPoolExecutor(len(requests)) as pool:
        responses = {name: pool.submit(request) for name, request in requests.items()}
        return {"/api/about": about, **{name: response.result().status for name, response in responses.items()}}


SEARCH_METHODS = ("words-and-text", "words", "bag", "text")


def test_credentials_that_may_only_read_suffice(node_url: str, corpus: Corpus) -> None:
    with RecordingProxy(node_url, gate=allow_reads) as proxy:
        with serve_page(Connection(url=proxy.url), corpus.alias, roots=(corpus.folder,)) as page:
            assert set(get_statuses(page, corpus).values()) == {200}
        paths = {(request.method, request.target.partition("?")[0]) for request in proxy.requests}
        assert paths == {
            ("GET", "/"),
            ("GET", "/_cluster/settings"),  # for the clause limit; the gate has refused it
            ("GET", f"/{corpus.alias}/_mapping"),
            ("POST", f"/{corpus.alias}/_search"),
        }


def test_the_read_only_proxy_stops_writes(node_url: str, corpus: Corpus) -> None:
    with (
        RecordingProxy(node_url, gate=allow_reads) as proxy,
        Cluster(Connection(url=proxy.url)) as cluster,
        pytest.raises(Exception, match="read only"),
    ):
        cluster.client.index(index=corpus.index, id="x", body={})


@pytest.mark.usefixtures("uncached_state")
def test_page_reports_an_unavailable_cluster_and_recovers(node_url: str, corpus: Corpus) -> None:
    is_away = threading.Event()
    unavailable = StubResponse(status=503, body=b"{}")
    with (
        RecordingProxy(node_url, gate=lambda request: unavailable if is_away.is_set() else None) as proxy,
        serve_page(Connection(url=proxy.url), corpus.alias, roots=(corpus.folder,)) as page,
    ):
        assert set(get_statuses(page, corpus).values()) == {200}
        is_away.set()
        statuses = get_statuses(page, corpus)
        assert statuses.pop("/") == 200  # the page itself
        assert statuses.pop("/api/image") in (200, 503)
        assert set(statuses.values()) == {503}, statuses
        response = page.post("/api/search", CAT)
        assert (response.headers["retry-after"], set(response.json)) == ("2", {"error", "error_type", "code", "remedy"})
        assert proxy.url not in str(response.json)
        is_away.clear()
        assert set(get_statuses(page, corpus).values()) == {200}


@pytest.mark.usefixtures("uncached_state")
def test_closed_ports_are_unreachable_clusters(node_url: str, corpus: Corpus) -> None:
    with RecordingProxy(node_url) as proxy, serve_page(Connection(url=proxy.url), corpus.alias) as page:
        assert page.post("/api/search", CAT).status == 200
        proxy.kill()
        response = page.post("/api/search", CAT)
        assert (response.status, response.json["code"]) == (503, "cluster-unreachable")
        assert page.get("/api/about").status == 503
        assert page.get("/").status == 200
        assert proxy.url in page.messages[-1]  # for the operator


@pytest.mark.usefixtures("uncached_state")
def test_hanging_cluster_delays_only_its_requests(node_url: str, corpus: Corpus) -> None:
    is_hanging, is_released = threading.Event(), threading.Event()

    def delay_request(request: RecordedRequest) -> StubResponse | None:
        if is_hanging.is_set():
            is_released.wait(120)
        return None

    with (
        RecordingProxy(node_url, gate=delay_request) as proxy,
        serve_page(replace(Connection(url=proxy.url), timeout_s=3.0), corpus.alias) as page,
        ThreadPoolExecutor(12) as pool,
    ):
        assert page.post("/api/search", CAT).status == 200
        is_hanging.set()
        waiting = [pool.submit(page.post, "/api/search", CAT) for _ in range(10)]
        assert page.get("/").status == 200
        assert page.get("/static/api.js").status == 200
        assert {future.result(timeout=120).status for future in waiting} == {503}
        is_hanging.clear()
        is_released.set()
        assert page.post("/api/search", CAT).status == 200


FAULTY_RESULTS = {
    "html": (b"<html>one moment</html>", 502),
    "list": (b"[]", 502),
    "object": (b"{}", 502),
    "nothing": (b"", 502),
    "timed-out": (b'{"took": 8000, "timed_out": true, "hits": {"hits": []}}', 503),
}


@pytest.mark.parametrize(("result", "status"), FAULTY_RESULTS.values(), ids=FAULTY_RESULTS)
def test_faulty_results_are_cluster_errors(node_url: str, corpus: Corpus, result: bytes, status: int) -> None:
    is_broken = threading.Event()

    def break_search(request: RecordedRequest) -> StubResponse | None:
        if not request.target.startswith(f"/{corpus.alias}/_search"):
            return None
        assert b'"timeout":"8s"' in request.body.replace(b" ", b"")
        return StubResponse(status=200, body=result) if is_broken.is_set() else None

    with RecordingProxy(node_url, gate=break_search) as proxy, serve_page(Connection(url=proxy.url), corpus.alias) as page:
        assert page.post("/api/search", CAT).status == 200
        is_broken.set()
        response = page.post("/api/search", CAT)
        assert (response.status, response.headers.get("retry-after")) == (status, "2" if status == 503 else None)
        assert set(response.json) == {"error", "error_type", "code", "remedy"}
        assert "Traceback" not in str(response.json)
        is_broken.clear()
        assert page.post("/api/search", CAT).status == 200


def test_a_rejected_login_is_not_shown_to_visitors(node_url: str, corpus: Corpus) -> None:
    is_rejecting = threading.Event()

    def reject_request(request: RecordedRequest) -> StubResponse | None:
        message = f'{{"error": {{"reason": "no {request.headers.get("authorization")} hunter22"}}, "status": 403}}'
        return StubResponse(status=403, body=message.encode()) if is_rejecting.is_set() else None

    with RecordingProxy(node_url, gate=reject_request) as proxy:
        url = proxy.url.replace("http://", "http://reader:hunter22@")
        with serve_page(Connection(url=url), corpus.alias) as page:
            is_rejecting.set()
            response = page.post("/api/search", CAT)
            assert response.status == 502
            assert "hunter22" not in str(response.json)
            assert "hunter22" not in str(page.messages)
            assert page.messages


@pytest.fixture
def own_corpus(node_url: str, index_name: str, tmp_path: Path) -> Iterator[Corpus]:
    """A corpus that a test may swap."""
    with ingest_corpus(node_url, index_name, tmp_path) as photos:
        yield photos


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
        response = page.post("/api/search", {"text": "cat"})
        assert response.status == 503
        assert other in response.json["error"]
    with pytest.raises(IndexMismatch, match=other), serve_page(Connection(url=node_url), own_corpus.alias, model="stair-mini"):
        pass


def test_index_is_deleted_and_recreated(node_url: str, own_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "STATE_MAX_AGE_S", 0.0)
    with serve_page(Connection(url=node_url), own_corpus.alias) as page:
        own_corpus.client.indices.delete(index=own_corpus.index)
        response = page.post("/api/search", {"text": "cat"})
        assert response.status in (502, 503)
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
        similar = page.post("/api/search", {"similar_to": tabby, "factors": {"cat": 2}}).json
        shown = {word["token"]: word for word in similar["query"]}
        assert shown["feline.pet"]["weight"] == pytest.approx(stored["feline.pet"], abs=1e-6)
        assert (shown["feline.pet"]["factor"], "cat" in shown) == (2.0, False)
        for name in ("cat", "feline.pet"):
            required = page.post("/api/search", {"text": "animal", "require": [name]}).json
            assert tabby in [hit["id"] for hit in required["hits"]]
            excluded = page.post("/api/search", {"text": "animal", "exclude": [name]}).json
            assert tabby not in [hit["id"] for hit in excluded["hits"]]
        filters = [{"field": "top_tokens", "all": ["feline.pet"]}]
        assert page.post("/api/facets", {"text": "cat", "filters": filters}).json["total"] >= 1
        assert "feline.pet" in dict(page.post_image((PHOTOS / "tabby-cat.jpg").read_bytes()).json["tokens"])


def test_missing_indices_are_reported_before_serving(node_url: str, index_name: str) -> None:
    with expect_error("index-not-found"), serve_page(Connection(url=node_url), index_name):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterUnreachable), serve_page(Connection(url=url), index_name):
            pass
