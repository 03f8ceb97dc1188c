"""Facets: their scales, requests and responses."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.errors import QueryError
from stair_es.model.vocabularies.readable import is_piece
from stair_es.search.dsl.mapped_fields import MappedField, list_mapped_fields
from stair_es.search.dsl.pagination import build_field_order
from stair_es.web.search.facet_scales import (
    MAX_BUCKETS,
    FieldProfile,
    Scale,
    build_profile_request,
    build_scale,
    parse_profiles,
)
from stair_es.web.search.facets import (
    MAX_FACETS,
    Facet,
    build_facets_request,
    list_facet_fields,
    list_facets,
    list_orders,
    make_label,
    serialize_facets,
)
from stair_es.web.search.params import Condition

DAY_MS = 86_400_000
TYPES = {
    **dict.fromkeys(
        ("top_tokens", "colors", "folder", "format", "source", "uri", "sha256", "name", "perceptual_hash"), "keyword"
    ),
    **dict.fromkeys(("model", "policy", "brand"), "keyword"),
    **dict.fromkeys(("taken_at", "modified_at", "ingested_at"), "date"),
    **dict.fromkeys(("width", "height", "year"), "integer"),
    **{"bytes": "long", "price": "float", "sale": "boolean", "caption": "text"},
}
FIELDS = list_mapped_fields({"i": {"mappings": {"properties": {name: {"type": type_} for name, type_ in TYPES.items()}}}})
MANY = FieldProfile(sampled=100, distinct=40, minimum=0.0, maximum=100.0, low=0.0, high=100.0)


def get_scale(type_: str, low: float, high: float, minimum: float | None = None, maximum: float | None = None) -> Scale:
    [mapped] = list_mapped_fields({"i": {"mappings": {"properties": {"x": {"type": type_}}}}}).values()
    profile = FieldProfile(
        sampled=9,
        distinct=9,
        minimum=low if minimum is None else minimum,
        maximum=high if maximum is None else maximum,
        low=low,
        high=high,
    )
    scale = build_scale(mapped, profile)
    assert scale is not None
    return scale


def list_all(*conditions: Condition) -> list[Facet]:
    fields = list_facet_fields(FIELDS)
    return list_facets(fields, dict.fromkeys((mapped.name for mapped in fields), MANY), conditions)


@pytest.mark.parametrize("type_", ["integer", "float", "date"])
@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (0.0, 1.0), (3.2, 3.9), (-5.0, 5.0), (0.0, 1e9), (1.2e12, 1.7e12), (1.7e12, 1.7e12 + 5), (-6e13, 2e14)],
)
def test_scales_are_ascending_and_cover_everything(type_: str, low: float, high: float) -> None:
    scale = get_scale(type_, low, high)
    edges = scale.edges
    assert list(edges) == sorted(set(edges), key=edges.index)
    assert 2 <= len(edges) <= MAX_BUCKETS + 1
    if type_ != "date":
        numbers = [float(edge) for edge in edges]
        assert numbers == sorted(numbers)
        assert numbers[0] <= low
        assert numbers[-1] > high


def test_edges_are_round() -> None:
    assert get_scale("float", 0.5, 9.9).edges == (0, *(half / 2 for half in range(1, 21)))[1:]
    assert get_scale("integer", 1990, 2024).edges[:3] == (1990, 1992, 1994)
    assert get_scale("integer", 7, 7).edges == (7, 8)


def test_values_beyond_the_tails_widen_only_the_outer_buckets() -> None:
    scale = get_scale("float", 10, 99, minimum=-50, maximum=1e6)
    assert scale.edges == (-50, *range(15, 100, 5), 1_000_005)
    assert (scale.minimum, scale.maximum) == (-50, 1_000_000)


@pytest.mark.parametrize(
    ("low", "high", "maximum"),
    [
        (-1.7e308, 1.7e308, 1.7e308),
        (0.0, 1.0, sys.float_info.max),
        (-sys.float_info.max, sys.float_info.max, sys.float_info.max),
        (0.0, 5e-324, 5e-324),
        (2.0**60, 2.0**60 + 1024, 2.0**60 + 1024),
    ],
)
def test_extreme_numbers_have_finite_edges(low: float, high: float, maximum: float) -> None:
    for type_ in ("double", "long"):
        edges = [float(edge) for edge in get_scale(type_, low, high, maximum=maximum).edges]
        assert 2 <= len(edges) <= MAX_BUCKETS + 1
        assert all(map(math.isfinite, edges))
        assert edges == sorted(edges)


@pytest.mark.parametrize(
    ("days", "edges"),
    [
        (0.1, ("2020-01-01", "2020-01-01T01:00:00Z", "2020-01-01T02:00:00Z", "2020-01-01T03:00:00Z")),
        (2.9, ("2020-01-01", "2020-01-01T06:00:00Z", "2020-01-01T12:00:00Z")),
        (20, ("2020-01-01", "2020-01-02", "2020-01-03")),
        (100, ("2019-12-30", "2020-01-06", "2020-01-13")),
        (400, ("2020-01-01", "2020-02-01", "2020-03-01")),
        (4000, ("2020-01-01", "2021-01-01", "2022-01-01")),
        (40_000, ("2020-01-01", "2025-01-01", "2030-01-01")),
    ],
)
def test_date_edges_follow_the_calendar(days: float, edges: tuple[str, ...]) -> None:
    start = 1_577_836_800_000  # 2020-01-01
    assert get_scale("date", start, start + days * DAY_MS).edges[: len(edges)] == edges


def test_columns_have_their_facets_before_those_of_the_file() -> None:
    assert [facet.field.name for facet in list_all()] == [
        *("top_tokens", "colors", "brand", "price", "sale", "year"),
        *("folder", "format", "taken_at", "modified_at", "bytes", "width", "height", "source"),
    ]
    kinds = {facet.field.name: facet.kind for facet in list_all()}
    assert [kinds[name] for name in ("folder", "taken_at", "bytes", "price", "sale", "year")] == [
        *("terms", "date", "range", "range", "terms", "range")
    ]


def test_names_have_no_facet_and_few_integers_are_a_list() -> None:
    profiles = dict.fromkeys((mapped.name for mapped in list_facet_fields(FIELDS)), MANY)
    profiles["brand"] = FieldProfile(sampled=100, distinct=90)
    profiles["year"] = FieldProfile(sampled=100, distinct=12, minimum=1990, maximum=2024, low=1990, high=2024)
    profiles["price"] = FieldProfile(sampled=0, distinct=0)
    facets = {facet.field.name: facet for facet in list_facets(list_facet_fields(FIELDS), profiles, ())}
    assert not {"brand", "price"} & facets.keys()
    assert facets["year"].kind == "terms"
    chosen = list_facets(list_facet_fields(FIELDS), profiles, [Condition(field="brand", any=("a",))])
    assert [facet.chosen for facet in chosen if facet.field.name == "brand"] == [("a",)]


def test_orders_are_those_of_fields_whose_values_differ() -> None:
    fields = list_facet_fields(FIELDS)
    profiles = dict.fromkeys((mapped.name for mapped in fields), MANY)
    for name, value in (("taken_at", None), ("width", 640.0)):  # no image has a date, and all have the same width
        profiles[name] = FieldProfile(sampled=9, distinct=1, minimum=value, maximum=value)
    orders = [order["sort"] for order in list_orders(fields, profiles, "year")]
    assert orders[:2] == ["year:asc", "year:desc"]
    assert set(orders[2:]) == {f"{name}:{way}" for name in ("price", "modified_at", "bytes", "height") for way in ("asc", "desc")}
    assert orders.index("modified_at:desc") < orders.index("modified_at:asc")
    for order in orders:
        assert build_field_order(order, FIELDS)


def test_too_many_columns_keep_the_chosen_one() -> None:
    fields = [MappedField(name=f"c{i:02}", type="keyword", kind="keyword", path=f"c{i:02}") for i in range(60)]
    facets = list_facets(fields, dict.fromkeys((mapped.name for mapped in fields), MANY), [Condition(field="c59", any=("a",))])
    assert [facet.field.name for facet in facets] == [*(f"c{i:02}" for i in range(MAX_FACETS)), "c59"]


def test_own_conditions_don_t_narrow_a_facet() -> None:
    conditions = [Condition(field="format", any=("JPEG",)), Condition(field="width", gte=100)]
    body = build_facets_request({"match_all": {}}, None, list_all(*conditions), conditions, FIELDS)
    aggs = body["aggs"]
    jpeg, wide = {"terms": {"format": ["JPEG"]}}, {"range": {"width": {"gte": 100}}}
    assert aggs["matches"]["filter"] == {"bool": {"filter": [jpeg, wide]}}
    filters = {name: agg["filter"]["bool"]["filter"] for name, agg in aggs.items() if name.startswith("without")}
    assert filters == {"without7": [wide], "without11": [jpeg]}
    assert set(aggs["without7"]["aggs"]) == {"facet7", "chosen7"}
    assert not {"facet7", "facet11"} & aggs["matches"]["aggs"].keys()
    plain = build_facets_request({"match_all": {}}, None, list_all(), (), FIELDS)
    assert set(plain["aggs"]) == {"indices", *(f"facet{place}" for place in range(14))}
    cut = {"term": {"format": "GIF"}}
    aggs = build_facets_request({"match_all": {}}, cut, list_all(*conditions), conditions, FIELDS)["aggs"]
    filters = {name: agg["filter"]["bool"]["filter"] for name, agg in aggs.items() if "filter" in agg}
    assert filters == {"hits": [jpeg, wide], "matches": [jpeg, wide, cut], "without7": [wide, cut], "without11": [jpeg, cut]}
    with expect_error("field-not-usable", QueryError) as caught:
        build_facets_request({"match_all": {}}, None, list_all(), [Condition(field="fromat", any=("a",))], FIELDS)
    assert "'fromat'" in caught.value.message


def build_response(total: int, **aggregations: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"hits": {"total": {"value": total}}, "aggregations": aggregations}


def make_terms(**counts: int) -> dict[str, Any]:
    return {"buckets": [{"key": key, "doc_count": count} for key, count in counts.items()], "sum_other_doc_count": 0}


def test_facets_without_a_choice_are_left_out() -> None:
    formats = Facet(field=FIELDS["format"], kind="terms")
    chosen = Facet(field=FIELDS["format"], kind="terms", chosen=("GIF",), is_chosen=True)
    one, two = make_terms(JPEG=3), make_terms(JPEG=3, PNG=1)
    assert serialize_facets([formats], build_response(3, facet0=one), is_piece) == {"total": 3, "weak": 0, "facets": []}
    [found] = serialize_facets([formats], build_response(4, facet0=two), is_piece)["facets"]
    assert (found["field"], found["label"], found["kind"], found["other"]) == ("format", "Format", "terms", 0)
    assert found["buckets"] == [{"value": "JPEG", "count": 3}, {"value": "PNG", "count": 1}]
    narrowed = {"doc_count": 0, "facet0": one}
    counted = build_response(9, hits={"doc_count": 2}, matches={"doc_count": 0}, without0=narrowed)
    kept = serialize_facets([chosen], counted, is_piece)
    assert (kept["total"], kept["weak"]) == (0, 2)
    assert kept["facets"][0]["buckets"] == [{"value": "JPEG", "count": 3}, {"value": "GIF", "count": 0}]


def test_pieces_are_hidden_unless_chosen() -> None:
    counts = make_terms(**{"##a": 9, "car": 5, "##b": 4, "dog": 3})
    facet = Facet(field=FIELDS["top_tokens"], kind="terms", chosen=("##b",), is_chosen=True)
    [found] = serialize_facets([facet], build_response(9, facet0=counts), is_piece)["facets"]
    assert [bucket["value"] for bucket in found["buckets"]] == ["car", "dog", "##b"]


def test_histograms_have_the_edges_of_their_scale() -> None:
    scale = Scale(edges=(0, 10, 20), minimum=1, maximum=19.5)
    facet = Facet(field=FIELDS["price"], kind="range", scale=scale)
    body = build_facets_request({"match_all": {}}, None, [facet], (), FIELDS)
    assert body["aggs"]["facet0"] == {"range": {"field": "price", "ranges": [{"to": 10}, {"from": 10}]}}
    counted = {"buckets": [{"doc_count": 3}, {"doc_count": 4}]}
    [found] = serialize_facets([facet], build_response(7, facet0=counted), is_piece)["facets"]
    assert found["buckets"] == [{"from": 0, "to": 10, "count": 3}, {"from": 10, "to": 20, "count": 4}]
    assert (found["kind"], found["min"], found["max"]) == ("range", 1, 19.5)


def test_booleans_are_booleans() -> None:
    counted = {"buckets": [{"key": 0, "key_as_string": "false", "doc_count": 3}, {"key": 1, "doc_count": 1}]}
    facet = Facet(field=FIELDS["sale"], kind="terms", chosen=(True,), is_chosen=True)
    [found] = serialize_facets([facet], build_response(4, facet0=counted), is_piece)["facets"]
    assert found["buckets"] == [{"value": False, "count": 3}, {"value": True, "count": 1}]


def test_profiles_are_read_from_the_sample() -> None:
    fields = [FIELDS["price"], FIELDS["brand"]]
    assert set(build_profile_request(fields)["aggs"]) == {"min0", "max0", "sample"}
    sample = {
        "count0": {"value": 7},
        "distinct0": {"value": 5},
        "tails0": {"values": [{"key": 2, "value": 1.5}, {"key": 98, "value": 9.5}]},
    }
    response = build_response(9, min0={"value": -1.0}, max0={"value": 1e6}, sample=sample)
    profiles = parse_profiles(fields, response)
    assert profiles["price"] == FieldProfile(sampled=7, distinct=5, minimum=-1.0, maximum=1e6, low=1.5, high=9.5)
    assert profiles["brand"] == FieldProfile(sampled=0, distinct=0)
    empty = parse_profiles(fields, build_response(0, min0={"value": None}, max0={"value": math.inf}))["price"]
    assert (empty.minimum, empty.maximum, build_scale(FIELDS["price"], empty)) == (None, None, None)


def test_labels_are_readable() -> None:
    assert [make_label(name) for name in ("taken_at", "bytes", "folder", "photo_credit", "exif.iso", "_")] == [
        *("Taken", "Size", "Folder", "Photo credit", "Exif iso", "_")
    ]
