"""The index that a dashboard is built for, as reported by the cluster. Read-only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stair_es.cluster.client.retry import NO_RETRY
from stair_es.cluster.index.mappings import get_mappings_by_index
from stair_es.cluster.metadata.index_metadata import (
    check_index_format,
    check_not_token_index,
    get_content_type,
    get_index_meta,
    get_token_index_meta,
    has_thumbnails,
)
from stair_es.cluster.metadata.names import check_alias_name
from stair_es.cluster.token_index.index import make_token_alias
from stair_es.errors import IndexMismatch, QueryError

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster

Product = Literal["opensearch-dashboards", "kibana"]
TimeField = Literal["taken_at", "ingested_at"]
Interval = Literal["d", "M", "y"]
PatternField: TypeAlias = dict[str, Any]

PRODUCT_LABELS: dict[Product, str] = {"opensearch-dashboards": "OpenSearch Dashboards", "kibana": "Kibana"}

_MAX_SLUG_LENGTH = 40
_DAY_MS = 24 * 3600 * 1000
_INTERVALS: tuple[tuple[float, Interval], ...] = ((120 * _DAY_MS, "d"), (5 * 365 * _DAY_MS, "M"))
"""Longest span between the first and the last image, and the bar width for it; years beyond. Never less than a day: the products
don't widen the bars, and an index that grows for years would have too many."""
_NUMBERS = ("long", "integer", "short", "byte", "double", "float", "half_float", "scaled_float", "unsigned_long")
_PRODUCT_TYPES = {
    **dict.fromkeys(("keyword", "text", "constant_keyword", "wildcard", "match_only_text"), "string"),
    **dict.fromkeys(_NUMBERS, "number"),
    **dict.fromkeys(("date", "date_nanos"), "date"),
    **{type_: type_ for type_ in ("boolean", "ip", "geo_point", "geo_shape")},
}
"""Type in the mapping -> type in the products; all others are `unknown` there."""
_CONTAINERS = {"object", "nested"}
_META_FIELDS = {"_id": "string", "_index": "string", "_score": "number", "_source": "_source", "_type": "string"}
"""The default of `metaFields`."""


