"""The write alias of an index (`make_write_alias`), restored if it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.metadata.index_metadata import make_write_alias
from stair_es.errors import IndexMismatch

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.opensearch import OpenSearch

WRITE_ALIAS_OPTIONS = {"is_write_index": True}
"""Options of the alias: writes go to this index, even if another index is given the alias, too."""


def ensure_write_alias(cluster: Cluster, index: str) -> None:
    """Give an index its write alias, unless it has it.

    Raises:
        IndexMismatch: If writes through the alias go to another index.
        ClusterError: If a request fails, or the index doesn't exist.
    """
    cluster.call(_ensure_once, cluster.client, index)


def _ensure_once(client: OpenSearch, index: str) -> None:
    alias = make_write_alias(index)
    options = client.indices.get_alias(index=index)[index]["aliases"].get(alias, {})
    if options.get("is_write_index"):
        return
    try:
        client.indices.put_alias(index=index, name=alias, body=WRITE_ALIAS_OPTIONS)
    except exceptions.TransportError as error:
        if "more than one write index" not in str(error):
            raise
        raise IndexMismatch(
            f"{index!r} can't be written: its alias {alias!r} was given to another index",
            f"GET /_alias/{alias} names that index. Remove the alias from it and run this again: DELETE /INDEX/_alias/{alias}",
        ) from None
