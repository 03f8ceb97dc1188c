"""Labels from elsewhere in an index: the fields of its mapping, their policy, and their way into the index that replaces it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABEL_FIELDS, LABELS_FIELD
from stair_es.cluster.documents.read import get_documents_by_id, paginate_hits
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, PolicyState, add_to_history, parse_policy_state
from stair_es.errors import ClusterError, IndexMismatch

_PAGE_SIZE = 500
_META_ATTEMPTS = 5
FieldsChange: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The fields of labels that a document has, and those that it is to have."""


def list_missing_label_fields(properties: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the fields of labels that the mapping of the index `name` lacks.

    Raises:
        IndexMismatch: If it has columns with their names.
    """
    for own, definition in LABEL_FIELDS.items():
        if own in properties and properties[own].get("type", "object") != definition["type"]:
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


def get_label_fields(source: Mapping[str, Any]) -> dict[str, Any]:
    """Get the fields of labels that a document has."""
    return {name: source[name] for name in LABEL_FIELDS if source.get(name) is not None}


def write_label_fields(cluster: Cluster, index: str, changes: Mapping[str, FieldsChange]) -> dict[str, str | None]:
    """Change the fields of labels of documents, given by id; return the reasons of those that failed, None for the others.

    An update merges objects, so what a document has is removed first. `rank_features` can't be null.
    """
    writer, outcomes = BulkWriter(cluster=cluster, index=index), dict[str, str | None]()
    cleared = [
        (id_, dict.fromkeys(old) | ({LABELS_FIELD: []} if LABELS_FIELD in old else {})) for id_, (old, _) in changes.items()
    ]
    if cleared := [(id_, fields) for id_, fields in cleared if fields]:
        outcomes |= writer.update(cleared).outcomes
    written = [(id_, new) for id_, (_, new) in changes.items() if outcomes.get(id_) is None]
    return outcomes | (writer.update(written).outcomes if written else {})


def scan_labels(cluster: Cluster, index: str, fields: Sequence[str] = ()) -> Iterator[dict[str, Mapping[str, Any]]]:
    """Yield pages of the documents that have labels, or had some before a policy: id -> `uri`, fields of labels, and others."""
    has_labels = [{"exists": {"field": "top_labels"}}, {"exists": {"field": "labels_policy"}}]
    query = {"bool": {"should": has_labels, "minimum_should_match": 1}}
    body = {"query": query, "_source": ["uri", *LABEL_FIELDS, *fields]}
    for hits in paginate_hits(cluster, index, body, size=_PAGE_SIZE):
        yield {hit["_id"]: hit["_source"] for hit in hits}


def write_labels_policy(cluster: Cluster, index: str, state: PolicyState) -> None:
    """Record the policy of labels in `_meta`, until it is there: each update replaces all of `_meta`."""
    for _ in range(_META_ATTEMPTS):
        found = cluster.call(cluster.client.indices.get_mapping, index=index)[index]
        before = parse_policy_state(found, index, LABELS_POLICY)
        if before == state:
            return
        meta = found["mappings"].get("_meta", {})
        own_meta = {key: value for key, value in meta.get("stair_es", {}).items() if key != LABELS_POLICY}
        own_meta |= {LABELS_POLICY: state.to_json()} if state.to_json() else {}
        own_meta |= add_to_history(own_meta, before.policy, state.policy)
        body = {"_meta": {**meta, "stair_es": own_meta}}
        cluster.call(cluster.client.indices.put_mapping, index=index, body=body)
    raise ClusterError(f"another process keeps changing the _meta of {index}", "Run it again.", code="meta-keeps-changing")


def copy_labels(cluster: Cluster, live: str, target: str) -> int:
    """Copy the labels of an index and their policy to the one that replaces it; return the number of images that got them.

    They are those with the same id and the same content.
    """
    found = cluster.call(cluster.client.indices.get_mapping, index=live)[live]
    if found["mappings"].get("properties", {}).get(LABELS_FIELD, {}).get("type") != LABEL_FIELDS[LABELS_FIELD]["type"]:
        return 0
    add_label_fields(cluster, target)
    write_labels_policy(cluster, target, parse_policy_state(found, live, LABELS_POLICY))
    copied = 0
    for sources in scan_labels(cluster, live, ["sha256"]):
        stored = get_documents_by_id(cluster, target, list(sources), ["sha256", *LABEL_FIELDS]) if sources else []
        changes = {
            doc["_id"]: (get_label_fields(doc["_source"]), get_label_fields(sources[doc["_id"]]))
            for doc in stored
            if doc["_source"].get("sha256") == sources[doc["_id"]].get("sha256")
        }
        copied += sum(reason is None for reason in write_label_fields(cluster, target, changes).values())
    return copied
