"""Distribution, version and features of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import get_error_reason, translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.products import SERVERLESS, ManagedProduct
from stair_es.cluster.client.retry import INTERACTIVE_RETRY, NO_RETRY, is_busy_error, retry_call
from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import AuthenticationFailed, ClusterError, NotASearchCluster, QueryError, UnsupportedTarget
from stair_es.retry import BUSY_STATUSES, RetryPolicy

Distribution = Literal["opensearch", "elasticsearch"]
_MIN_VERSIONS: dict[Distribution, tuple[int, ...]] = {"opensearch": (1, 1), "elasticsearch": (7, 12)}
_FIRST_ELASTICSEARCH_ONLY = 7
# Version that OpenSearch reports to old clients (`compatibility.override_main_response_version`).
_COMPATIBILITY_VERSION = (7, 10, 2)
_HINT = "Check --url / STAIR_ES_URL: it must be the HTTP port of OpenSearch or Elasticsearch."
_HIDDEN_STATUSES = (403, 404, 405, 410)
_NEWEST_ELASTICSEARCH = (9, 5)
"""Serverless reports the number of a coming release, formerly 8.11, and has what the newest one has."""
NEURAL_SEARCH = "opensearch-neural-search"


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """Distribution, version and features of a cluster."""

    distribution: Distribution
    version: tuple[int, ...]
    """Empty for OpenSearch Serverless, which reports none."""
    max_clauses: int
    """Maximum number of clauses per query (`indices.query.bool.max_clause_count`)."""
    product: ManagedProduct = ""
    """The managed product; empty for all others, and for one that can't be told from an ordinary cluster."""

    @property
    def is_serverless(self) -> bool:
        """Return whether the provider manages nodes, shards and replicas, and hides them."""
        return self.product in SERVERLESS

    @property
    def label(self) -> str:
        """Name and version for messages: `OpenSearch 3.8.0`."""
        name = "OpenSearch" if self.distribution == "opensearch" else "Elasticsearch"
        return f"{name} {'Serverless' if self.is_serverless else '.'.join(map(str, self.version))}"

    @property
    def supports_sparse_vector(self) -> bool:
        """Return whether it has Elasticsearch's `sparse_vector` field and the query of that name (8.15)."""
        return self.distribution == "elasticsearch" and self.version >= (8, 15)

    @property
    def supports_neural_sparse(self) -> bool:
        """Return whether its plugin neural-search, if installed, accepts raw `query_tokens` (OpenSearch 2.14)."""
        return self.distribution == "opensearch" and (not self.version or self.version >= (2, 14))

    @property
    def supports_impacts(self) -> bool:
        """Return whether it has the token filter `delimited_term_freq` (OpenSearch 2.10), which Elasticsearch lacks."""
        return self.distribution == "opensearch" and self.version >= (2, 10)


def get_cluster_info(cluster: Cluster, retry_policy: RetryPolicy = INTERACTIVE_RETRY) -> ClusterInfo:
    """Get distribution, version and limits of the cluster.

    Raises:
        ClusterUnreachable: If nothing answers.
        AuthenticationFailed: If the status is 401, or 403 for every request that returns the version.
        NotASearchCluster: If it is another server.
        UnsupportedTarget: If it is too old for `rank_feature` with `linear`.
    """
    if cluster.product == "opensearch-serverless":
        return ClusterInfo(distribution="opensearch", version=(), max_clauses=MAX_CLAUSES, product=cluster.product)
    identified = _read_root(cluster, retry_policy)
    if cluster.product == "elasticsearch-serverless":
        return ClusterInfo(
            distribution="elasticsearch", version=_NEWEST_ELASTICSEARCH, max_clauses=MAX_CLAUSES, product=cluster.product
        )
    if identified is None or identified == ("elasticsearch", _COMPATIBILITY_VERSION):
        identified = _read_node_version(cluster) or identified
    if identified is None:
        raise NotASearchCluster(f"{cluster.connection.safe_url} answers, but is neither OpenSearch nor Elasticsearch", _HINT)
    distribution, version = identified
    product, max_clauses = cluster.product or "", _read_max_clauses(cluster)
    cluster_info = ClusterInfo(distribution=distribution, version=version, max_clauses=max_clauses, product=product)
    if version < _MIN_VERSIONS[distribution]:
        oldest = ".".join(map(str, _MIN_VERSIONS[distribution]))
        raise UnsupportedTarget(
            f"{cluster.connection.safe_url} is {cluster_info.label}: rank_feature queries with `linear` need {oldest} or newer",
            "Upgrade it, or specify another cluster: --url / STAIR_ES_URL.",
            code="cluster-too-old",
        )
    return cluster_info


def get_product(cluster: Cluster) -> ManagedProduct:
    """Get the managed product, with one request if nobody has asked yet.

    Raises:
        ClusterError: As `get_cluster_info`.
    """
    if cluster.product is None:
        _read_root(cluster, RetryPolicy())  # a run may be under way
    return cluster.product or ""


