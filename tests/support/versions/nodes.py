"""The versions of search engines that `check_versions.py` tests: how each node is built, and its known gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stair_es.embedded_node.lockfile import load_node_lock
from support.nodes import maven_locks, opensearch_locks, search_nodes
from support.nodes.elasticsearch_nodes import EIGHT, NINE, SEVEN, build_elasticsearch, build_secured_elasticsearch
from support.nodes.node_process import SearchNode
from support.nodes.opensearch_nodes import build_release_node, build_secured_node
from support.nodes.secured_node import SecuredNode

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
    main: Literal["rank_features", "sparse_vector"] = "rank_features"
    """Field type of the index that most checks use."""
    stand_in: frozenset[str] = frozenset()
    """Checks that use `rank_features` of the stand-in."""

    @property
    def label(self) -> str:
        """The name that `stair-es doctor` prints."""
        return f"{self.engine} {self.number}"

    @property
    def modules(self) -> frozenset[str]:
        """Modules of a default distribution that stair-es uses."""
        if self.engine == "OpenSearch":
            return _ORDINARY_OPENSEARCH
        return _ORDINARY_ELASTICSEARCH - ({"rest-root", "x-pack-ml"} if self.number == SEVEN else set())


def _start_on_folder(make: Callable[[Path], SearchNode]) -> Callable[[Path], AbstractContextManager[RunningNode]]:
    @contextmanager
    def start_node(base: Path) -> Iterator[RunningNode]:
        with make(base) as node:
            yield RunningNode(url=node.url, environ=_get_login(node))

    return start_node


def _get_login(node: SearchNode) -> Mapping[str, str]:
    if not isinstance(node, SecuredNode):
        return {}
    user, password = node.login
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
    "annotate": _NO_PAINLESS,
}
_DISTRIBUTION = {**_ELASTICSEARCH, "template publish": _NO_MUSTACHE}
"""Of a distribution as Maven serves it, with the stand-in or the field type `sparse_vector`."""
_NO_TYPE = {
    "ingest --vector rank_features": KnownFailure(message="--vector sparse_vector", cause="node"),
    "search --query-type rank_features": KnownFailure(message="is sparse_vector, not rank_features", cause="node"),
    "ingest-labels": KnownFailure(message="The mapper type [rank_features]", cause="node"),
}
_NO_QUERY = KnownFailure(message="unknown query [sparse_vector]", cause="node")
_STAND_IN = frozenset({"ingest --vector rank_features", "search --query-type rank_features", "ingest-labels"})
_ALL_BY_STAND_IN = _STAND_IN | {
    "ingest the same again",
    "ingest --token-index",
    "swap to another model",
    "words",
    "search",
    "search --hybrid sum",
    "search --hybrid rrf",
    "policy plan",
    "serve",
    "encoder --index",
    "ingest-texts",
    "doctor",
    "forget",
}
"""The checks on an index with `rank_features`."""


def _start_elasticsearch(version: str, *, with_stand_in: bool = False) -> Callable[[Path], AbstractContextManager[RunningNode]]:
    return _start_on_folder(lambda base: build_elasticsearch(version, base, with_stand_in=with_stand_in))


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
        number=SEVEN,
        origin="its distribution, with the modules mapper-extras, reindex and lang-mustache",
        run=_start_elasticsearch(SEVEN),
        gaps={**_ELASTICSEARCH, **_NO_ELASTIC_SHAPES},
    ),
    Version(
        engine="Elasticsearch",
        number="8.17.0",
        origin="its distribution, with a stand-in for `rank_features`",
        run=_start_elasticsearch("8.17.0", with_stand_in=True),
        gaps={**_DISTRIBUTION, "search --query-type sparse_vector": _NO_QUERY},
        stand_in=_ALL_BY_STAND_IN,
    ),
    Version(
        engine="Elasticsearch",
        number=EIGHT,
        origin="its distribution, with a stand-in for `rank_features`",
        run=_start_elasticsearch(EIGHT, with_stand_in=True),
        gaps=_DISTRIBUTION,
        main="sparse_vector",
        stand_in=_STAND_IN,
    ),
    Version(
        engine="Elasticsearch",
        number="9.2.0",
        origin="its distribution, unchanged",
        run=_start_elasticsearch("9.2.0"),
        gaps={**_DISTRIBUTION, **_NO_TYPE},
        main="sparse_vector",
    ),
    Version(
        engine="Elasticsearch",
        number=NINE,
        origin="its distribution, with a stand-in for `rank_features`, TLS and a login as administrator",
        run=_start_on_folder(build_secured_elasticsearch),
        gaps=_DISTRIBUTION,
        main="sparse_vector",
        stand_in=_STAND_IN,
    ),
)
