"""Facts about a cluster and its indices: the requests of the doctor, all read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.products import SERVERLESS
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.errors import AuthenticationFailed, ClusterError

HEALTH_RIGHT, SETTINGS_RIGHT = "cluster:monitor/health", "cluster:monitor/state"


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """Facts about a cluster; None for what this user may not see."""

    health: Mapping[str, Any] | None
    """`GET /_cluster/health`."""
    unassigned: Mapping[str, Any] | None
    """`GET /_cluster/allocation/explain`, for one unassigned shard."""
    settings: Mapping[str, Any]
    """Flat: explicit settings over defaults."""
    transient: Mapping[str, Any]
    """Those that last until the cluster restarts."""
    disks: Mapping[str, tuple[int, int]]
    """Node -> bytes free and total."""
    forbidden: tuple[str, ...] = ()
    """Rights that this user lacks for the rest."""


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """Facts about an index name and all indices that belong to it."""

    name: str
    indices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Index -> aliases, mappings and flat settings: of the name itself, its builds, retired indices and token indices."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Index -> documents, bytes."""
    forbidden: tuple[str, ...] = ()
    """Rights that this user lacks for the rest."""

    @property
    def targets(self) -> list[str]:
        """Return the indices that the name points to."""
        return sorted(name for name, index in self.indices.items() if self.name in (name, *index.get("aliases", {})))

    def find_alias(self, index: str, prefix: str) -> str | None:
        """Return an alias of an index that starts with `prefix`, or None."""
        return next((alias for alias in self.indices[index].get("aliases", {}) if alias.startswith(prefix)), None)


def fetch_cluster_facts(cluster: Cluster) -> ClusterFacts:
    """Fetch facts about the cluster. Denied requests are left out."""
    forbidden: list[str] = []

    def fetch(right: str, path: str, **params: str) -> dict[str, Any] | None:
        return _fetch_json(cluster, path, params, right, forbidden)

    health = fetch(HEALTH_RIGHT, "/_cluster/health")
    settings = fetch(SETTINGS_RIGHT, "/_cluster/settings", include_defaults="true", flat_settings="true") or {}
    stats = fetch("cluster:monitor/nodes/stats", "/_nodes/stats/fs", filter_path="nodes.*.name,nodes.*.fs.total") or {}
    has_unassigned = health is not None and health.get("unassigned_shards", 0) > 0
    return ClusterFacts(
        health=health,
        unassigned=fetch("cluster:monitor/allocation/explain", "/_cluster/allocation/explain") if has_unassigned else None,
        settings={**settings.get("defaults", {}), **settings.get("persistent", {}), **settings.get("transient", {})},
        transient=settings.get("transient", {}),
        disks={
            node["name"]: (node["fs"]["total"]["available_in_bytes"], node["fs"]["total"]["total_in_bytes"])
            for node in stats.get("nodes", {}).values()
            if node.get("fs", {}).get("total", {}).get("total_in_bytes", 0) > 0
        },
        forbidden=tuple(forbidden),
    )


def fetch_index_facts(cluster: Cluster, name: str) -> IndexFacts:
    """Fetch facts about an index and related indices. Denied requests are left out."""
    params = {"expand_wildcards": "all", "ignore_unavailable": "true", "flat_settings": "true"}
    found: dict[str, dict[str, Any]] = {}
    forbidden: list[str] = []
    try:
        found = cluster.call(cluster.client.indices.get, index=f"{name},{name}-*", params=params, retry=NO_RETRY)
    except AuthenticationFailed:
        forbidden.append("indices:admin/get")
    path, stats = f"/{name}*/_stats/docs,store", dict[str, Any]()
    if cluster.product not in SERVERLESS:
        stats = _fetch_json(cluster, path, {"expand_wildcards": "all"}, "indices:monitor/stats", forbidden) or {}
    sizes = {
        index: (index_stats["primaries"]["docs"]["count"], index_stats["total"]["store"]["size_in_bytes"])
        for index, index_stats in stats.get("indices", {}).items()
    }
    return IndexFacts(name=name, indices=found, sizes=sizes, forbidden=tuple(forbidden))


def fetch_privileges(cluster: Cluster, name: str) -> Mapping[str, bool] | None:
    """Return which privileges on `name*` this user has (Elasticsearch); None if the cluster does not report them."""
    body = {"index": [{"names": [f"{name}*"], "privileges": ["read", "view_index_metadata", "write", "create_index", "manage"]}]}
    try:
        send = cluster.client.transport.perform_request
        response = cluster.call(send, "POST", "/_security/user/_has_privileges", body=body, retry=NO_RETRY)
    except ClusterError:
        return None
    privileges = response.get("index", {}).get(f"{name}*") if isinstance(response, dict) else None
    return privileges if isinstance(privileges, dict) else None


def _fetch_json(
    cluster: Cluster, path: str, params: Mapping[str, str], right: str, forbidden: list[str]
) -> dict[str, Any] | None:
    """Return a response, or None; add `right` to `forbidden` if the request is denied."""
    try:
        with translate_errors(cluster.connection, passthrough=lambda error: error.status_code in (400, 404, 405, 410)):
            response = cluster.client.transport.perform_request("GET", path, params=dict(params))
    except AuthenticationFailed:
        forbidden.append(right)
        return None
    except (ClusterError, exceptions.TransportError):
        return None
    return response if isinstance(response, dict) else None
