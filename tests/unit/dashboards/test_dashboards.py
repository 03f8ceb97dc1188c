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
from support.errors import expect_error

from stair_es.dashboards.bundle import build_bundle, choose_step, get_dashboard_id, list_ranges, to_ndjson
from stair_es.dashboards.index_info import DashboardSpec, Product, build_field_list, choose_interval

PRODUCTS: tuple[Product, ...] = ("opensearch-dashboards", "kibana")
SPECS = [
    DashboardSpec(name="photos"),
    DashboardSpec(name="photos", has_token_index=False),
    DashboardSpec(name="photos", captions=True, thumbnails=False, time_field="taken_at", interval="y"),
    DashboardSpec(name="photos", colors=False),
    DashboardSpec(name="photos", locations=False),
    DashboardSpec(name="photos", interval=None, token_counts=(64, 64), name_field="uri", page_url="http://localhost:8000"),
]
NAMES = ["photos", "photos-tokens", "my.photos", "my-photos", "my_photos", "фото", "日本", "a" * 200, "a" * 199]
Objects = list[dict[str, Any]]

PHOTOS = DashboardSpec(name="photos")


def build_objects(product: Product = "opensearch-dashboards", spec: DashboardSpec = PHOTOS) -> Objects:
    return build_bundle(spec, product)


def find_object(objects: Objects, kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["id"].endswith(f"-{kind}")]
    return found


def get_vis_state(each: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(each["attributes"]["visState"])
    return found


def get_markdown(objects: Objects) -> str:
    """Return the text on the dashboard."""
    text: str = get_vis_state(find_object(objects, "about"))["params"]["markdown"]
    return text


def list_control_fields(spec: DashboardSpec) -> list[str]:
    controls = get_vis_state(find_object(build_objects(spec=spec), "controls"))["params"]["controls"]
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
    objects = build_objects(product)
    lines = to_ndjson(objects).splitlines()
    assert [json.loads(line) for line in lines] == objects
    assert to_ndjson(objects).endswith("}\n")


def test_an_index_has_objects_of_its_own() -> None:
    assert build_objects() == build_objects()
    ids = [each["id"] for name in NAMES for each in build_bundle(DashboardSpec(name=name), "kibana")]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9-]{1,80}", id_) for id_ in ids)


@pytest.mark.parametrize("name", ["", "Photos", "photos*", "a,b", "-a", "a b", "a/b", "a#b"])
def test_a_pattern_or_no_name_is_rejected(name: str) -> None:
    with expect_error("invalid-index-name"):
        DashboardSpec(name=name)


