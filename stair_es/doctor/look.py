"""What a cluster and its indices say of themselves: the requests of the doctor. None of them changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated
from stair_es.errors import AuthenticationFailed, ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

HEALTH, SETTINGS = "cluster:monitor/health", "cluster:monitor/state"
"""The rights that health and settings of a cluster take."""


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """What the cluster says; None for what it doesn't tell this user."""

    health: Mapping[str, Any] | None
    """`GET /_cluster/health`."""
    unassigned: Mapping[str, Any] | None
    """`GET /_cluster/allocation/explain`, for one shard that is nowhere."""
    settings: Mapping[str, Any]
    """Flat: what is set, over the defaults."""
    transient: Mapping[str, Any]
    """Those of them that are set until the cluster is started again."""
    disks: Mapping[str, tuple[int, int]]
    """Node -> bytes free and in all."""
    forbidden: tuple[str, ...] = ()
    """The rights that this user lacks for the rest."""


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """What the cluster says of everything that belongs to a name."""

    name: str
    indices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Index -> aliases, mappings and flat settings: of the name itself, of its builds, of retired ones and of their words."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Index -> documents, bytes."""
    forbidden: tuple[str, ...] = ()
    """The rights that this user lacks for the rest."""

    @property
    def live(self) -> list[str]:
        """The indices that the name stands for."""
        return sorted(index for index, told in self.indices.items() if index == self.name or self.name in told.get("aliases", {}))

    def alias_of(self, index: str, beginning: str) -> str | None:
        """An alias of an index that begins so."""
        return next((alias for alias in self.indices[index].get("aliases", {}) if alias.startswith(beginning)), None)


def cluster_facts(client: OpenSearch, connection: Connection) -> ClusterFacts:
    """Look at the cluster. What it refuses is left out."""
    forbidden: list[str] = []

    def get(right: str, path: str, **params: str) -> dict[str, Any] | None:
        return _get(client, connection, path, params, right, forbidden)

    health = get(HEALTH, "/_cluster/health")
    settings = get(SETTINGS, "/_cluster/settings", include_defaults="true", flat_settings="true") or {}
    stats = get("cluster:monitor/nodes/stats", "/_nodes/stats/fs", filter_path="nodes.*.name,nodes.*.fs.total") or {}
    nowhere = health is not None and health.get("unassigned_shards", 0) > 0
    return ClusterFacts(
        health=health,
        unassigned=get("cluster:monitor/allocation/explain", "/_cluster/allocation/explain") if nowhere else None,
        settings={**settings.get("defaults", {}), **settings.get("persistent", {}), **settings.get("transient", {})},
        transient=settings.get("transient", {}),
        disks={
            node["name"]: (node["fs"]["total"]["available_in_bytes"], node["fs"]["total"]["total_in_bytes"])
            for node in stats.get("nodes", {}).values()
            if node.get("fs", {}).get("total", {}).get("total_in_bytes", 0) > 0
        },
        forbidden=tuple(forbidden),
    )


def index_facts(client: OpenSearch, connection: Connection, name: str) -> IndexFacts:
    """Look at an index, and at what an ingest made beside it. What this user may not look at is left out.

    Raises:
        ClusterError: The cluster failed the request.
    """
    params = {"expand_wildcards": "all", "ignore_unavailable": "true", "flat_settings": "true"}
    found: dict[str, dict[str, Any]] = {}
    forbidden: list[str] = []
    try:
        with translated(connection):
            found = client.indices.get(index=f"{name},{name}-*", params=params)
    except AuthenticationFailed:
        forbidden.append("indices:admin/get")
    path = f"/{name}*/_stats/docs,store"
    stats = _get(client, connection, path, {"expand_wildcards": "all"}, "indices:monitor/stats", forbidden) or {}
    sizes = {
        index: (told["primaries"]["docs"]["count"], told["total"]["store"]["size_in_bytes"])
        for index, told in stats.get("indices", {}).items()
    }
    return IndexFacts(name=name, indices=found, sizes=sizes, forbidden=tuple(forbidden))


def rights(client: OpenSearch, connection: Connection, name: str) -> Mapping[str, bool] | None:
    """Which rights on `name*` this user has (Elasticsearch); None where the cluster doesn't tell."""
    asked = {"index": [{"names": [f"{name}*"], "privileges": ["read", "view_index_metadata", "write", "create_index", "manage"]}]}
    try:
        with translated(connection):
            answer = client.transport.perform_request("POST", "/_security/user/_has_privileges", body=asked)
    except ClusterError:
        return None
    told = answer.get("index", {}).get(f"{name}*") if isinstance(answer, dict) else None
    return told if isinstance(told, dict) else None


def _get(
    client: OpenSearch, connection: Connection, path: str, params: Mapping[str, str], right: str, forbidden: list[str]
) -> dict[str, Any] | None:
    """Return an answer, if there is one; add `right` to `forbidden` where that is what it takes."""
    try:
        with translated(connection, but=lambda error: error.status_code in (400, 404, 405, 410)):
            answer = client.transport.perform_request("GET", path, params=dict(params))
    except AuthenticationFailed:
        forbidden.append(right)
        return None
    except (ClusterError, exceptions.TransportError):
        return None
    return answer if isinstance(answer, dict) else None
