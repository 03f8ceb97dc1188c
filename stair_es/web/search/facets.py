"""Facets: the fields that have one, the request that counts their values, and its response. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from stair_es.cluster.documents.document import RESERVED_FIELDS
from stair_es.search.dsl.mapped_fields import MappedField, is_scalar
from stair_es.web.search.facet_scales import FieldProfile, Scale, build_scale
from stair_es.web.search.params import TOP_TOKENS_FIELD, Condition, build_condition_clauses, convert_value

FacetKind: TypeAlias = Literal["terms", "range", "date"]

MAX_FACETS = 32
MAX_FACET_VALUES = 20
_CONTENT_FACETS = (TOP_TOKENS_FIELD, "top_labels", "colors")
_FILE_FACETS = ("folder", "format", "taken_at", "modified_at", "bytes", "width", "height", "source")
"""Fields of stair-es with a facet, in the order of the page; the columns of the user are between them."""
_PHOTO_FACETS = ("place", "country", "camera", "lens", "orientation", "iso", "aperture", "exposure_s", "focal_mm")
"""Fields of `--enrich exif`, in the order of the page: the first of the columns."""
_FIXED_FACETS = (*_CONTENT_FACETS, *_FILE_FACETS)
_NO_FACETS = (RESERVED_FIELDS - set(_FIXED_FACETS)) | {"caption", "title", "text", "name", "perceptual_hash"}
_SPARE_TOKENS = 60
"""Number of tokens that may be hidden before the facet has fewer than `MAX_FACET_VALUES`."""
_MAX_CATEGORIES = 12
"""An integer with at most this number of distinct values is a list, not a histogram."""
_MAX_DISTINCT_SHARE = 0.5
"""A string column with more different values for its number of values is not a category, but a name."""
_DIRECTIONS = (
    (("asc", "low to high"), ("desc", "high to low")),
    (("desc", "newest first"), ("asc", "oldest first")),
)
"""The directions of numbers and of dates, in the order of the page."""
_LABELS = {
    TOP_TOKENS_FIELD: "Words",
    "aperture": "Aperture (f)",
    "bytes": "Size",
    "exposure_s": "Exposure (s)",
    "focal_mm": "Focal length (mm)",
    "ingested_at": "Added",
    "iso": "ISO",
    "modified_at": "Modified",
    "sha256": "SHA-256",
    "taken_at": "Taken",
    "top_labels": "Labels",
    "uri": "Address",
}


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A facet of a field."""

    field: MappedField
    kind: FacetKind
    scale: Scale | None = None
    """The buckets; None for the kind `terms`."""
    chosen: tuple[Any, ...] = ()
    """Values of the field's own conditions."""
    is_chosen: bool = False
    """Whether the field has a condition."""


def make_label(name: str) -> str:
    """Make the label of a field: `taken_by` becomes `Taken by`."""
    words = name.replace("_", " ").replace(".", " ").strip()
    return _LABELS.get(name) or (words[:1].upper() + words[1:]) or name


def list_facet_fields(fields: Mapping[str, MappedField]) -> list[MappedField]:
    """List the fields that can have a facet: image content, then the user's columns by name, then the fields of the file."""
    others = [name for name in fields if name not in _NO_FACETS and name not in (*_FIXED_FACETS, *_PHOTO_FACETS)]
    columns = [*_PHOTO_FACETS, *others]
    names = (*_CONTENT_FACETS, *columns, *_FILE_FACETS)
    return [fields[name] for name in names if name in fields and fields[name].path]


def list_facets(
    fields: Sequence[MappedField], profiles: Mapping[str, FieldProfile], conditions: Iterable[Condition]
) -> list[Facet]:
    """List the facets of an index. Columns that are names rather than categories have one only if they have a condition."""
    chosen: dict[str, list[Any]] = {}
    for condition in conditions:
        chosen.setdefault(condition.field, []).extend(condition.values)
    facets: list[Facet] = []
    for mapped in fields:
        profile, is_chosen = profiles[mapped.name], mapped.name in chosen
        if not is_chosen and (len(facets) >= MAX_FACETS or not _is_category(mapped, profile)):
            continue
        scale = None
        kind: FacetKind = "terms"
        if is_scalar(mapped) and not _is_enumeration(mapped, profile):
            kind, scale = "date" if mapped.kind == "date" else "range", build_scale(mapped, profile)
            if scale is None:
                continue
        values = tuple(dict.fromkeys(convert_value(value, mapped) for value in chosen.get(mapped.name, ())))
        facets.append(Facet(field=mapped, kind=kind, scale=scale, chosen=values, is_chosen=is_chosen))
    return facets


def list_orders(fields: Iterable[MappedField], profiles: Mapping[str, FieldProfile], price_field: str) -> list[dict[str, str]]:
    """List the orders by fields whose values differ, those by price first."""
    scalar = sorted(filter(is_scalar, fields), key=lambda mapped: mapped.name != price_field)
    return [
        {"sort": f"{mapped.name}:{direction}", "label": f"{make_label(mapped.name)}, {name}"}
        for mapped in scalar
        if profiles[mapped.name].minimum != profiles[mapped.name].maximum
        for direction, name in _DIRECTIONS[mapped.kind == "date"]
    ]


