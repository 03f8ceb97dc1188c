"""Labels from elsewhere in an index: the fields of its mapping, their policy, and their way into the index that replaces it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABEL_FIELDS, LABELS_FIELD, merge_labels, parse_labels
from stair_es.cluster.documents.edit import CHANGED, DELETED_MEANWHILE, UNCHANGED, DocumentEdit, edit_documents, get_fields
from stair_es.cluster.documents.read import paginate_hits
from stair_es.cluster.index.aliases import get_single_target
from stair_es.cluster.index.mappings import get_mappings_by_index
from stair_es.cluster.metadata.index_metadata import check_index_format, get_index_identity, is_ingest_index
from stair_es.cluster.metadata.names import check_alias_name
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, PolicyState, add_to_history, parse_policy_state
from stair_es.errors import ClusterError, IndexMismatch
from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

_PAGE_SIZE = 500
_META_ATTEMPTS = 5


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


class LabelTarget(NamedTuple):
    """The index of an alias, whose labels are changed."""

    name: str
    identity: str
    has_labels: bool
    state: PolicyState
    """Of the policy of its labels."""


def get_label_target(cluster: Cluster, alias: str) -> LabelTarget:
    """Get the index of an alias that `ingest` made.

    Raises:
        IndexMismatch: If there is none, or it has columns with the names of the fields of labels.
    """
    check_alias_name(alias)
    name = get_single_target(cluster, alias)
    found: Mapping[str, Any] = cluster.call(cluster.client.indices.get, index=name)[name]
    if not is_ingest_index(found):
        raise IndexMismatch(
            f"index {name!r} (alias {alias!r}) was not made by stair-es ingest",
            "Use an index made by `stair-es ingest`.",
            code="foreign-index",
        )
    check_index_format(name, found)
    has_labels = not list_missing_label_fields(found["mappings"].get("properties", {}), name)
    return LabelTarget(name, get_index_identity(found), has_labels, parse_policy_state(found, name, LABELS_POLICY))


def check_label_target(cluster: Cluster, alias: str, target: LabelTarget) -> None:
    """Check that an alias still has the index that was changed, with the same policy of labels.

    Raises:
        IndexMismatch: If an ingest has replaced the index, or another run has changed the policy meanwhile.
    """
    now = get_label_target(cluster, alias)
    if now.identity != target.identity or now.state.policy != target.state.policy:
        what = "the index was replaced" if now.identity != target.identity else "the policy of its labels was changed"
        raise IndexMismatch(
            f"{what} while the labels of {alias!r} were written",
            "Run the same command again.",
            code="labels-changed-meanwhile",
        )


def add_label_fields(cluster: Cluster, name: str) -> None:
    """Add the fields of labels to the mapping of an index, unless it has them.

    Raises:
        IndexMismatch: As `list_missing_label_fields`.
    """
    mapping = cluster.call(cluster.client.indices.get_mapping, index=name)[name]["mappings"]
    if missing := list_missing_label_fields(mapping.get("properties", {}), name):
        cluster.call(cluster.client.indices.put_mapping, index=name, body={"properties": missing})


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
        own_meta |= add_to_history(own_meta, before.policy, state.policy, LABELS_POLICY)
        body = {"_meta": {**meta, "stair_es": own_meta}}
        cluster.call(cluster.client.indices.put_mapping, index=index, body=body)
    raise ClusterError(f"another process keeps changing the _meta of {index}", "Run it again.", code="meta-keeps-changing")


def copy_labels(cluster: Cluster, live: str, target: str) -> int:
    """Copy the labels of an index and their policy to the one that replaces it; return the number of images that got them.

    They are those with the same id and the same content. Labels that the target already has, from its files, are kept.
    """
    found = get_mappings_by_index(cluster, live).get(live, {"mappings": {}})  # it may have been deleted meanwhile
    if found["mappings"].get("properties", {}).get(LABELS_FIELD, {}).get("type") != LABEL_FIELDS[LABELS_FIELD]["type"]:
        return 0
    add_label_fields(cluster, target)
    state = parse_policy_state(found, live, LABELS_POLICY)
    write_labels_policy(cluster, target, state)
    counts = Counter[str]()
    for sources in scan_labels(cluster, live, ["sha256"]):
        edits = {id_: _build_copy(source, state.policy) for id_, source in sources.items()}
        counts.update(edit_documents(cluster, target, edits, LABEL_FIELDS).values())
    if failed := counts.total() - counts[CHANGED] - counts[UNCHANGED] - counts[DELETED_MEANWHILE]:
        logger.warning("%s images have lost their labels: import them again", f"{failed:,}")
    return counts[CHANGED]


def _build_copy(live: Mapping[str, Any], policy: TokenPolicy | None) -> DocumentEdit:
    def copy(source: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if source.get("sha256") != live.get("sha256"):
            return None
        return merge_labels(get_fields(live, LABEL_FIELDS), parse_labels(source).to_dict(), policy)

    return copy
