"""A real search node for the tests: without it they fail, none is skipped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from opensearchpy import OpenSearch

from stair_es.cluster.connect import Connection
from stair_es.config import Home
from stair_es.node import NodeSpec, down, up


@pytest.fixture(scope="session")
def node_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded node with data of its own. The jars are those of the default home: fetched once a machine."""
    spec = NodeSpec(
        dist=Home.from_env().dist,
        base=tmp_path_factory.mktemp("home") / "node",
        port=0,
        heap="512m",
        die_with_parent=True,
    )
    url = up(spec, say=print)
    try:
        yield url
    finally:
        down(spec, say=print)


@pytest.fixture
def client(node_url: str) -> Iterator[OpenSearch]:
    """A client of that node."""
    made = Connection(url=node_url).client()
    yield made
    made.close()


@pytest.fixture
def index_name(client: OpenSearch) -> Iterator[str]:
    """A name that no other test has; what lies below it is deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    found = client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})
    if found:
        client.indices.delete(index=",".join(found))
