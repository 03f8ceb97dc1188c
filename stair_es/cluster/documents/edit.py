"""Change fields of documents from here, each document as a whole and in its latest version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from stair_es.cluster.bulk.actions import WRITTEN_AGAIN
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.read import WriteVersion, get_documents_by_id

_MAX_EDITS = 20
CHANGED, UNCHANGED = "changed", "unchanged"
DELETED_MEANWHILE = "it was deleted meanwhile"
"""Reason why a document was not changed."""
DocumentEdit: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Returns the fields that a document is to have, of those that are edited, from its source; None for no change."""


def get_fields(source: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Get those of the fields that a document has."""
    return {name: source[name] for name in fields if source.get(name) is not None}


def edit_documents(
    cluster: Cluster, index: str, edits: Mapping[str, DocumentEdit], fields: Collection[str], *, dry_run: bool = False
) -> dict[str, str]:
    """Change fields of documents, given by id; return for each id `CHANGED`, `UNCHANGED`, or the reason why it failed.

    A document is read in real time and written back with its version: one that another program writes meanwhile is read again.
    So an interrupted run leaves each document as it was, or as it is to be.

    Raises:
        ClusterError: If the cluster as a whole fails.
    """
    writer, outcomes, pending = BulkWriter(cluster=cluster, index=index), dict[str, str](), list(edits)
    for _ in range(_MAX_EDITS):
        documents, versions = list[tuple[str, dict[str, Any]]](), dict[str, dict[str, int]]()
        outcomes |= dict.fromkeys(pending, DELETED_MEANWHILE)
        for doc in get_documents_by_id(cluster, index, pending, ["*", "tokens"]) if pending else ():
            id_, source = doc["_id"], doc["_source"]
            try:
                edited = edits[id_](source)
            except (TypeError, ValueError) as error:  # of a document that another program has written
                outcomes[id_] = str(error) or type(error).__name__
                continue
            if edited is None or edited == get_fields(source, fields):
                outcomes[id_] = UNCHANGED
            else:
                documents.append((id_, {**{k: v for k, v in source.items() if k not in fields}, **edited}))
                versions[id_] = WriteVersion.from_hit(doc).options
        written = dict.fromkeys(versions) if dry_run else writer.replace(documents, versions).outcomes if documents else {}
        outcomes |= {id_: reason or CHANGED for id_, reason in written.items()}
        pending = [id_ for id_, reason in written.items() if reason == WRITTEN_AGAIN]
        if not pending:
            break
    return outcomes
