"""Mappings: of existing indices, and the body of a new index for the features of the cluster and the content of its documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from stair_es import resources
from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.retry import INTERACTIVE_RETRY, is_busy_error, retry_call
from stair_es.cluster.documents.document import DocumentSettings, check_field_names
from stair_es.cluster.metadata.index_metadata import IndexSpec, add_index_meta, build_index_meta
from stair_es.errors import ResourceError, UnsupportedTarget, UsageError
from stair_es.types import ImageSpec

_PRUNE_VERSIONS = (((8, 19), (9,)), ((9, 1), (10_000,)))
"""From, up to: the Elasticsearch versions whose `sparse_vector` supports `index_options.prune`. The others never prune."""
_EXCLUDES_VECTORS = (9, 2)
"""From this version on Elasticsearch leaves vectors out of `_source` by default; `explain` needs them there."""
_INGEST_FIELDS = {"uri": "keyword", "source": "keyword", "sha256": "keyword"}


def get_mappings_by_index(cluster: Cluster, name: str) -> dict[str, Any]:
    """Get the GET mapping response by index for an alias, an index or a pattern; empty if nothing matches."""
    if not name.strip(", "):  # would match all indices
        return {}
    with translate_errors(cluster.connection):
        try:
            call = partial(cluster.client.indices.get_mapping, index=name)
            response: dict[str, Any] = retry_call(call, cluster.connection, INTERACTIVE_RETRY, should_retry=is_busy_error)
        except exceptions.NotFoundError:
            return {}
    return response


def build_index_body(
    cluster_info: ClusterInfo,
    settings: DocumentSettings,
    field_types: Mapping[str, str | Mapping[str, Any]] = MappingProxyType({}),
    *,
    override: Path | None = None,
) -> dict[str, Any]:
    """Build the index body for `settings` on this cluster, with further fields by type, or return the custom body unchanged.

    Raises:
        UnsupportedTarget: If the cluster lacks a field type that `settings` require.
        ResourceError: If the custom file can't be read, or lacks a field that ingest requires.
    """
    check_field_types(cluster_info, settings)
    body = resources.load_json_resource("mappings", "image", override)
    if override:
        _check_custom_mapping(body, settings, override)
        return body
    if settings.vector == "sparse_vector":
        body = merge_bodies(
            body, build_sparse_vector_layer(resources.load_json_resource("mappings", "sparse-vector"), cluster_info.version)
        )
    if settings.impacts:
        body = merge_bodies(body, resources.load_json_resource("mappings", "impacts"))
    return merge_bodies(body, {"mappings": {"properties": build_definitions(field_types)}})


def build_definitions(field_types: Mapping[str, str | Mapping[str, Any]]) -> dict[str, Any]:
    """Build the definitions of fields that are given by type, or whole."""
    return {name: {"type": field} if isinstance(field, str) else dict(field) for name, field in field_types.items()}


def check_field_types(cluster_info: ClusterInfo, settings: DocumentSettings) -> None:
    """Raise UnsupportedTarget if the cluster lacks a field type that `settings` require."""
    if settings.vector == "sparse_vector" and not cluster_info.supports_sparse_vector:
        raise UnsupportedTarget(
            f"{cluster_info.label} has no `sparse_vector` field that stair-es can use: it requires Elasticsearch 8.15 or newer",
            "Leave --vector out: `rank_features` give the same scores on every cluster.",
            code="no-sparse-vector-field",
        )
    if settings.impacts and not cluster_info.supports_impacts:
        raise UnsupportedTarget(
            f"{cluster_info.label} can't have the field `impacts`: it requires OpenSearch 2.10 or newer (`delimited_term_freq`)",
            "Leave --impact-field out.",
            code="no-impacts-field",
        )


def build_sparse_vector_layer(layer: Mapping[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    """Build the layer for `sparse_vector`, without options that this version of Elasticsearch doesn't support. Pure."""
    tokens = dict(layer["mappings"]["properties"]["tokens"])
    if not any(first <= version < end for first, end in _PRUNE_VERSIONS):
        tokens.pop("index_options")
    body = {"mappings": {"properties": {"tokens": tokens}}}
    return {**body, "settings": layer["settings"]} if version >= _EXCLUDES_VECTORS else body


def merge_bodies(body: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `layer` over `body`, object by object. Pure."""
    return {
        **body,
        **{
            name: merge_bodies(body[name], value) if isinstance(value, dict) and isinstance(body.get(name), dict) else value
            for name, value in layer.items()
        },
    }


def _check_custom_mapping(body: Mapping[str, Any], settings: DocumentSettings, path: Path) -> None:
    required = {"tokens": settings.vector, **_INGEST_FIELDS, **({"impacts": "text"} if settings.impacts else {})}
    fields = body.get("mappings", {}).get("properties", {})
    missing = [f"{name}: {type_}" for name, type_ in required.items() if fields.get(name, {}).get("type") != type_]
    if missing:
        raise ResourceError(
            f"mapping {path} lacks fields that ingest requires: {', '.join(missing)}",
            "Start with mappings/image.json, and add to it.",
            code="mapping-lacks-fields",
        )


class IndexableCard(Protocol):
    """What an index records of a model; see `model.base.ModelCard`."""

    @property
    def name(self) -> str:
        """Name of the model, as users give it."""

    @property
    def model_id(self) -> str:
        """Name and revision."""

    @property
    def image_spec(self) -> ImageSpec:
        """Format of its images."""


class HasCard(Protocol):
    """An encoder, or a model that isn't loaded."""

    @property
    def card(self) -> IndexableCard:
        """The model card."""


def build_document_properties(names: Iterable[str]) -> dict[str, Any]:
    """Build the definitions of fields of `build_document`, with token weights as `rank_features`."""
    properties = resources.load_json_resource("mappings", "image")["mappings"]["properties"]
    return {name: properties[name] for name in names}


def build_mapping(
    model: HasCard,
    fields: Mapping[str, str | Mapping[str, Any]] = MappingProxyType({}),
    settings: DocumentSettings = DocumentSettings(thumbnail_px=0),  # noqa: B008  frozen
) -> dict[str, Any]:
    """Build the mapping of an index with documents of `build_document`: the fields of `ingest`, and the model in `_meta`.

    Searches, the page and dashboards find there all that they need. `ingest` writes only into indices that it created.

    Args:
        model: The encoder of the documents.
        fields: Further fields: name -> type such as `float`, or a whole definition.
        settings: What the documents contain besides, as in `build_document`.

    Raises:
        UsageError: If a field has the name of one of stair-es, or the settings need more than a mapping.
    """
    if settings.impacts or settings.vector != "rank_features":
        raise UsageError(
            "a mapping alone can't have impacts or a `sparse_vector`: they depend on the cluster",
            "Leave them out, or let `stair-es ingest` create the index.",
            code="mapping-needs-cluster",
        )
    check_field_names(fields)
    mapping = resources.load_json_resource("mappings", "image")["mappings"]
    added = build_definitions(fields)
    card = model.card
    spec = IndexSpec(model_name=card.name, model_id=card.model_id, fit=card.image_spec.fit, settings=asdict(settings))
    body = {"mappings": {**mapping, "properties": {**mapping["properties"], **added}}}
    built: dict[str, Any] = add_index_meta(body, build_index_meta(spec))["mappings"]
    return built
