"""The versions of search engines that `check_versions.py` goes through: how each node is made, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stair_es.embedded_node.lockfile import load_node_lock
from support.nodes import elasticsearch_locks, maven_locks, opensearch_locks, search_nodes
from support.nodes.node_process import SearchNode
from support.nodes.opensearch_nodes import ADMIN, SecuredNode, release_node, secured_node

_ORDINARY_OPENSEARCH = frozenset(module.name for module in maven_locks.MODULES.values())
_ORDINARY_ELASTICSEARCH = frozenset(
    {"lang-mustache", "lang-painless", "mapper-extras", "reindex", "rest-root", "transport-netty4", "x-pack-core", "x-pack-ml"}
)
"""Modules of the distribution that stair-es uses, directly or not."""

Cause = Literal["engine", "plugin", "node"]
"""Who lacks it: every cluster of this version; every cluster without the plugin; only this node, made of what Maven serves."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A check that is known to fail on a version."""

    says: str
    """Part of what the user reads."""
    cause: Cause


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running node, and how the command reaches it."""

    url: str
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of an engine, as one node."""

    engine: Literal["OpenSearch", "Elasticsearch"]
    number: str
    made: str
    """What the node consists of, for the page."""
    run: Callable[[Path], AbstractContextManager[Served]]
    """Runs the node in a folder, as long as the context."""
    gaps: Mapping[str, Gap]
    """Check -> what is known."""
    lacks: tuple[str, ...] | None = None
    """Modules of an ordinary installation that the node doesn't have; None where it tells so itself."""

    @property
    def label(self) -> str:
        """As `stair-es doctor` calls it."""
        return f"{self.engine} {self.number}"

    @property
    def modules(self) -> frozenset[str]:
        """Those that an ordinary installation has."""
        return _ORDINARY_OPENSEARCH if self.engine == "OpenSearch" else _ORDINARY_ELASTICSEARCH


def _running(make: Callable[[Path], SearchNode]) -> Callable[[Path], AbstractContextManager[Served]]:
    @contextmanager
    def run(base: Path) -> Iterator[Served]:
        with make(base) as node:
            yield Served(url=node.url, environ=_login(node))

    return run


def _login(node: SearchNode) -> Mapping[str, str]:
    if not isinstance(node, SecuredNode):
        return {}
    user, password = ADMIN
    return {"STAIR_ES_USER": user, "STAIR_ES_PASSWORD": password, "STAIR_ES_CA_FILE": str(node.ca_file)}


@contextmanager
def _embedded(base: Path) -> Iterator[Served]:
    with search_nodes.embedded(base) as url:
        yield Served(url=url)


def _release(number: str) -> Callable[[Path], AbstractContextManager[Served]]:
    return _running(lambda base: release_node(number, base))


_NO_ELASTIC_SHAPES = {
    "ingest --vector sparse_vector": Gap(says="it requires Elasticsearch 8.15 or newer", cause="engine"),
    "search --query-type sparse_vector": Gap(says="it requires Elasticsearch 8.15 or newer", cause="engine"),
}
_NO_NEURAL = {
    "ingest --vector seismic": Gap(says="doesn't have the plugin opensearch-neural-search", cause="plugin"),
    "search --query-type neural_sparse": Gap(says="doesn't have the plugin opensearch-neural-search", cause="plugin"),
    "search --query-type seismic": Gap(says="the index has no field `token_ids`", cause="plugin"),
}
_TOO_OLD = Gap(says="it requires OpenSearch 3.3 or newer", cause="engine")
_TOO_OLD_TO_SEARCH = Gap(says="it requires OpenSearch 3.3 or newer", cause="engine")
_OPENSEARCH = {**_NO_ELASTIC_SHAPES, **_NO_NEURAL}
_NO_PAINLESS = Gap(says="it has no painless", cause="node")
_NO_MUSTACHE = Gap(says="doesn't support mustache", cause="node")
_ELASTICSEARCH = {
    "ingest --impact-field": Gap(says="it requires OpenSearch 2.10 or newer", cause="engine"),
    "ingest --vector seismic": _TOO_OLD,
    "search --query-type impacts": Gap(says="the index has no field `impacts`", cause="engine"),
    "search --query-type neural_sparse": Gap(says="it requires OpenSearch 2.14 or newer", cause="engine"),
    "search --query-type seismic": _TOO_OLD_TO_SEARCH,
    "policy apply": _NO_PAINLESS,
    "policy rollback": _NO_PAINLESS,
}
_MODULAR = {
    **_ELASTICSEARCH,
    "ingest --vector rank_features": Gap(says="--vector sparse_vector", cause="node"),
    "search --query-type rank_features": Gap(says="is sparse_vector, not rank_features", cause="node"),
    "template publish": _NO_MUSTACHE,
}
_NO_QUERY = Gap(says="unknown query [sparse_vector]", cause="node")
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
        made="server and modules; Java's security manager with all rights granted",
        run=_release(opensearch_locks.OLDEST),
        gaps={**_OPENSEARCH, "ingest --vector seismic": _TOO_OLD, "search --query-type seismic": _TOO_OLD_TO_SEARCH},
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.SECURED,
        made="server, modules and the plugin security: TLS, logged in as its administrator",
        run=_running(secured_node),
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.SPARSE,
        made="server, modules and the plugins k-NN and neural-search",
        run=_release(opensearch_locks.SPARSE),
        gaps=_NO_ELASTIC_SHAPES,
    ),
    Version(
        engine="OpenSearch",
        number=load_node_lock().opensearch,
        made="the embedded node of `stair-es node`: server and modules",
        run=_embedded,
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="OpenSearch",
        number=opensearch_locks.NEWEST,
        made="server and modules",
        run=_release(opensearch_locks.NEWEST),
        gaps=_OPENSEARCH,
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.SEVEN,
        made="server and modules, behind a launcher of our own",
        run=_running(search_nodes.elasticsearch7),
        lacks=("lang-painless",),
        gaps={
            **_ELASTICSEARCH,
            "ingest --vector sparse_vector": Gap(says="it requires Elasticsearch 8.15 or newer", cause="engine"),
            "search --query-type sparse_vector": Gap(says="it requires Elasticsearch 8.15 or newer", cause="engine"),
        },
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.EIGHT,
        made="server and the two modules that Maven serves, behind a launcher of our own",
        run=_running(search_nodes.elasticsearch8),
        gaps={
            **_MODULAR,
            **dict.fromkeys(_SEARCHES, _NO_QUERY),
        },
    ),
    Version(
        engine="Elasticsearch",
        number=elasticsearch_locks.NINE,
        made="server and the two modules that Maven serves, behind a launcher of our own",
        run=_running(search_nodes.elasticsearch9),
        gaps=_MODULAR,
    ),
)