def list_cluster_plugins(cluster: Cluster) -> frozenset[str]:
    """List the plugins that every node has, by their own names.

    Raises:
        QueryError: If the user lacks the permission.
    """
    params = {"filter_path": "nodes.*.name,nodes.*.plugins.name"}  # the name keeps a node without plugins in the response
    send = cluster.client.transport.perform_request
    try:
        response = cluster.call(send, "GET", "/_nodes/plugins", params=params, retry=NO_RETRY)
    except AuthenticationFailed as error:
        raise QueryError(
            f"can't determine which plugins the cluster has: {error.message}",
            "Grant `cluster:monitor/nodes/info` to the user, or leave --query-type out.",
            code="plugins-unknown",
        ) from None
    nodes = response.get("nodes", {}).values() if isinstance(response, dict) else ()
    found = [frozenset(str(plugin.get("name")) for plugin in node.get("plugins", ())) for node in nodes]
    return frozenset.intersection(*found) if found else frozenset()


def _read_root(cluster: Cluster, retry_policy: RetryPolicy) -> tuple[Distribution, tuple[int, ...]] | None:
    """Read distribution and version from `GET /`; None if it is missing or forbidden. The cluster gets its product."""
    try:
        with translate_errors(
            cluster.connection, passthrough=lambda error: error.status_code in _HIDDEN_STATUSES or _is_not_cluster(error)
        ):
            response = retry_call(cluster.client.info, cluster.connection, retry_policy, should_retry=is_busy_error)
    except NotASearchCluster:
        response = None
    except exceptions.TransportError as error:
        if error.status_code not in _HIDDEN_STATUSES:
            message = f"{cluster.connection.safe_url} answered {error.status_code}: {get_error_reason(error, cluster.connection)}"
            raise NotASearchCluster(f"{message}: is this OpenSearch or Elasticsearch?", _HINT) from None
        response = None
    cluster.product = cluster.product or ""  # not before: a request that failed told nothing
    version = response.get("version") if isinstance(response, dict) else None
    if not isinstance(version, dict) or "number" not in version:
        return None
    if version.get("build_flavor") == "serverless":
        cluster.product = "elasticsearch-serverless"
    if version.get("distribution") == "opensearch":
        return "opensearch", parse_version_numbers(version["number"])
    return ("elasticsearch", parse_version_numbers(version["number"])) if "lucene_version" in version else None


def _is_not_cluster(error: exceptions.TransportError) -> bool:
    """Return whether an error response can't come from a cluster; redirects are excluded because they have a separate remedy."""
    status = error.status_code
    return isinstance(status, int) and status >= 400 and status not in {401, *BUSY_STATUSES} and not isinstance(error.info, dict)


def _read_node_version(cluster: Cluster) -> tuple[Distribution, tuple[int, ...]] | None:
    """Read the version from a node. The response doesn't name the distribution, but the version numbers don't overlap."""
    try:
        params = {"filter_path": "nodes.*.version,nodes.*.build_hash"}
        response = cluster.call(cluster.client.transport.perform_request, "GET", "/_nodes/_local", params=params, retry=NO_RETRY)
    except AuthenticationFailed as error:
        raise AuthenticationFailed(
            f"{error.message} (neither GET / nor GET /_nodes/_local may be read, so its version is unknown)",
            "Grant cluster:monitor/main (Elasticsearch: monitor) to the user: docs/howto/secure.md#roles.",
            code="version-unknown",
        ) from None
    except ClusterError:
        return None
    nodes = response.get("nodes") if isinstance(response, dict) else None
    node_info = next((node for node in (nodes or {}).values() if isinstance(node, dict) and node.get("version")), None)
    if node_info is None:
        return None
    version = parse_version_numbers(node_info["version"])
    return ("elasticsearch" if version >= (_FIRST_ELASTICSEARCH_ONLY,) else "opensearch"), version


def parse_version_numbers(text: object) -> tuple[int, ...]:
    """Parse a version: `3.8.0-SNAPSHOT` -> (3, 8, 0)."""
    return tuple(int(part) for part in str(text).partition("-")[0].split(".") if part.isdigit())


def _read_max_clauses(cluster: Cluster) -> int:
    """Read the limit set for the cluster or at a node's start; managed clusters may hide it, then the default applies."""
    name = "indices.query.bool.max_clause_count"
    try:
        params = {"include_defaults": "true", "flat_settings": "true"}
        settings = cluster.call(cluster.client.cluster.get_settings, params=params, retry=NO_RETRY)
    except ClusterError:
        return MAX_CLAUSES
    layers: list[Mapping[str, Any]] = [settings.get(kind, {}) for kind in ("transient", "persistent", "defaults")]
    return next((int(layer[name]) for layer in layers if name in layer), MAX_CLAUSES)
