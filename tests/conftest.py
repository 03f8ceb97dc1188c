"""Real search nodes, started on first use: without them tests fail, none is skipped.

Two exceptions: Elasticsearch 8 and 9 need a full JDK, and a machine without one may skip them, though not in CI. Tests marked
`gpu` are deselected where PyTorch finds no CUDA; pytest counts them.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from opensearchpy import OpenSearch
from support.nodes.shared_nodes import SharedNodes, request_node, start_node
from typer import testing
from typer.main import get_command

from stair_es.cluster.client.connection import Connection
from stair_es.embedded_node.file_lock import hold_lock
from stair_es.errors import StairError
from stair_es.model import cuda
from stair_es.model.networks import image_networks
from stair_es.model.stair_mini import artifacts, text_encoder, text_table
from stair_es.system import ray_session

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("repeatable"), derandomize=False, max_examples=2000)
settings.load_profile("repeatable")  # the same cases in every run; others, and many: --hypothesis-profile=random
with suppress(ImportError):  # private; without it, hypothesis also draws constants of the modules that a worker has loaded
    from hypothesis.internal.conjecture import providers

    providers._get_local_constants = lambda: providers._local_constants

_NODES, _OWNED_NODES = pytest.StashKey[str](), pytest.StashKey[SharedNodes]()
"""The address of the nodes of this run; the nodes themselves, in the process that owns them."""

LONGEST_FIRST = ("docs/test_snippets.py", "integration/test_ray.py", "e2e", "integration")
"""Files that take two minutes or more, then layers: so the workers end together, unit tests fill the gaps."""

MEMORY_DISK = Path("/dev/shm")
"""Where temporary files lie on Linux: nodes sync each write, and the tests would spend a third of their time on that."""
MEMORY_BYTES = 2 << 30
"""Free there at least: a run takes 0.5 GB. A container may have only 64 MB."""

NIGHTLY_NODES = re.compile(r"elasticsearch[78]|plugin_url")
"""Engines in parameters and fixtures of a test. `make test` starts the embedded node, and Elasticsearch 9 for `sparse_vector`."""


@pytest.hookimpl(trylast=True)  # after pytest-rerunfailures
def pytest_configure(config: pytest.Config) -> None:
    """Choose where temporary files lie and own the nodes, except in a worker, and handle SIGINT again in a run in the background.

    There it is ignored by every process that is started.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is None:
        if MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > MEMORY_BYTES:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))
        nodes = SharedNodes(start_node)
        config.stash[_NODES], config.stash[_OWNED_NODES] = nodes.serve(), nodes
    else:
        config.stash[_NODES] = worker["nodes"]
        counts = getattr(getattr(config, "failures_db", None), "sock", None)  # of pytest-rerunfailures
        if isinstance(counts, socket.socket):
            counts.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each test waits 40 ms for an acknowledgment


@pytest.hookimpl(tryfirst=True)  # then pytest removes the folders of passed tests, in which the state of the nodes is
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the nodes."""
    nodes = session.config.stash.get(_OWNED_NODES, None)
    if nodes:
        nodes.close()


def get_rank(item: pytest.Item) -> int:
    """Return the place of a test's file in the order of the run."""
    path = item.path.relative_to(Path(__file__).parent)
    ranks = (rank for rank, first in enumerate(LONGEST_FIRST) if path.is_relative_to(first))
    return next(ranks, len(LONGEST_FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  of pytest-xdist, which has no types
    """Tell a worker where the nodes are."""
    node.workerinput["nodes"] = node.config.stash[_NODES]


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run long files first, mark those for the night, and deselect GPU tests without a GPU."""
    for item in items:
        parameters = item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
        if "tests/unit" not in item.nodeid and NIGHTLY_NODES.search(" ".join((parameters, *getattr(item, "fixturenames", ())))):
            item.add_marker(pytest.mark.nightly("engines other than the newest two"))
        marker = item.get_closest_marker("nightly")
        if marker and not (len(marker.args) == 1 and isinstance(marker.args[0], str)):
            raise pytest.UsageError(f"{item.nodeid}: nightly() takes the reason")
    items.sort(key=get_rank)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not cuda.is_cuda_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


def pytest_collection_finish() -> None:
    """Keep millions of objects, of 8,000 tests and all packages, from being searched at each garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def built_once() -> Iterator[None]:
    """Build the command line and read the included model once per worker, since each command in this process would do it."""
    build_table = cache(text_table.build_mini_table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", cache(get_command))
        patch.setattr(artifacts, "read_mini_artifacts", cache(artifacts.read_mini_artifacts))
        patch.setattr(image_networks, "OnnxGraphRuntime", cache(image_networks.OnnxGraphRuntime))
        for module in (text_encoder, text_table):
            patch.setattr(module, "build_mini_table", build_table)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def get_node_url(pytestconfig: pytest.Config, shared_folder: Path) -> Callable[[str], str]:
    """Returns the URL of a node by its name in `support.nodes.shared_nodes`; the first call of all workers starts it."""
    return lambda kind: request_node(pytestconfig.stash[_NODES], kind, shared_folder / f"node-{kind}")


@pytest.fixture(scope="session")
def node_url(get_node_url: Callable[[str], str]) -> str:
    """See `stair_es.embedded_node`. Other tests use it at the same time: no settings of the cluster, and names of one's own."""
    return get_node_url("embedded")


@pytest.fixture(scope="module")
def exclusive_node_url(get_node_url: Callable[[str], str], shared_folder: Path) -> Iterator[str]:
    """Another embedded node, which the tests of one file at a time have to themselves: for settings of the cluster."""
    with hold_lock(shared_folder / "exclusive.lock", "tests settings of the cluster"):
        yield get_node_url("exclusive")


@pytest.fixture(scope="session")
def elasticsearch7_url(get_node_url: Callable[[str], str]) -> str:
    """Elasticsearch 7.17: `rank_features`, as OpenSearch has them."""
    return get_node_url("elasticsearch7")


@pytest.fixture(scope="session")
def elasticsearch8_url(get_node_url: Callable[[str], str]) -> str:
    """Elasticsearch 8.19 as Maven serves it, to which nothing is added: `sparse_vector`, without `GET /` and `rank_features`."""
    return _get_url_or_skip(get_node_url, "elasticsearch8")


@pytest.fixture(scope="session")
def elasticsearch9_url(get_node_url: Callable[[str], str]) -> str:
    """Elasticsearch 9.5: `sparse_vector`; `rank_features` and `GET /` are a stand-in's (`support.nodes.elasticsearch_nodes`)."""
    return _get_url_or_skip(get_node_url, "elasticsearch9")


def _get_url_or_skip(get_node_url: Callable[[str], str], kind: str) -> str:
    try:
        return get_node_url(kind)
    except LookupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def plugin_url(get_node_url: Callable[[str], str]) -> str:
    """OpenSearch with k-NN and neural-search: `neural_sparse`."""
    return get_node_url("plugin")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Any]:
    """Ray on this machine for all tests of a file; runs in this process use its session."""
    with ray_session.open_ray_session("ray", None, error_type=StairError, alternative="") as ray:
        yield ray


@pytest.fixture(scope="session")
def warm_script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A console script that starts quickly, for tests that run many commands: see `support.warm_script`."""
    from support.warm_script import start_warm_script

    with start_warm_script(tmp_path_factory.mktemp("warm")) as script:
        yield script


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
