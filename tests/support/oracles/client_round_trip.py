"""Write documents and search them with whatever client the import path has. Task as JSON on stdin, hits as JSON on stdout.

`tests/integration/test_clients.py` runs it, once for each version of each client.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Any

Hits = list[tuple[str, float]]


def search_with_client(task: dict[str, Any]) -> Hits:
    """Write with the client's own bulk helper and search with it."""
    module, name = {"elasticsearch": ("elasticsearch", "Elasticsearch"), "opensearch-py": ("opensearchpy", "OpenSearch")}[
        task["client"]
    ]
    client = getattr(import_module(module), name)([task["url"]])
    helpers = import_module(f"{module}.helpers")
    client.indices.create(index=task["index"], body=task["body"])
    actions: Iterable[dict[str, Any]] = (
        {"_op_type": "index", "_index": task["index"], "_id": id_, "_source": document} for id_, document in task["documents"]
    )
    written, errors = helpers.bulk(client, actions, refresh=True)
    assert written == len(task["documents"]), errors
    response = client.search(index=task["index"], body=task["query"])
    client.close()
    return _extract_hits(response)


def search_with_stair_es(task: dict[str, Any]) -> Hits:
    """Write with the bulk path of `stair-es`."""
    from stair_es.cluster.bulk.throttle import BulkPolicy
    from stair_es.cluster.bulk.writer import BulkWriter
    from stair_es.cluster.client.capabilities import get_cluster_info
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.connection import Connection
    from stair_es.cluster.metadata.names import make_write_alias

    cluster = Cluster(Connection.from_env(task["url"]))
    get_cluster_info(cluster)
    cluster.client.indices.create(index=task["index"], body={**task["body"], "aliases": {make_write_alias(task["index"]): {}}})
    writer = BulkWriter(cluster=cluster, index=task["index"], policy=BulkPolicy())
    outcomes = writer.write([(id_, document) for id_, document in task["documents"]]).outcomes
    assert not any(outcomes.values()), outcomes
    cluster.client.indices.refresh(index=task["index"])
    response = cluster.call(cluster.client.search, index=task["index"], body=task["query"])
    cluster.close()
    return _extract_hits(response)


def _extract_hits(response: Any) -> Hits:  # noqa: ANN401  each client has a type of its own
    return [(hit["_id"], hit["_score"]) for hit in response["hits"]["hits"]]


def main() -> None:
    """Read, do, print."""
    task = json.load(sys.stdin)
    hits = search_with_stair_es(task) if task["by"] == "stair-es" else search_with_client(task)
    json.dump({"version": version(task["client"]), "hits": hits}, sys.stdout)


if __name__ == "__main__":
    main()
