"""Whether a cluster runs scripts that change documents."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.retry import persistently
from stair_es.errors import ClusterError, UnsupportedTarget

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection


def check_scripts(client: OpenSearch, connection: Connection) -> None:
    """Nothing, if the cluster runs inline painless scripts on updates, or doesn't tell.

    Raises:
        UnsupportedTarget: It doesn't.
    """
    try:
        answer = persistently(partial(_languages, client), connection)
    except ClusterError:
        return  # forbidden, or too old to be asked
    contexts = {entry["language"]: entry["contexts"] for entry in answer.get("language_contexts", [])}
    if not {"update", "update_by_query"} & set(contexts.get("painless", [])):
        raise no_painless(connection, "it has no painless")
    if "inline" not in answer.get("types_allowed", ["inline"]):
        raise no_painless(connection, "it allows no inline scripts")


def _languages(client: OpenSearch) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = client.get_script_languages()
    except exceptions.NotFoundError:
        return {"language_contexts": [{"language": "painless", "contexts": ["update"]}]}
    return answer


def no_painless(connection: Connection, why: str) -> UnsupportedTarget:
    """What is said of a cluster that can't steer an index that is there."""
    return UnsupportedTarget(
        f"{connection.safe_url} can't change documents by script: {why}",
        "It takes inline painless scripts. Else give the policy to a new index: stair-es ingest --policy FILE --index NEW",
    )