def build_facets_request(
    query: Mapping[str, Any],
    cut: Mapping[str, Any] | None,
    facets: Sequence[Facet],
    exclusive: Sequence[Condition],
    fields: Mapping[str, MappedField],
) -> dict[str, Any]:
    """Build the request for facets, which count matches.

    Args:
        query: What all hits match.
        cut: What hits match that aren't weak; None for all.
        facets: The facets.
        exclusive: Conditions that aren't in `query`, and that don't narrow the facet of their field.
        fields: The fields of the index.
    """
    aggs: dict[str, Any] = {"indices": {"terms": {"field": "_index"}}}
    cuts = [] if cut is None else [cut]
    own = {condition.field for condition in exclusive}
    shared: dict[str, Any] = {}
    for place, facet in enumerate(facets):
        if facet.field.name not in own:
            shared |= _build_aggregations(facet, place)
    if not (exclusive or cuts):
        aggs |= shared
    else:
        aggs["hits"] = {"filter": _build_filter(exclusive, fields, "", [])}
        aggs["matches"] = {"filter": _build_filter(exclusive, fields, "", cuts), "aggs": shared}
        for place, facet in enumerate(facets):
            name = facet.field.name
            if name in own:
                aggs[f"without{place}"] = {
                    "filter": _build_filter(exclusive, fields, name, cuts),
                    "aggs": _build_aggregations(facet, place),
                }
    return {"size": 0, "track_total_hits": True, "query": dict(query), "aggs": aggs}


def serialize_facets(
    facets: Sequence[Facet], response: Mapping[str, Any], is_hidden_token: Callable[[str], bool]
) -> dict[str, Any]:
    """Serialize the numbers of matches and of weak ones, and the facets that have a choice."""
    aggregations = response.get("aggregations") or {}
    matches = aggregations.get("matches")
    serialized = []
    for place, facet in enumerate(facets):
        counted = aggregations.get(f"without{place}") or matches or aggregations
        is_terms = facet.kind == "terms"
        fields = (
            _serialize_terms(facet, counted, place, is_hidden_token) if is_terms else _serialize_ranges(facet, counted, place)
        )
        different = sum(bucket["count"] > 0 for bucket in fields["buckets"]) + bool(fields.get("other"))
        if different > 1 or facet.is_chosen:
            name = facet.field.name
            serialized.append({"field": name, "label": make_label(name), "kind": facet.kind, **fields})
    total = matches["doc_count"] if matches else response["hits"]["total"]["value"]
    weak = aggregations["hits"]["doc_count"] - total if matches else 0
    return {"total": int(total), "weak": int(weak), "facets": serialized}


def parse_bucket_value(mapped: MappedField, bucket: Mapping[str, Any]) -> Any:  # noqa: ANN401  JSON
    """Return the value of a bucket in JSON; engines write booleans as numbers."""
    return bool(bucket["key"]) if mapped.kind == "boolean" else bucket["key"]


def _is_category(mapped: MappedField, profile: FieldProfile) -> bool:
    if mapped.name in _FIXED_FACETS or is_scalar(mapped):
        return True
    return profile.distinct <= max(MAX_FACET_VALUES, _MAX_DISTINCT_SHARE * profile.sampled)


def _is_enumeration(mapped: MappedField, profile: FieldProfile) -> bool:
    return mapped.kind == "integer" and mapped.name not in _FIXED_FACETS and profile.distinct <= _MAX_CATEGORIES


def _build_filter(
    exclusive: Sequence[Condition], fields: Mapping[str, MappedField], without: str, cuts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    conditions = [condition for condition in exclusive if condition.field != without]
    return {"bool": {"filter": [*build_condition_clauses(conditions, fields), *cuts]}}


def _build_aggregations(facet: Facet, place: int) -> dict[str, Any]:
    field = {"field": facet.field.path}
    if facet.scale is not None:
        edges = facet.scale.edges
        ranges: list[dict[str, Any]] = [{"from": start, "to": end} for start, end in pairwise(edges)]
        if len(ranges) > 1:  # a range without any bound is invalid
            del ranges[0]["from"], ranges[-1]["to"]
        dates = {"format": "strict_date_optional_time"} if facet.kind == "date" else {}
        return {f"facet{place}": {"date_range" if dates else "range": {**field, **dates, "ranges": ranges}}}
    spare = _SPARE_TOKENS if facet.field.name == TOP_TOKENS_FIELD else 0
    order = {"order": {"_key": "asc"}} if facet.field.kind == "integer" else {}
    aggs = {f"facet{place}": {"terms": {**field, "size": MAX_FACET_VALUES + spare, **order}}}
    chosen = [value for value in facet.chosen if isinstance(value, str)]
    if chosen:
        aggs[f"chosen{place}"] = {"terms": {**field, "include": chosen, "size": len(chosen)}}
    return aggs


def _serialize_terms(
    facet: Facet, counted: Mapping[str, Any], place: int, is_hidden_token: Callable[[str], bool]
) -> dict[str, Any]:
    terms = counted[f"facet{place}"]
    is_hidden = is_hidden_token if facet.field.name == TOP_TOKENS_FIELD else lambda _: False
    counts = {parse_bucket_value(facet.field, bucket): int(bucket["doc_count"]) for bucket in terms["buckets"]}
    shown = [value for value in counts if not is_hidden(value)][:MAX_FACET_VALUES]
    for bucket in (counted.get(f"chosen{place}") or {}).get("buckets", ()):
        counts[bucket["key"]] = int(bucket["doc_count"])
    shown += [value for value in facet.chosen if value not in shown]
    hidden = sum(count for value, count in counts.items() if value not in shown and not is_hidden(value))
    return {
        "buckets": [{"value": value, "count": counts.get(value, 0)} for value in shown],
        "other": int(terms.get("sum_other_doc_count", 0)) + hidden,
    }


def _serialize_ranges(facet: Facet, counted: Mapping[str, Any], place: int) -> dict[str, Any]:
    scale = facet.scale
    assert scale is not None
    buckets = [
        {"from": start, "to": end, "count": int(bucket["doc_count"])}
        for (start, end), bucket in zip(pairwise(scale.edges), counted[f"facet{place}"]["buckets"], strict=True)
    ]
    return {"min": scale.minimum, "max": scale.maximum, "buckets": buckets}