@dataclass(frozen=True, kw_only=True)
class DashboardSpec:
    """An index of images, with what its dashboard depends on.

    Raises:
        UsageError: If the name is not a valid index name, on construction.
    """

    name: str
    """Alias of the index."""
    has_token_index: bool = True
    """Whether there is a token index `<name>-tokens`, with one document per image and token."""
    time_field: TimeField = "ingested_at"
    """Field for `Words over time`."""
    interval: Interval | None = "M"
    """Width of the bars of `Words over time`; None if all images are of one day: then there is no such panel."""
    name_field: Literal["name", "uri"] = "name"
    """Field by which users know an image; in both indices, if there are two."""
    largest_weight: float = 1.0
    """Largest weight in the token index: the end of `Weight distribution`, whose last bar is open."""
    token_counts: tuple[int, int] = (0, 100)
    """Smallest and largest number of tokens of an image. If they are equal, there is no panel about them."""
    image_fields: tuple[PatternField, ...] = ()
    """Fields of the index for its index pattern; without them, the product requests them."""
    token_index_fields: tuple[PatternField, ...] = ()
    """Fields of the token index for its index pattern."""
    page_url: str | None = None
    """URL of `stair-es serve`, for links from tables to images."""
    captions: bool = False
    thumbnails: bool = True
    colors: bool = True
    """Whether documents have `colors`, also in the token index."""
    locations: bool = True
    """Whether documents say where images were taken."""
    labels: bool = True
    """Whether documents have labels besides the tokens."""

    def __post_init__(self) -> None:
        check_alias_name(self.name)  # patterns are rejected, too: the token index and the ids of the objects derive from the name

    @property
    def token_index_name(self) -> str:
        """Alias of the token index."""
        return make_token_alias(self.name)

    def build_id(self, kind: str) -> str:
        """Return the id of a saved object: stable, and different for every index."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name)[:_MAX_SLUG_LENGTH].strip("-")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]  # two names can have the same slug
        return "-".join(part for part in ("stair", slug, digest, kind) if part)


@dataclass(frozen=True, kw_only=True)
class DashboardIndexInfo:
    """Information read from the cluster."""

    spec: DashboardSpec
    images: int
    remarks: tuple[str, ...] = ()
    """Missing parts of the dashboard, and how to add them."""


def inspect_index(cluster: Cluster, name: str, time_field: TimeField | None = None) -> DashboardIndexInfo:
    """Read what a dashboard needs to know of an index.

    Without `time_field`, it is `taken_at` if most images have it, otherwise `ingested_at`.

    Raises:
        UsageError: If the name is not a valid index name.
        QueryError: If there is no such index.
        IndexMismatch: If stair-es didn't write the index, or wrote it in another format.
    """
    spec = DashboardSpec(name=name)  # rejects patterns
    mappings = get_mappings_by_index(cluster, name)
    for index, body in mappings.items():
        check_not_token_index(index, body)
        check_index_format(index, body)
    if foreign := [index for index, body in mappings.items() if not get_index_meta(body)]:
        raise IndexMismatch(
            f"index {foreign[0]!r} was not written by stair-es: no `_meta.stair_es`",
            "Choose another one with --index / STAIR_ES_INDEX.",
            code="foreign-index",
        )
    if not mappings:
        raise QueryError(
            f"there is no index or alias {name!r} at {cluster.connection.safe_url}",
            f"Write one with: stair-es ingest FOLDER --index {name} --token-index",
            code="index-not-found",
        )
    token_mappings = get_mappings_by_index(cluster, spec.token_index_name)
    token_fields = {
        field
        for body in token_mappings.values()
        if get_token_index_meta(body)
        for field in body["mappings"].get("properties", {})
    }
    spec, images = _describe_images(cluster, _describe_token_index(cluster, spec, token_fields), time_field)
    spec = replace(
        spec,
        name_field="name" if _has_image_field("name", mappings, token_fields) else "uri",
        thumbnails=any(map(has_thumbnails, mappings.values())),
        colors=_has_image_field("colors", mappings, token_fields),
    )
    return DashboardIndexInfo(spec=spec, images=images, remarks=tuple(_list_remarks(spec, images)))


def _has_image_field(field: str, mappings: Mapping[str, Mapping[str, Any]], token_fields: set[str]) -> bool:
    """Return whether images have a field that can be aggregated, also in the token index if there is one."""
    return (not token_fields or field in token_fields) and all(
        body["mappings"].get("properties", {}).get(field, {}).get("type") == "keyword"
        and get_content_type(get_index_meta(body)) == "images"
        for body in mappings.values()
    )


def _describe_token_index(cluster: Cluster, spec: DashboardSpec, token_fields: set[str]) -> DashboardSpec:
    """Return `spec` with the values of the token index; unread values don't change."""
    if "top_tokens" not in token_fields:
        return replace(spec, has_token_index=False)
    aggs = {"weights": {"max": {"field": "weight"}}, "counts": {"stats": {"field": "token_count"}}}
    response = cluster.search(spec.token_index_name, {"size": 0, "aggs": aggs}, retry=NO_RETRY)["aggregations"]
    weight, counts = response["weights"]["value"], response["counts"]
    return replace(
        spec,
        largest_weight=spec.largest_weight if weight is None else weight,
        token_counts=spec.token_counts if not counts["count"] else (int(counts["min"]), int(counts["max"])),
        token_index_fields=_read_fields(cluster, spec.token_index_name),
    )


def _read_fields(cluster: Cluster, name: str) -> tuple[PatternField, ...]:
    return build_field_list(cluster.call(cluster.client.field_caps, index=name, fields="*", retry=NO_RETRY)["fields"])


def _describe_images(cluster: Cluster, spec: DashboardSpec, time_field: TimeField | None) -> tuple[DashboardSpec, int]:
    """Return `spec` with the values of the index, and the number of images."""
    aggs: dict[str, Any] = {field: {"stats": {"field": field}} for field in ("taken_at", "ingested_at")}
    optional_fields = {"captions": "caption", "locations": "location", "labels": "top_labels"}
    aggs |= {name: {"filter": {"exists": {"field": field}}} for name, field in optional_fields.items()}
    response = cluster.search(spec.name, {"size": 0, "track_total_hits": True, "aggs": aggs}, retry=NO_RETRY)
    images, aggregations = int(response["hits"]["total"]["value"]), response["aggregations"]
    time_field = time_field or ("taken_at" if aggregations["taken_at"]["count"] * 2 > images else "ingested_at")
    first, last = aggregations[time_field]["min"], aggregations[time_field]["max"]
    described = replace(
        spec,
        time_field=time_field,
        interval="M" if first is None else choose_interval(first, last),
        captions=aggregations["captions"]["doc_count"] > 0,
        locations=aggregations["locations"]["doc_count"] > 0,
        labels=aggregations["labels"]["doc_count"] > 0,
        image_fields=_read_fields(cluster, spec.name),
    )
    return described, images


