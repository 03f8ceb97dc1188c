"""Real search nodes, started on first use: without them tests fail, none is skipped.

Two exceptions: Elasticsearch 9 needs a full JDK, and a machine without one may skip it, though not in CI. Tests marked `gpu` are
deselected where PyTorch finds no CUDA; pytest counts them.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.nodes.opensearch_nodes import build_plugin_node
from support.nodes.search_nodes import build_elasticsearch7, build_elasticsearch9, start_embedded_node
from support.suite_workers import NodeScheduling
from xdist.remote import Producer

from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError
from stair_es.model import cuda
from stair_es.system import ray_session

LONGEST_FIRST = ("e2e", "docs", "integration")
"""Layers whose files take minutes. Workers that take them first end together; quick unit tests fill the gaps."""


def pytest_configure() -> None:
    """Handle SIGINT again in a run that a shell put into the background, where it is ignored by every process that is started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def get_layer_rank(item: pytest.Item) -> int:
    """Return the place of a test's layer in the order of the run."""
    layer = item.path.relative_to(Path(__file__).parent).parts[0]
    return LONGEST_FIRST.index(layer) if layer in LONGEST_FIRST else len(LONGEST_FIRST)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> NodeScheduling | None:
    """Replace `--dist loadfile`."""
    return NodeScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run long files first, and deselect GPU tests without a GPU."""
    items.sort(key=get_layer_rank)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not cuda.is_cuda_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


@pytest.fixture(scope="session")
def node_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """See `embedded`."""
    with start_embedded_node(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture(scope="session")
def elasticsearch7_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Elasticsearch 7.17: `rank_features`, as OpenSearch has them."""
    with build_elasticsearch7(tmp_path_factory.mktemp("elasticsearch7")) as node:
        yield node.url


@pytest.fixture(scope="session")
def elasticsearch9_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Elasticsearch 9: `sparse_vector`. This node lacks `GET /` and `rank_features`, which a user's has."""
    try:
        made = build_elasticsearch9(tmp_path_factory.mktemp("elasticsearch9"))
    except LookupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with made as node:
        yield node.url


@pytest.fixture(scope="session")
def plugin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """OpenSearch with k-NN and neural-search: `neural_sparse` and SEISMIC. Its tests are of the xdist group `plugin_node`."""
    with build_plugin_node(tmp_path_factory.mktemp("plugin-node")) as node:
        yield node.url


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Any]:
    """Ray on this machine for all tests of a file; runs in this process use its session."""
    with ray_session.open_ray_session("ray", None, error_type=StairError, alternative="") as ray:
        yield ray


@pytest.fixture(params=["node_url", "elasticsearch7_url"], ids=["opensearch", "elasticsearch7"])
def rank_features_url(request: pytest.FixtureRequest) -> str:
    """Each engine that has `rank_features`, one after the other."""
    url: str = request.getfixturevalue(request.param)
    return url


@contextmanager
def reserve_index_name(client: OpenSearch) -> Iterator[str]:
    """Yield a unique index name; delete the indices below it afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    found = client.indices.get(index=f"{name}*", params={"expand_wildcards": "all"})
    if found:
        client.indices.delete(index=",".join(found))


@pytest.fixture
def make_index_name() -> Iterator[Callable[[str], str]]:
    """Makes names on a node by its URL: see `reserve_index_name`."""
    with ExitStack() as stack:

        def make(url: str) -> str:
            opensearch = Connection(url=url).client()
            stack.callback(opensearch.close)
            return stack.enter_context(reserve_index_name(opensearch))

        yield make


@pytest.fixture
def client(node_url: str) -> Iterator[OpenSearch]:
    """A client of that node."""
    opensearch = Connection(url=node_url).client()
    yield opensearch
    opensearch.close()


@pytest.fixture
def index_name(client: OpenSearch) -> Iterator[str]:
    """A unique index name on that node; the indices below it are deleted afterwards."""
    with reserve_index_name(client) as name:
        yield name


@pytest.fixture
def engine(rank_features_url: str) -> Iterator[OpenSearch]:
    """A client of each engine that has `rank_features`."""
    opensearch = Connection(url=rank_features_url).client()
    yield opensearch
    opensearch.close()


@pytest.fixture
def engine_index(engine: OpenSearch) -> Iterator[str]:
    """Like `index_name`, on each engine that has `rank_features`."""
    with reserve_index_name(engine) as name:
        yield name
