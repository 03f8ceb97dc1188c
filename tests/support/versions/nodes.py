"""The versions of search engines that `check_versions.py` tests: how each node is built, and its known gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stair_es.embedded_node.lockfile import load_node_lock
from support.nodes import elasticsearch_locks, maven_locks, opensearch_locks, search_nodes
from support.nodes.node_process import SearchNode
from support.nodes.opensearch_nodes import ADMIN, SecuredNode, build_release_node, build_secured_node

_ORDINARY_OPENSEARCH = frozenset(module.name for module in maven_locks.MODULES.values())
_ORDINARY_ELASTICSEARCH = frozenset(
    {"lang-mustache", "lang-painless", "mapper-extras", "reindex", "rest-root", "transport-netty4", "x-pack-core", "x-pack-ml"}
)
"""Modules of the default distribution that stair-es uses, directly or indirectly."""

Cause = Literal["engine", "plugin", "node"]
"""What lacks a feature: the version, clusters without the plugin, or only this node, which is built from Maven artifacts."""


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """A check that is known to fail on a version."""

    message: str
    """Part of the message to the user."""
    cause: Cause


@dataclass(frozen=True, kw_only=True)
class RunningNode:
    """A running node, and the settings that a command needs to connect to it."""

    url: str
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of an engine, as one node."""

    engine: Literal["OpenSearch", "Elasticsearch"]
    number: str
    origin: str
    """The parts of the node, for the page."""
    run: Callable[[Path], AbstractContextManager[RunningNode]]
    """Context manager that runs the node in a folder."""
    gaps: Mapping[str, KnownFailure]
    """Check -> its known failure."""
    missing_modules: tuple[str, ...] | None = None
    """Modules of a default distribution that the node doesn't have; None if the node reports its modules."""

    @property
    def label(self) -> str:
        """The name that `stair-es doctor` prints."""
        return f"{self.engine} {self.number}"

    @property
    def modules(self) -> frozenset[str]:
        """Modules of a default distribution that stair-es uses."""
        return _ORDINARY_OPENSEARCH if self.engine == "OpenSearch" else _ORDINARY_ELASTICSEARCH


def _start_on_folder(make: Callable[[Path], SearchNode]) -> Callable[[Path], AbstractContextManager[RunningNode]]:
    @contextmanager
    def start_node(base: Path) -> Iterator[RunningNode]:
        with make(base) as node:
            yield RunningNode(url=node.url, environ=_get_login(node))

    return start_node


def _get_login(node: SearchNode) -> Mapping[str, str]:
    if not isinstance(node, SecuredNode):
        return {}
    user, password = ADMIN
    return {"STAIR_ES_USER": user, "STAIR_ES_PASSWORD": password, "STAIR_ES_CA_FILE": str(node.ca_file)}


@contextmanager
def _start_embedded(base: Path) -> Iterator[RunningNode]:
    with search_nodes.start_embedded_node(base) as url:
        yield RunningNode(url=url)


def _start_release(number: str) -> Callable[[Path], AbstractContextManager[RunningNode]]:
    return _start_on_folder(lambda base: build_release_node(number, base))


_NO_ELASTIC_SHAPES = {
    "ingest --vector sparse_vector": KnownFailure(message="it requires Elasticsearch 8.15 or newer", cause="engine"),
    "search --query-type sparse_vector": KnownFailure(message="it requires Elasticsearch 8.15 or newer", cause="engine"),
}
_NO_NEURAL = {
    "search --query-type neural_sparse": KnownFailure(message="doesn't have the plugin opensearch-neural-search", cause="plugin"),
}
_OPENSEARCH = {**_NO_ELASTIC_SHAPES, **_NO_NEURAL}
_NO_PAINLESS = KnownFailure(message="it has no painless", cause="node")
_NO_MUSTACHE = KnownFailure(message="doesn't support mustache", cause="node")
_ELASTICSEARCH = {
    "ingest --impact-field": KnownFailure(message="it requires OpenSearch 2.10 or newer", cause="engine"),
    "search --query-type impacts": KnownFailure(message="the index has no field `impacts`", cause="engine"),
    "search --query-type neural_sparse": KnownFailure(message="it requires OpenSearch 2.14 or newer", cause="engine"),
    "policy apply": _NO_PAINLESS,
    "policy rollback": _NO_PAINLESS,
}
_MODULAR = {
    **_ELASTICSEARCH,
    "ingest --vector rank_features": KnownFailure(message="--vector sparse_vector", cause="node"),
    "search --query-type rank_features": KnownFailure(message="is sparse_vector, not rank_features", cause="node"),
    "template publish": _NO_MUSTACHE,
}
_NO_QUERY = KnownFailure(message="unknown query [sparse_vector]", cause="node")
_SEARCHES = (
    "swap to another model",
    "search",
    "search --query-type sparse_vector",
    "search --hybrid sum",
    "search --hybrid rrf",
    "policy plan",
    "serve",
)
"""The checks that search an index of `sparse_vector`."""

VERSIONS = (
    Version(
        engine="OpenSearch",
        number=opensearch_locks.OLDEST,
        origin="server and modules; Java's security manager grants all permissions",
        run=_start_release(opensearch_locks.OLDEST),
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.SECURED,
        origin="server, modules and the security plugin, with TLS and a login as administrator",
        run=_start_on_folder(build_secured_node),
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.SPARSE,
        origin="server, modules and the k-NN and neural-search plugins",
        run=_start_release(opensearch_locks.SPARSE),
        gaps=_NO_ELASTIC_SHAPES,
    ),
    Version(
        engine="OpenSearch",
        number=load_node_lock().opensearch,
        origin="the embedded node of `stair-es node`: server and modules",
        run=_start_embedded,
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.NEWEST,
        origin="server and modules",
        run=_start_release(opensearch_locks.NEWEST),
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.SEVEN,
        origin="server and modules, started by our own launcher",
        run=_start_on_folder(search_nodes.build_elasticsearch7),
        missing_modules=("lang-painless",),
        gaps={
            **_ELASTICSEARCH,
            "ingest --vector sparse_vector": KnownFailure(message="it requires Elasticsearch 8.15 or newer", cause="engine"),
            "search --query-type sparse_vector": KnownFailure(message="it requires Elasticsearch 8.15 or newer", cause="engine"),
        },
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.EIGHT,
        origin="server and the two modules published on Maven, started by our own launcher",
        run=_start_on_folder(search_nodes.build_elasticsearch8),
        gaps={
            **_MODULAR,
            **dict.fromkeys(_SEARCHES, _NO_QUERY),
        },
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.NINE,
        origin="server and the two modules published on Maven, started by our own launcher",
        run=_start_on_folder(search_nodes.build_elasticsearch9),
        gaps=_MODULAR,
    ),
)