def test_bundles_have_only_controls_of_their_product() -> None:
    types = {
        product: {get_vis_state(each)["type"] for each in build_objects(product) if each["type"] == "visualization"}
        for product in PRODUCTS
    }
    assert types["opensearch-dashboards"] - types["kibana"] == {"input_control_vis"}
    group = build_objects("kibana")[-1]["attributes"]["controlGroupInput"]
    fields = [panel["explicitInput"]["fieldName"] for panel in json.loads(group["panelsJSON"]).values()]
    assert fields == list_control_fields(PHOTOS) == ["top_tokens", "colors", "name", "source", "model"]
    assert list_control_fields(replace(PHOTOS, name_field="uri")) == ["top_tokens", "colors", "uri", "source", "model"]
    # The token index lacks `format`, so as a filter it would empty its panels.
    without = replace(PHOTOS, has_token_index=False, colors=False)
    assert list_control_fields(without) == ["top_tokens", "name", "source", "format"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_dashboard_has_no_time_filter_by_default(product: Product) -> None:
    objects = build_objects(product)
    assert all("timeFieldName" not in each["attributes"] for each in objects)
    assert objects[-1]["attributes"]["timeRestore"] is False
    assert "%timefield%" not in to_ndjson(objects)


def test_thumbnails_are_images_without_a_template() -> None:
    formats = json.loads(find_object(build_objects(), "images")["attributes"]["fieldFormatMap"])
    assert formats["thumbnail"] == {
        "id": "url",
        "params": {"type": "img", "width": 96, "height": 96, "labelTemplate": "thumbnail"},
    }
    assert find_object(build_objects(), "found")["attributes"]["columns"] == ["thumbnail", "name", "top_tokens", "uri"]
    objects = build_objects(spec=replace(PHOTOS, thumbnails=False, captions=True, name_field="uri"))
    assert find_object(objects, "found")["attributes"]["columns"] == ["top_tokens", "caption", "uri"]
    assert find_object(objects, "wordless")["attributes"]["columns"] == ["uri"]


def test_without_a_token_index_charts_omit_it_with_a_hint() -> None:
    objects = build_objects(spec=replace(PHOTOS, has_token_index=False))
    assert len(objects) < len(build_objects())
    others = [each for each in objects if not each["id"].endswith("-about")]
    assert "photos-tokens" not in to_ndjson(others)
    assert "--index photos --token-index" in get_markdown(objects)


@pytest.mark.parametrize(("part", "field"), [("locations", "location"), ("labels", "top_labels")])
def test_a_panel_of_a_missing_field_is_left_out(part: str, field: str) -> None:
    assert field in to_ndjson(build_objects())
    assert field not in to_ndjson(build_objects(spec=replace(PHOTOS, **{part: False})))  # type: ignore[arg-type]


def test_colors_are_optional() -> None:
    objects = build_objects(spec=replace(PHOTOS, colors=False))
    assert re.search("colors(?!Range)", to_ndjson(objects)) is None  # colorsRange is a setting of metrics
    assert len(build_objects()) - len(objects) == 1
    assert get_vis_state(find_object(build_objects(), "colors"))["aggs"][1]["params"]["field"] == "colors"


def test_panels_fill_the_rows() -> None:
    for spec in SPECS:
        for product in PRODUCTS:
            positions = [panel["gridData"] for panel in list_panels(build_objects(product, spec))]
            for y in {position["y"] for position in positions}:
                row = [position for position in positions if position["y"] == y]
                assert sum(position["w"] for position in row) == 48
                assert len({position["h"] for position in row}) == 1


@pytest.mark.parametrize(
    ("first_s", "last_s", "interval"),
    [
        (0, 0, None),
        (0, 80_000, None),
        (-60, 60, "d"),  # two days, minutes apart
        (0, 86_400, "d"),
        (0, 10 * 86_400, "d"),
        (0, 700 * 86_400, "M"),
        (0, 30 * 365 * 86_400, "y"),
    ],
)
def test_number_of_time_bars_is_reasonable(first_s: float, last_s: float, interval: str | None) -> None:
    midnight_ms = 1_700_006_400_000
    assert choose_interval(midnight_ms + 1000 * first_s, midnight_ms + 1000 * last_s) == interval


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
def test_ranges_have_no_gap_and_no_end(largest: float) -> None:
    ranges = list_ranges(largest)
    assert [each["to"] for each in ranges[:-1]] == [each["from"] for each in ranges[1:]]
    assert ranges[0]["from"] == 0
    assert "to" not in ranges[-1]
    assert len(ranges) <= 41
    assert all(len(str(each["from"])) <= 7 for each in ranges)  # 0.14, not 0.13999999999999999
    assert largest == 0 or ranges[-1]["from"] <= largest


@pytest.mark.parametrize(("largest", "interval"), [(0, 1), (16, 1), (64, 2), (700, 20)])
def test_whole_numbers_have_whole_intervals(largest: int, interval: int) -> None:
    chart = find_object(build_objects(spec=replace(PHOTOS, token_counts=(-1, largest))), "tokens-per-image")
    assert get_vis_state(chart)["aggs"][1]["params"]["interval"] == interval


def test_panels_with_a_single_bar_are_left_out_with_the_reason() -> None:
    spec = replace(PHOTOS, interval=None, token_counts=(64, 64))
    for product in PRODUCTS:
        objects = build_objects(product, spec)
        kinds = {each["id"].removeprefix(PHOTOS.build_id("")).lstrip("-") for each in build_objects(product)}
        left = {each["id"].removeprefix(PHOTOS.build_id("")).lstrip("-") for each in objects}
        assert kinds - left == {"over-time", "tokens-per-image"}
        markdown = get_markdown(objects)
        assert ("ingested_at" in markdown, " 64" in markdown) == (True, True)


def test_controls_have_a_row_of_their_own() -> None:
    [position] = [panel["gridData"] for panel in list_panels(build_objects()) if panel["title"] == "Choose"]
    assert (position["x"], position["w"]) == (0, 48)


def test_words_over_time_name_their_time() -> None:
    objects = build_objects(spec=replace(PHOTOS, time_field="taken_at", interval="y"))
    state = get_vis_state(find_object(objects, "over-time"))
    [panel] = [panel for panel in list_panels(objects) if "(taken)" in panel["title"]]
    assert state["title"].endswith("(taken) [photos]")
    params = state["aggs"][2]["params"]
    assert (params["field"], params["interval"], params["customLabel"]) == ("taken_at", "y", "taken")
    assert f"{panel['title']} [photos]" == state["title"]


def test_tables_link_to_the_page_if_there_is_one() -> None:
    objects = build_objects(spec=replace(PHOTOS, page_url="https://photos.example.org/images"))
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
    without = [each["attributes"]["columns"] for each in build_objects() if each["type"] == "search"]
    assert not {"_id", "image_id"} & {column for columns in without for column in columns}


def test_column_heads_are_named_where_the_product_can() -> None:
    labels = json.loads(find_object(build_objects("kibana"), "images")["attributes"]["fieldAttrs"])
    assert labels["top_tokens"] == {"customLabel": "Words"}
    assert "fieldAttrs" not in find_object(build_objects(), "images")["attributes"]


def test_a_vega_spec_can_be_read_and_has_no_frame() -> None:
    spec = get_vis_state(find_object(build_objects(), "together"))["params"]["spec"]
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
    objects = build_objects(spec=replace(PHOTOS, image_fields=(fields["caption"],)))
    assert json.loads(find_object(objects, "images")["attributes"]["fields"]) == [fields["caption"]]


# --- the checker ---

Break = Callable[[Objects], None]


def patch_json(kind: str, attribute: str, change: Callable[[Any], None]) -> Break:
    """Change the JSON in an attribute of an object."""

    def change_json(objects: Objects) -> None:
        attributes = find_object(objects, kind)["attributes"]
        value = json.loads(attributes[attribute])
        change(value)
        attributes[attribute] = json.dumps(value)

    return change_json


def patch_spec(change: Callable[[Any], None]) -> Break:
    """Change the Vega spec of a chart."""

    def change_spec(value: dict[str, Any]) -> None:
        spec = json.loads(value["params"]["spec"])
        change(spec)
        value["params"]["spec"] = json.dumps(spec)

    return patch_json("together", "visState", change_spec)


def set_field(kind: str, *path: str | int, to: object) -> Break:
    """Set a value of an object."""
    return lambda objects: set_path(*path, to=to)(find_object(objects, kind))


def set_path(*path: str | int, to: object) -> Callable[[Any], None]:
    """Set a value of a document."""

    def set_value(document: object) -> None:
        value: Any = document
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return set_value


BROKEN: list[tuple[str, Break, str]] = [
    ("type", set_field("bars", "type", to="lens"), "an unknown type"),
    ("key", set_field("bars", "coreMigrationVersion", to="8.8.0"), "has the keys"),
    ("id", set_field("bars", "id", to="a_bars-bars"), "id is not words"),
    ("version", set_field("bars", "migrationVersion", to={"visualization": "7.11.0"}), "migrationVersion is"),
    ("title", set_field("bars", "attributes", "title", to=""), "no title"),
    ("attribute", set_field("dashboard", "attributes", "sections", to=[]), "refuses: sections"),
    ("json", set_field("bars", "attributes", "visState", to="{"), "visState is no JSON"),
    ("json panels", set_field("dashboard", "attributes", "panelsJSON", to=[]), "panelsJSON is no string"),
    ("json source", set_field("found", "attributes", "kibanaSavedObjectMeta", to={}), "searchSourceJSON is no string"),
    ("twice", lambda objects: objects.append(copy.deepcopy(objects[3])), "comes 2 times"),
    ("gone", lambda objects: objects.remove(find_object(objects, "bars")), "which isn't in the file"),
    (
        "unused",
        lambda objects: find_object(objects, "bars")["references"].append({"name": "a", "type": "index-pattern", "id": "b"}),
        "nothing uses",
    ),
    ("unnamed", set_field("bars", "references", to=[]), "no reference called"),
    ("reference", set_field("bars", "references", 0, "extra", to=1), "a reference with the keys"),
    ("columns", set_field("found", "attributes", "columns", to=[]), "no columns"),
    ("sort", set_field("found", "attributes", "sort", to=[["uri", "up"]]), "sort is no list"),
    ("time field", set_field("images", "attributes", "timeFieldName", to="ingested_at"), "has a time field"),
    (
        "template",
        patch_json("images", "fieldFormatMap", set_path("thumbnail", "params", "urlTemplate", to="{{value}}")),
        "encodes data URIs",
    ),
    (
        "label",
        patch_json("images", "fieldFormatMap", set_path("thumbnail", "params", "labelTemplate", to="")),
        "without a labelTemplate",
    ),
    ("chart", patch_json("bars", "visState", set_path("type", to="radar")), "an unknown type of chart"),
    ("chart title", patch_json("bars", "visState", set_path("title", to="other")), "another title"),
    ("same ids", patch_json("bars", "visState", set_path("aggs", 1, "id", to="1")), "two aggregations with one id"),
    ("schema", patch_json("bars", "visState", set_path("aggs", 1, "schema", to="bucket")), "no place called 'bucket'"),
    ("aggregation", patch_json("bars", "visState", set_path("aggs", 1, "type", to="avg")), "is none for 'segment'"),
    ("order", patch_json("bars", "visState", set_path("aggs", 1, "params", "orderBy", to="9")), "which is no metric"),
    ("field", patch_json("bars", "visState", set_path("aggs", 1, "params", "field", to="")), "no field"),
    (
        "interval",
        patch_json("tokens-per-image", "visState", set_path("aggs", 1, "params", "interval", to="auto")),
        "a click adds",
    ),
    ("capabilities", patch_json("images", "fields", lambda fields: fields.append({"name": "a"})), "without its capabilities"),
    ("format", patch_json("images", "fields", lambda fields: fields.append({"name": "a"})), "width: a format, but no such field"),
    ("no metric", patch_json("cloud", "visState", set_path("aggs", to=[])), "no metric"),
    ("series", patch_json("bars", "visState", set_path("params", "seriesParams", 0, "data", "id", to="7")), "a series of '7'"),
    ("axis", patch_json("bars", "visState", set_path("params", "seriesParams", 0, "valueAxis", to="x")), "which is no axis"),
    ("text with aggs", patch_json("about", "visState", set_path("aggs", to=[{"id": "1"}])), "takes no aggregations"),
    ("spec", patch_json("together", "visState", set_path("params", "spec", to="{")), "the spec is no JSON"),
    ("vega version", patch_spec(set_path("$schema", to="https://vega.github.io/schema/vega/v5.json")), "$schema is not"),
    ("no index", patch_spec(set_path("data", "url", to="http://x")), "asks no index"),
    ("no context", patch_spec(set_path("data", "url", "%context%", to=False)), "don't reach it"),
    ("query", patch_spec(set_path("data", "url", "body", "query", to={})), "together with body.query"),
    ("property", patch_spec(set_path("data", "format", to={})), "where the rows are"),
    ("image", patch_spec(set_path("mark", to={"type": "image"})), "image marks are blocked"),
    ("expression", patch_spec(set_path("transform", 1, "calculate", to="datum.parent")), "uses 'parent'"),
    ("one product's function", patch_spec(set_path("transform", 1, "calculate", to="kibanaAddFilter('a')")), "kibanaAddFilter"),
    ("no panels", set_field("dashboard", "attributes", "panelsJSON", to="[]"), "nothing uses the reference"),
    ("grid", patch_json("dashboard", "panelsJSON", set_path(3, "gridData", "w", to=60)), "doesn't fit on 48"),
    ("grid index", patch_json("dashboard", "panelsJSON", set_path(3, "gridData", "i", to="other")), "gridData.i is"),
    ("no grid", patch_json("dashboard", "panelsJSON", set_path(3, "gridData", to={})), "gridData has no whole"),
    ("overlap", patch_json("dashboard", "panelsJSON", set_path(3, "gridData", "x", to=10)), "lie on each other"),
    ("same panels", patch_json("dashboard", "panelsJSON", set_path(3, "panelIndex", to="p2")), "2 panels with the index"),
    ("panel version", patch_json("dashboard", "panelsJSON", set_path(3, "version", to="8.0.0")), "version '8.0.0'"),
    ("empty title", patch_json("dashboard", "panelsJSON", set_path(3, "title", to="")), "an empty title"),
    ("no config", patch_json("dashboard", "panelsJSON", set_path(3, "embeddableConfig", to=None)), "no embeddableConfig"),
]
"""What is broken, how, and what is said."""


@pytest.mark.parametrize(("change", "message"), [pytest.param(change, message, id=name) for name, change, message in BROKEN])
def test_the_checker_finds_each_kind_of_fault(change: Break, message: str) -> None:
    objects = build_objects()
    change(objects)
    errors = find_errors(objects, "opensearch-dashboards")
    assert any(message in error for error in errors), errors


def test_checker_knows_product_differences() -> None:
    assert any("controlGroupInput" in fault for fault in find_errors(build_objects("kibana"), "opensearch-dashboards"))
    assert any("input_control_vis" in fault for fault in find_errors(build_objects(), "kibana"))


def test_checker_applies_import_limits() -> None:
    objects = build_objects()
    text = find_object(objects, "about")["attributes"]
    text["description"] = "x" * (26 * 1024 * 1024)
    assert any("bytes: more than" in fault for fault in find_errors(objects, "kibana"))


def test_a_dashboard_shows_every_panel_once() -> None:
    for product in PRODUCTS:
        objects = build_objects(product)
        panel_ids = [each["id"] for each in objects[-1]["references"] if each["name"].startswith("panel_")]
        assert objects[-1]["id"] == get_dashboard_id(PHOTOS)
        assert sorted(panel_ids) == sorted(each["id"] for each in objects if each["type"] in ("search", "visualization"))
