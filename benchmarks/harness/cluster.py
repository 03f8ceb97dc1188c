"""The cluster of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.embedded_node import ensure_running


@contextmanager
def open_cluster(url: str | None) -> Iterator[tuple[Cluster, str]]:
    """Yield a cluster and a prefix. All indices with this prefix are deleted at the end."""
    connection = Connection(url=url or ensure_running(), timeout_s=120)
    name = f"bench-{uuid4().hex[:10]}"
    with Cluster(connection) as cluster:
        try:
            yield cluster, name
        finally:
            found = cluster.client.indices.get(index=f"{name}*", params={"allow_no_indices": "true"})
            for index in found:
                cluster.client.indices.delete(index=index)
