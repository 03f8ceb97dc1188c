"""Labels from elsewhere in an index: the fields of its mapping, and their way into the index that replaces it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABEL_FIELDS, LABELS_FIELD
from stair_es.cluster.documents.read import get_documents_by_id, paginate_hits
from stair_es.errors import IndexMismatch

_PAGE_SIZE = 500


def list_missing_label_fields(properties: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the fields of labels that the mapping of the index `name` lacks.

    Raises:
        IndexMismatch: If it has columns with their names.
    """
    for own, definition in LABEL_FIELDS.items():
        if own in properties and properties[own].get("type") != definition["type"]:
            raise IndexMismatch(
                f"index {name!r} has a column {own!r}, a name reserved for labels",
                f"Build an index without it: ingest with the column under another name (--field OTHER={own}).",
                code="labels-field-taken",
            )
    return {own: dict(definition) for own, definition in LABEL_FIELDS.items() if own not in properties}


def add_label_fields(cluster: Cluster, name: str) -> None:
    """Add the fields of labels to the mapping of an index, unless it has them.

    Raises:
        IndexMismatch: As `list_missing_label_fields`.
    """
    mapping = cluster.call(cluster.client.indices.get_mapping, index=name)[name]["mappings"]
    if missing := list_missing_label_fields(mapping.get("properties", {}), name):
        cluster.call(cluster.client.indices.put_mapping, index=name, body={"properties": missing})


def copy_labels(cluster: Cluster, live: str, writer: BulkWriter) -> int:
    """Copy the labels of an index to the one that replaces it, for images with the same content; return their number.

    Documents are the same if they have the same id.
    """
    mapping = cluster.call(cluster.client.indices.get_mapping, index=live)[live]["mappings"]
    if mapping.get("properties", {}).get(LABELS_FIELD, {}).get("type") != LABEL_FIELDS[LABELS_FIELD]["type"]:
        return 0
    add_label_fields(cluster, writer.index)
    body = {"query": {"exists": {"field": "top_labels"}}, "_source": ["sha256", *LABEL_FIELDS]}
    copied = 0
    for hits in paginate_hits(cluster, live, body, size=_PAGE_SIZE):
        sources = {hit["_id"]: hit["_source"] for hit in hits}
        contents = get_documents_by_id(cluster, writer.index, list(sources), ["sha256"]) if sources else []
        same = [doc["_id"] for doc in contents if doc["_source"].get("sha256") == sources[doc["_id"]].get("sha256")]
        copied += len(same)
        writer.update([(id_, {name: sources[id_].get(name) for name in LABEL_FIELDS}) for id_ in same])
    return copied
