"""The saved objects, and the test checker that validates them as a product does."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.dashboards.checks import find_errors

from stair_es.dashboards.bundle import build_bundle, choose_step, get_dashboard_id, list_ranges, to_ndjson
from stair_es.dashboards.index_info import DashboardSpec, Product, build_field_list, choose_interval
from stair_es.errors import UsageError

PRODUCTS: tuple[Product, ...] = ("opensearch-dashboards", "kibana")
SPECS = [
    DashboardSpec(name="photos"),
    DashboardSpec(name="photos", has_token_index=False),
    DashboardSpec(name="photos", captions=True, thumbnails=False, time_field="taken_at", interval="y"),
    DashboardSpec(name="photos", colors=False),
    DashboardSpec(name="photos", interval=None, token_counts=(64, 64), name_field="uri", page_url="http://localhost:8000"),
]
NAMES = ["photos", "photos-tokens", "my.photos", "my-photos", "my_photos", "фото", "日本", "a" * 200, "a" * 199]
Objects = list[dict[str, Any]]

PHOTOS = DashboardSpec(name="photos")


def build(product: Product = "opensearch-dashboards", spec: DashboardSpec = PHOTOS) -> Objects:
    return build_bundle(spec, product)


def find_object(objects: Objects, kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["id"].endswith(f"-{kind}")]
    return found


def get_vis_state(each: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(each["attributes"]["visState"])
    return found


def list_control_fields(spec: DashboardSpec) -> list[str]:
    controls = get_vis_state(find_object(build(spec=spec), "controls"))["params"]["controls"]
    return [control["fieldName"] for control in controls]


def list_panels(objects: Objects) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(objects[-1]["attributes"]["panelsJSON"])
    return panels


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("spec", [*SPECS, *(DashboardSpec(name=name) for name in NAMES)])
def test_every_bundle_is_without_fault(spec: DashboardSpec, product: Product) -> None:
    assert find_errors(build_bundle(spec, product), product) == []


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_bundle_is_a_file_with_an_object_a_line(product: Product) -> None:
    objects = build(product)
    lines = to_ndjson(objects).splitlines()
    assert [json.loads(line) for line in lines] == objects
    assert to_ndjson(objects).endswith("}\n")


def test_the_same_index_has_the_same_objects_and_another_one_has_others() -> None:
    assert build() == build()
    ids = [each["id"] for name in NAMES for each in build_bundle(DashboardSpec(name=name), "kibana")]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9-]{1,80}", id_) for id_ in ids)


@pytest.mark.parametrize("name", ["", "Photos", "photos*", "a,b", "-a", "a b", "a/b", "a#b"])
def test_a_pattern_or_no_name_is_rejected(name: str) -> None:
    with pytest.raises(UsageError, match="not an index name"):
        DashboardSpec(name=name)


def test_bundles_have_only_controls_of_their_product() -> None:
    types = {
        product: {get_vis_state(each)["type"] for each in build(product) if each["type"] == "visualization"}
        for product in PRODUCTS
    }
    assert types["opensearch-dashboards"] - types["kibana"] == {"input_control_vis"}
    group = build("kibana")[-1]["attributes"]["controlGroupInput"]
    fields = [panel["explicitInput"]["fieldName"] for panel in json.loads(group["panelsJSON"]).values()]
    assert fields == list_control_fields(PHOTOS) == ["top_tokens", "colors", "name", "source", "model"]
    assert list_control_fields(replace(PHOTOS, name_field="uri")) == ["top_tokens", "colors", "uri", "source", "model"]
    # The token index lacks `format`, so as a filter it would empty its panels.
    without = replace(PHOTOS, has_token_index=False, colors=False)
    assert list_control_fields(without) == ["top_tokens", "name", "source", "format"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_dashboard_has_no_time_filter_by_default(product: Product) -> None:
    objects = build(product)
    assert all("timeFieldName" not in each["attributes"] for each in objects)
    assert objects[-1]["attributes"]["timeRestore"] is False
    assert "%timefield%" not in to_ndjson(objects)


def test_thumbnails_are_images_without_a_template() -> None:
    formats = json.loads(find_object(build(), "images")["attributes"]["fieldFormatMap"])
    assert formats["thumbnail"] == {
        "id": "url",
        "params": {"type": "img", "width": 96, "height": 96, "labelTemplate": "thumbnail"},
    }
    assert find_object(build(), "found")["attributes"]["columns"] == ["thumbnail", "name", "top_tokens", "uri"]
    objects = build(spec=replace(PHOTOS, thumbnails=False, captions=True, name_field="uri"))
    assert find_object(objects, "found")["attributes"]["columns"] == ["top_tokens", "caption", "uri"]
    assert find_object(objects, "wordless")["attributes"]["columns"] == ["uri"]


def test_without_a_token_index_charts_omit_it_with_a_hint() -> None:
    objects = build(spec=replace(PHOTOS, has_token_index=False))
    assert len(objects) < len(build())
    others = [each for each in objects if not each["id"].endswith("-about")]
    assert "photos-tokens" not in to_ndjson(others)
    assert (
        "stair-es ingest ... --index photos --token-index" in get_vis_state(find_object(objects, "about"))["params"]["markdown"]
    )


def test_colors_are_optional() -> None:
    objects = build(spec=replace(PHOTOS, colors=False))
    assert re.search("colors(?!Range)", to_ndjson(objects)) is None  # colorsRange is a setting of metrics
    assert len(build()) - len(objects) == 1
    assert get_vis_state(find_object(build(), "colors"))["aggs"][1]["params"]["field"] == "colors"


def test_panels_fill_the_rows() -> None:
    for spec in SPECS:
        for product in PRODUCTS:
            positions = [panel["gridData"] for panel in list_panels(build(product, spec))]
            for y in {position["y"] for position in positions}:
                row = [position for position in positions if position["y"] == y]
                assert sum(position["w"] for position in row) == 48
                assert len({position["h"] for position in row}) == 1


@pytest.mark.parametrize(
    ("seconds", "interval"),
    [(0, None), (80_000, None), (86_400, "d"), (10 * 86_400, "d"), (700 * 86_400, "M"), (30 * 365 * 86_400, "y")],
)
def test_number_of_time_bars_is_reasonable(seconds: float, interval: str | None) -> None:
    midnight_ms = 1_700_006_400_000
    assert choose_interval(midnight_ms, midnight_ms + 1000 * seconds) == interval


def test_two_days_are_days_even_if_they_are_minutes_apart() -> None:
    midnight_ms = 1_700_006_400_000
    assert choose_interval(midnight_ms - 60_000, midnight_ms + 60_000) == "d"


@pytest.mark.parametrize(
    ("largest", "most", "step"),
    [
        (0.77, 40, 0.02),
        (0.8, 40, 0.02),
        (0.81, 40, 0.05),
        (12.5, 40, 0.5),
        (3e-5, 40, 1e-6),
        (64, 50, 2),
        (0, 50, 1),
        (50, 50, 1),
    ],
)
def test_steps_are_round_and_few(largest: float, most: int, step: float) -> None:
    assert choose_step(largest, most) == step


@pytest.mark.parametrize("largest", [0.0, 1e-4, 0.02, 0.14, 0.771, 1.0, 2.9, 40.0])
def test_ranges_follow_each_other_without_gaps_and_the_last_one_has_no_end(largest: float) -> None:
    ranges = list_ranges(largest)
    assert [each["to"] for each in ranges[:-1]] == [each["from"] for each in ranges[1:]]
    assert ranges[0]["from"] == 0
    assert "to" not in ranges[-1]
    assert len(ranges) <= 41
    assert all(len(str(each["from"])) <= 7 for each in ranges)  # 0.14, not 0.13999999999999999
    assert largest == 0 or ranges[-1]["from"] <= largest


@pytest.mark.parametrize(("largest", "interval"), [(0, 1), (16, 1), (64, 2), (700, 20)])
def test_whole_numbers_have_whole_intervals(largest: int, interval: int) -> None:
    chart = find_object(build(spec=replace(PHOTOS, token_counts=(-1, largest))), "tokens-per-image")
    assert get_vis_state(chart)["aggs"][1]["params"]["interval"] == interval


def test_panels_with_a_single_bar_are_left_out_with_the_reason() -> None:
    spec = replace(PHOTOS, interval=None, token_counts=(64, 64))
    for product in PRODUCTS:
        objects = build(product, spec)
        kinds = {each["id"].removeprefix(PHOTOS.build_id("")).lstrip("-") for each in build(product)}
        left = {each["id"].removeprefix(PHOTOS.build_id("")).lstrip("-") for each in objects}
        assert kinds - left == {"over-time", "tokens-per-image"}
        text = get_vis_state(find_object(objects, "about"))["params"]["markdown"]
        assert "all images have the same day in ingested_at" in text
        assert "all images have 64" in text


def test_controls_have_a_row_of_their_own() -> None:
    [position] = [panel["gridData"] for panel in list_panels(build()) if panel["title"] == "Choose"]
    assert (position["x"], position["w"]) == (0, 48)


def test_words_over_time_name_their_time() -> None:
    objects = build(spec=replace(PHOTOS, time_field="taken_at", interval="y"))
    state = get_vis_state(find_object(objects, "over-time"))
    assert state["title"] == "Words over time (taken) [photos]"
    params = state["aggs"][2]["params"]
    assert (params["field"], params["interval"], params["customLabel"]) == ("taken_at", "y", "taken")
    assert "Words over time (taken)" in [panel["title"] for panel in list_panels(objects)]


def test_tables_link_to_the_page_if_there_is_one() -> None:
    objects = build(spec=replace(PHOTOS, page_url="https://photos.example.org/images"))
    link = {
        "id": "url",
        "params": {"type": "a", "urlTemplate": "https://photos.example.org/images/image/{{value}}", "labelTemplate": "open"},
    }
    tables = [each for each in objects if each["type"] == "search"]
    assert len(tables) == 5
    for table in tables:
        [pattern] = [each for each in objects if each["id"] == table["references"][0]["id"]]
        field = table["attributes"]["columns"][-1]
        assert field == ("_id" if pattern["id"].endswith("-images") else "image_id")
        assert json.loads(pattern["attributes"]["fieldFormatMap"])[field] == link
    without = [each["attributes"]["columns"] for each in build() if each["type"] == "search"]
    assert not {"_id", "image_id"} & {column for columns in without for column in columns}


def test_column_heads_are_named_where_the_product_can() -> None:
    labels = json.loads(find_object(build("kibana"), "images")["attributes"]["fieldAttrs"])
    assert labels["top_tokens"] == {"customLabel": "Words"}
    assert "fieldAttrs" not in find_object(build(), "images")["attributes"]


def test_the_text_says_what_the_panels_can_not() -> None:
    text = get_vis_state(find_object(build(), "about"))["params"]["markdown"]
    for said in ("The time picker has no effect", "pieces of words", "With a word chosen"):
        assert said in text


def test_a_vega_spec_can_be_read_and_has_no_frame() -> None:
    spec = get_vis_state(find_object(build(), "together"))["params"]["spec"]
    assert len(spec.splitlines()) > 50
    assert json.loads(spec)["config"]["view"]["stroke"] is None


def test_a_field_list_is_what_the_products_read_from_the_cluster() -> None:
    able, unable = {"searchable": True, "aggregatable": True}, {"searchable": True, "aggregatable": False}
    fields = {
        each["name"]: each
        for each in build_field_list(
            {
                "caption": {"text": unable},
                "caption.keyword": {"keyword": able},
                "policy_undo": {"object": unable},
                "tokens": {"rank_features": unable},
                "both": {"keyword": able, "text": unable},
                "mixed": {"long": able, "keyword": able},
                "_seq_no": {"long": able},
            }
        )
    }
    assert list(fields) == sorted(fields)
    assert set(fields) == {"_id", "_index", "_score", "_source", "_type", "both", "caption", "caption.keyword", "mixed", "tokens"}
    assert fields["caption.keyword"]["subType"] == {"multi": {"parent": "caption"}}
    types = {name: field["type"] for name, field in fields.items()}
    assert types["tokens"] == "unknown"
    assert (types["both"], types["mixed"]) == ("string", "conflict")
    doc_values = {name for name, field in fields.items() if field["readFromDocValues"]}
    assert doc_values == {"caption.keyword"}
    objects = build(spec=replace(PHOTOS, image_fields=(fields["caption"],)))
    assert json.loads(find_object(objects, "images")["attributes"]["fields"]) == [fields["caption"]]


# --- the checker ---

Break = Callable[[Objects], None]


def in_string(kind: str, attribute: str, change: Callable[[Any], None]) -> Break:
    def broken(objects: Objects) -> None:
        attributes = find_object(objects, kind)["attributes"]
        value = json.loads(attributes[attribute])
        change(value)
        attributes[attribute] = json.dumps(value)

    return broken


def in_spec(change: Callable[[Any], None]) -> Break:
    def broken(value: dict[str, Any]) -> None:
        spec = json.loads(value["params"]["spec"])
        change(spec)
        value["params"]["spec"] = json.dumps(spec)

    return in_string("together", "visState", broken)


def set_(kind: str, *path: str | int, to: object) -> Break:
    def broken(objects: Objects) -> None:
        value: Any = find_object(objects, kind)
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return broken


def put(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(document: object) -> None:
        value: Any = document
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return change


BROKEN: list[tuple[str, Break, str]] = [
    ("type", set_("bars", "type", to="lens"), "an unknown type"),
    ("key", set_("bars", "coreMigrationVersion", to="8.8.0"), "has the keys"),
    ("id", set_("bars", "id", to="a_bars-bars"), "id is not words"),
    ("version", set_("bars", "migrationVersion", to={"visualization": "7.11.0"}), "migrationVersion is"),
    ("title", set_("bars", "attributes", "title", to=""), "no title"),
    ("attribute", set_("dashboard", "attributes", "sections", to=[]), "refuses: sections"),
    ("json", set_("bars", "attributes", "visState", to="{"), "visState is no JSON"),
    ("json panels", set_("dashboard", "attributes", "panelsJSON", to=[]), "panelsJSON is no string"),
    ("json source", set_("found", "attributes", "kibanaSavedObjectMeta", to={}), "searchSourceJSON is no string"),
    ("twice", lambda objects: objects.append(copy.deepcopy(objects[3])), "comes 2 times"),
    ("gone", lambda objects: objects.remove(find_object(objects, "bars")), "which isn't in the file"),
    (
        (
            "unused",
            lambda objects: find_object(objects, "bars")["references"].append({"name": "a", "type": "index-pattern", "id": "b"}),
            "nothing uses",
        )
    ),
    ("unnamed", set_("bars", "references", to=[]), "no reference called"),
    ("reference", set_("bars", "references", 0, "extra", to=1), "a reference with the keys"),
    ("columns", set_("found", "attributes", "columns", to=[]), "no columns"),
    ("sort", set_("found", "attributes", "sort", to=[["uri", "up"]]), "sort is no list"),
    ("time field", set_("images", "attributes", "timeFieldName", to="ingested_at"), "has a time field"),
    (
        (
            "template",
            in_string("images", "fieldFormatMap", put("thumbnail", "params", "urlTemplate", to="{{value}}")),
            "encodes data URIs",
        )
    ),
    (
        (
            "label",
            in_string("images", "fieldFormatMap", put("thumbnail", "params", "labelTemplate", to="")),
            "without a labelTemplate",
        )
    ),
    ("chart", in_string("bars", "visState", put("type", to="radar")), "an unknown type of chart"),
    ("chart title", in_string("bars", "visState", put("title", to="other")), "another title"),
    ("same ids", in_string("bars", "visState", put("aggs", 1, "id", to="1")), "two aggregations with one id"),
    ("schema", in_string("bars", "visState", put("aggs", 1, "schema", to="bucket")), "no place called 'bucket'"),
    ("aggregation", in_string("bars", "visState", put("aggs", 1, "type", to="avg")), "is none for 'segment'"),
    ("order", in_string("bars", "visState", put("aggs", 1, "params", "orderBy", to="9")), "which is no metric"),
    ("field", in_string("bars", "visState", put("aggs", 1, "params", "field", to="")), "no field"),
    ("interval", in_string("tokens-per-image", "visState", put("aggs", 1, "params", "interval", to="auto")), "a click adds"),
    ("capabilities", in_string("images", "fields", lambda fields: fields.append({"name": "a"})), "without its capabilities"),
    ("format", in_string("images", "fields", lambda fields: fields.append({"name": "a"})), "width: a format, but no such field"),
    ("no metric", in_string("cloud", "visState", put("aggs", to=[])), "no metric"),
    ("series", in_string("bars", "visState", put("params", "seriesParams", 0, "data", "id", to="7")), "a series of '7'"),
    ("axis", in_string("bars", "visState", put("params", "seriesParams", 0, "valueAxis", to="x")), "which is no axis"),
    ("text with aggs", in_string("about", "visState", put("aggs", to=[{"id": "1"}])), "takes no aggregations"),
    ("spec", in_string("together", "visState", put("params", "spec", to="{")), "the spec is no JSON"),
    ("vega version", in_spec(put("$schema", to="https://vega.github.io/schema/vega/v5.json")), "$schema is not"),
    ("no index", in_spec(put("data", "url", to="http://x")), "asks no index"),
    ("no context", in_spec(put("data", "url", "%context%", to=False)), "don't reach it"),
    ("query", in_spec(put("data", "url", "body", "query", to={})), "together with body.query"),
    ("property", in_spec(put("data", "format", to={})), "where the rows are"),
    ("image", in_spec(put("mark", to={"type": "image"})), "image marks are blocked"),
    ("expression", in_spec(put("transform", 1, "calculate", to="datum.parent")), "uses 'parent'"),
    ("one product's function", in_spec(put("transform", 1, "calculate", to="kibanaAddFilter('a')")), "kibanaAddFilter"),
    ("no panels", set_("dashboard", "attributes", "panelsJSON", to="[]"), "nothing uses the reference"),
    ("grid", in_string("dashboard", "panelsJSON", put(3, "gridData", "w", to=60)), "doesn't fit on 48"),
    ("grid index", in_string("dashboard", "panelsJSON", put(3, "gridData", "i", to="other")), "gridData.i is"),
    ("no grid", in_string("dashboard", "panelsJSON", put(3, "gridData", to={})), "gridData has no whole"),
    ("overlap", in_string("dashboard", "panelsJSON", put(3, "gridData", "x", to=10)), "lie on each other"),
    ("same panels", in_string("dashboard", "panelsJSON", put(3, "panelIndex", to="p2")), "2 panels with the index"),
    ("panel version", in_string("dashboard", "panelsJSON", put(3, "version", to="8.0.0")), "version '8.0.0'"),
    ("empty title", in_string("dashboard", "panelsJSON", put(3, "title", to="")), "an empty title"),
    ("no config", in_string("dashboard", "panelsJSON", put(3, "embeddableConfig", to=None)), "no embeddableConfig"),
]
"""What is broken, how, and what is said."""


@pytest.mark.parametrize(("change", "message"), [pytest.param(change, message, id=name) for name, change, message in BROKEN])
def test_the_checker_finds_each_kind_of_fault(change: Break, message: str) -> None:
    objects = build()
    change(objects)
    found = find_errors(objects, "opensearch-dashboards")
    assert any(message in fault for fault in found), found


def test_checker_knows_product_differences() -> None:
    assert any("controlGroupInput" in fault for fault in find_errors(build("kibana"), "opensearch-dashboards"))
    assert any("input_control_vis" in fault for fault in find_errors(build(), "kibana"))


def test_checker_applies_import_limits() -> None:
    objects = build()
    text = find_object(objects, "about")["attributes"]
    text["description"] = "x" * (26 * 1024 * 1024)
    assert any("bytes: more than" in fault for fault in find_errors(objects, "kibana"))


def test_a_dashboard_shows_every_panel_once() -> None:
    for product in PRODUCTS:
        objects = build(product)
        panel_ids = [each["id"] for each in objects[-1]["references"] if each["name"].startswith("panel_")]
        assert objects[-1]["id"] == get_dashboard_id(PHOTOS)
        assert sorted(panel_ids) == sorted(each["id"] for each in objects if each["type"] in ("search", "visualization"))
