"""The first request of a command: how long it waits for a busy cluster, and the error if that was in vain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.bulk_faults import build_gateway_error
from support.servers.fault_proxy import FaultProxy, MaybeResponse, Request, Response, start_server

from stair_es import SparseVector, resources
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import read
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.errors import ClusterError, ClusterUnreachable, IndexMismatch
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.retry import RetryPolicy
from stair_es.search.searcher import Searcher
from stair_es.sources.registry import open_source

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
WORD = SparseVector.from_mapping({"dog": 1.0})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that somebody would have waited."""
    waited: list[float] = []
    monkeypatch.setattr("stair_es.retry.time.sleep", waited.append)
    return waited


def _options(alias: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(alias=alias, model=ModelSpec(name="stair-mini"), runner="local", dead_letters=tmp_path / "failed.jsonl")


def _ingest(url: str, options: IngestOptions) -> None:
    run_ingest([open_source(str(PHOTOS / "*.jpg"))], Connection(url=url), options, progress=lambda _: None)


def _search(url: str, index: str) -> None:
    with Searcher(Connection(url=url), index, "m-1") as searcher:
        searcher.search(WORD)


def _make(cluster: Cluster, alias: str) -> str:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={})
    return open_index(cluster, alias, resources.load_json_resource("mappings", "image"), index_spec).name


def test_a_search_waits_some_seconds_for_a_cluster_that_starts(
    node_url: str, client: OpenSearch, index_name: str, waits: list[float]
) -> None:
    _make(Cluster(Connection(url=node_url), client), index_name)
    busy = {"/": 2, f"/{index_name}/_mapping": 3}

    def starts(request: Request) -> bool:
        path = request.path.partition("?")[0]
        busy[path] = busy.get(path, 0) - 1
        return busy[path] >= 0

    with FaultProxy(node_url, lambda request: build_gateway_error() if starts(request) else None) as proxy:
        _search(proxy.url, index_name)
    assert len(waits) == 5
    assert sum(waits) < 8


@pytest.mark.parametrize(
    ("run", "least", "most"),
    [
        (lambda url, tmp_path: _search(url, "photos"), 3, 5),
        (lambda url, tmp_path: _ingest(url, _options("photos", tmp_path)), 7, 60),
    ],
    ids=["search", "ingest"],
)
def test_busy_cluster_is_reported_with_a_remedy(
    run: Callable[[str, Path], None], least: int, most: float, waits: list[float], tmp_path: Path
) -> None:
    def refuse(_: Request) -> MaybeResponse:
        return Response.json({}, 503)

    with start_server(refuse) as url, pytest.raises(ClusterError, match="answered 503") as caught:
        run(url, tmp_path)
    assert len(waits) == least
    assert sum(waits) < most
    assert "run it again later" in caught.value.remedy


def test_unreachable_clusters_are_not_awaited(waits: list[float]) -> None:
    with start_server(lambda _: None) as url:
        pass
    cluster = Cluster(Connection(url=url, timeout_s=5))
    with cluster, pytest.raises(ClusterUnreachable, match="no search cluster answers"):
        get_cluster_info(cluster, RetryPolicy())
    assert waits == []


def test_a_closed_index_is_reported_at_once_with_the_remedy(
    node_url: str, client: OpenSearch, index_name: str, waits: list[float], tmp_path: Path
) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    name = _make(cluster, index_name)
    client.indices.close(index=name)
    with pytest.raises(IndexMismatch, match=f"'{name}' \\(alias '{index_name}'\\) is closed") as mismatch:
        _ingest(node_url, _options(index_name, tmp_path))
    assert f"POST /{name}/_open" in mismatch.value.remedy
    calls: list[Callable[[], object]] = [
        lambda: _search(node_url, index_name),
        lambda: read.get_stored_by_id(cluster, name, ["1"]),
    ]
    for call in calls:
        with pytest.raises(ClusterError, match="closed") as caught:
            call()
        assert "_open" in caught.value.remedy
    assert waits == []
