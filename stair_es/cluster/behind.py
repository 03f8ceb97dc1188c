"""What stands behind the name of an index: an alias, an index, or a pattern."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy.exceptions import NotFoundError

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.retry import FIRST_LOOK, is_busy, repeated

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def mappings_of(client: OpenSearch, connection: Connection, name: str) -> dict[str, Any]:
    """Index -> what the cluster says of its mapping, for all that a name stands for; empty where nothing does.

    Raises:
        ClusterError: The cluster fails the request.
    """
    if not name.strip(", "):  # it would be all indices
        return {}
    with translated(connection):
        try:
            call = partial(client.indices.get_mapping, index=name)
            answer: dict[str, Any] = repeated(call, connection, FIRST_LOOK, on=is_busy)
        except NotFoundError:
            return {}
    return answer