def choose_interval(first_ms: float, last_ms: float) -> Interval | None:
    """Return the bar width for images between two times in milliseconds since 1970; None if they are of one day (UTC)."""
    if first_ms // _DAY_MS == last_ms // _DAY_MS:
        return None
    return next((interval for longest, interval in _INTERVALS if last_ms - first_ms <= longest), "y")


def list_constant_panels(spec: DashboardSpec) -> list[tuple[str, str]]:
    """Return title and reason of the panels that are left out, because they would show a single bar."""
    left_out = list[tuple[str, str]]()
    if spec.interval is None:
        left_out.append(("Words over time", f"all images have the same day in {spec.time_field}"))
    if spec.has_token_index and spec.token_counts[0] == spec.token_counts[1]:
        left_out.append(("Quality: how many words images have", f"all images have {spec.token_counts[0]}"))
    return left_out


def _list_remarks(spec: DashboardSpec, images: int) -> list[str]:
    remarks = list[str]()
    if images == 0:
        remarks.append(f"{spec.name} is empty, so the panels will be empty")
    remarks += (f"no panel {title!r}: {reason}" for title, reason in list_constant_panels(spec))
    if not spec.has_token_index:
        remarks.append(
            f"no panels about weights: there is no {spec.token_index_name} "
            f"(stair-es ingest ... --index {spec.name} --token-index creates it)"
        )
    return remarks


def build_field_list(capabilities: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[PatternField, ...]:
    """Build the fields of an index pattern by name, as the products read them from `GET /INDEX/_field_caps?fields=*`.

    OpenSearch Dashboards asks the cluster for a list that is missing and then saves it: dozens of times at once for a user who
    may write, and in vain in every view for a user who may not. So the list is part of the file. Kibana always asks the cluster.
    """
    fields = [
        _build_field(name, types, _find_parent(name, capabilities))
        for name, types in capabilities.items()
        if not name.startswith("_") and not _CONTAINERS & types.keys()
    ]
    for name, type_ in _META_FIELDS.items():
        is_id = name in ("_id", "_index")
        fields.append(_describe_field(name, type_, [name] if is_id or name == "_source" else [], is_id, is_id, False))
    return tuple(sorted(fields, key=lambda field: field["name"]))


def _build_field(name: str, types: Mapping[str, Mapping[str, Any]], parent: str | None) -> PatternField:
    product_types = {_PRODUCT_TYPES.get(type_, "unknown") for type_ in types}
    is_searchable = any(type_["searchable"] for type_ in types.values())
    is_aggregatable = any(type_["aggregatable"] for type_ in types.values())
    type_ = product_types.pop() if len(product_types) == 1 else "conflict"
    has_doc_values = is_aggregatable and type_ != "conflict" and not {"text", "geo_shape"} & types.keys()
    field = _describe_field(name, type_, list(types), is_searchable, is_aggregatable, has_doc_values)
    return {**field, "subType": {"multi": {"parent": parent}}} if parent else field


def _find_parent(name: str, capabilities: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the field that `name` is another indexing of, like `caption` for `caption.keyword`."""
    parent = name.rpartition(".")[0]
    return parent if parent in capabilities and not _CONTAINERS & capabilities[parent].keys() else None


def _describe_field(
    name: str, type_: str, types: list[str], is_searchable: bool, is_aggregatable: bool, has_doc_values: bool
) -> PatternField:
    return {
        "name": name,
        "type": type_,
        "esTypes": types,
        "count": 0,
        "scripted": False,
        "searchable": is_searchable,
        "aggregatable": is_aggregatable,
        "readFromDocValues": has_doc_values,
    }
