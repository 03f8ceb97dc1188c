"""Requests to a node: a filter of responses keeps the reason of a failure."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection


def send(**arguments: Any) -> str:  # noqa: ANN401  as the client takes them
    """Return the filter that a search with these arguments sends."""

    def answer(_asked: RecordedRequest) -> StubResponse:
        return StubResponse(status=200, body=json.dumps({"hits": {}}).encode())

    with RecordingProxy(None, gate=answer) as node:
        with Cluster(Connection(url=node.url)) as cluster:
            cluster.client.search(index="photos", body={}, **arguments)
        [filters] = parse_qs(urlsplit(node.requests[-1].target).query)["filter_path"]
    return filters


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"params": {"filter_path": "took,hits"}}, "took,hits,error"),
        ({"filter_path": "took,hits"}, "took,hits,error"),
        ({"filter_path": ["took", "hits"]}, "took,hits,error"),
        ({"filter_path": "-took"}, "-took"),
        ({"params": {"filter_path": "-took,-_shards"}}, "-took,-_shards"),
        ({"filter_path": "hits,-hits.total"}, "hits,-hits.total,error"),
    ],
)
def test_response_filter_keeps_failure_reasons(arguments: dict[str, Any], sent: str) -> None:
    assert send(**arguments) == sent
