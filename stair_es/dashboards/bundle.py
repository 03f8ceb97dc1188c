"""The saved objects of a dashboard: the template, fitted to an index and a product.

`template.json` is the dashboard of an index that has everything; `scripts/dashboard_template.py` builds it from an export of
OpenSearch Dashboards. Nothing in it is marked as optional, since no mark would survive the product's editors: an object is left
out if it reads an index or a field that is missing. The format is that of version 7.10, which OpenSearch Dashboards 2 and 3 and
Kibana 8 and 9 all import.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeAlias

from stair_es.dashboards.index_info import DashboardSpec, Product, list_constant_panels

SavedObject: TypeAlias = dict[str, Any]
UnfoldedObject: TypeAlias = dict[str, Any]
"""A saved object whose embedded JSON is parsed."""

MIGRATION_VERSIONS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}
"""Type -> last version that changed its format before the products forked. One product rejects newer versions; without a
version, both would migrate objects that don't need it."""
EMBEDDED_JSON = {
    "fieldAttrs",
    "fieldFormatMap",
    "fields",
    "ignoreParentSettingsJSON",
    "optionsJSON",
    "panelsJSON",
    "searchSourceJSON",
    "sourceFilters",
    "uiStateJSON",
    "visState",
}
"""Attributes that the products keep as JSON in a string."""

MAX_BARS = 50
"""Bars of a histogram: the products widen the interval beyond 100, but their filters keep the old interval."""
MAX_RANGES = 40
GRID_COLUMNS = 48

_PANEL_VERSION = "7.10.0"
_TIME_LABELS = {"taken_at": "taken", "ingested_at": "ingested"}
_COLUMN_LABELS = {
    "_id": "Picture",
    "image_id": "Picture",
    "thumbnail": "Thumbnail",
    "name": "Image",
    "uri": "URI",
    "top_tokens": "Words",
    "caption": "Caption",
    "token": "Word",
    "weight": "Weight",
    "weight_share": "Share",
    "rank": "Rank",
    "token_count": "Word count",
    "colors": "Colors",
    "source": "Source",
    "model": "Model",
}
"""Field -> column head, and name of its filters, in Kibana; OpenSearch Dashboards has none but the name of the field."""
_CONTROLS_WITHOUT_TOKEN_INDEX = {"model": {"fieldName": "format", "label": "Format"}}
"""Field -> what its control has instead, as long as no token index must have the field, too."""
_TIME_BARS = ("date_histogram", "ingested_at")
_COUNT_BARS = ("histogram", "token_count")
_WEIGHT_BARS = ("range", "weight")
"""Aggregations (type and field in the template) whose bars depend on the values of the index."""
_LINK_FIELDS = ("_id", "image_id")
"""Fields that are shown as links to the page of an image: of the index, and of its token index."""


def build_bundle(spec: DashboardSpec, product: Product) -> list[SavedObject]:
    """Build the index patterns, the panels and the dashboard; they refer to nothing else and can be imported anywhere."""
    text = files("stair_es.dashboards").joinpath("template.json").read_text(encoding="utf-8")
    for placeholder, value in list_placeholders(spec).items():
        text = text.replace(placeholder, value)
    return [fold_object(each) for each in fit_objects(json.loads(text), spec, product)]


def get_dashboard_id(spec: DashboardSpec) -> str:
    """Return the id of the dashboard."""
    return spec.build_id("dashboard")


def list_placeholders(spec: DashboardSpec) -> dict[str, str]:
    """Return the placeholders of the template and their values, as they stand in JSON."""
    values = {
        "${ID}": spec.build_id(""),
        "${TOKEN_INDEX}": spec.token_index_name,
        "${INDEX}": spec.name,
        "${TIME}": _TIME_LABELS[spec.time_field],
        "${NOTES}": "".join(f"\n\n{note}" for note in _list_notes(spec)),
    }
    return {placeholder: json.dumps(value, ensure_ascii=False)[1:-1] for placeholder, value in values.items()}


def _list_notes(spec: DashboardSpec) -> Iterator[str]:
    """Yield what the text of the dashboard says about this index, in Markdown."""
    for title, reason in list_constant_panels(spec):
        yield f"No panel *{title}*: {reason}."
    if not spec.has_token_index:
        yield (
            f"Weights are missing: run `stair-es ingest ... --index {spec.name} --token-index` to create the index "
            f"`{spec.token_index_name}`, then publish again."
        )
    else:
        yield (
            "With a word chosen, panels about weights show only this word of each image. A click on a bar of *Weight "
            "distribution* or *how many words images have* filters these panels, and empties those about images."
        )


def fit_objects(template: Sequence[UnfoldedObject], spec: DashboardSpec, product: Product) -> list[UnfoldedObject]:
    """Fit the objects of the template, in place: fill in what depends on the index, and leave out what can't have data.

    Returns index patterns, panels in reading order, and the dashboard.
    """
    [dashboard] = [each for each in template if each["type"] == "dashboard"]
    fitted = {each["id"]: each for each in template if each is not dashboard and _has_data(each, spec)}
    for each in fitted.values():
        _FITTERS[each["type"]](each, spec)
    patterns = [each for each in fitted.values() if each["type"] == "index-pattern"]
    referenced = {reference["name"]: reference["id"] for reference in dashboard["references"]}
    placed = sorted(dashboard["attributes"]["panelsJSON"], key=lambda panel: (panel["gridData"]["y"], panel["gridData"]["x"]))
    panels = [(panel, fitted[id_]) for panel in placed if (id_ := referenced[panel["panelRefName"]]) in fitted]
    controls = [control for _, each in panels for control in _get_params(each).get("controls", ())]
    if product == "kibana":  # its controls are above the panels
        panels = [(panel, each) for panel, each in panels if "controls" not in _get_params(each)]
    _fit_dashboard(dashboard, panels)
    if product == "kibana":
        _add_control_group(dashboard, controls, spec)
        _add_kibana_attributes(patterns, [each for _, each in panels])
    return [*patterns, *(each for _, each in panels), dashboard]


def _add_kibana_attributes(patterns: Iterable[UnfoldedObject], panels: Iterable[UnfoldedObject]) -> None:
    """Add what OpenSearch Dashboards has not, and refuses: labels of fields and ranges, and the height of rows."""
    for pattern in patterns:
        pattern["attributes"]["fieldAttrs"] = {field: {"customLabel": label} for field, label in _COLUMN_LABELS.items()}
    for each in panels:
        if each["type"] == "search" and "thumbnail" not in each["attributes"]["columns"]:
            each["attributes"]["rowHeight"] = 1  # the default is 3 lines
        for agg in each["attributes"].get("visState", {}).get("aggs", ()):
            if _get_bars(agg) == _WEIGHT_BARS:  # the axis has no room for `≥ 0.02 and < 0.04`
                agg["params"]["customLabel"] = "Weight, from"
                for range_ in agg["params"]["ranges"]:
                    range_["label"] = f"{range_['from']:g}"


def _has_data(each: UnfoldedObject, spec: DashboardSpec) -> bool:
    """Return whether the index has what an object reads and, as the bars of a chart, more than one value of it."""
    bars = {_get_bars(agg) for agg in each["attributes"].get("visState", {}).get("aggs", ())}
    if _TIME_BARS in bars and spec.interval is None:
        return False
    if _COUNT_BARS in bars and spec.token_counts[0] == spec.token_counts[1]:
        return False
    has_field = {"colors": spec.colors, "location": spec.locations, "top_labels": spec.labels}
    missing = [field for field, is_there in has_field.items() if not is_there]
    if any(f'"field":"{field}"' in dump_compact_json(each["attributes"]) for field in missing):
        return False
    if spec.has_token_index:
        return True
    vega_index = _get_params(each).get("spec", {}).get("data", {}).get("url", {}).get("index")
    read = {each["id"], *(reference["id"] for reference in each["references"])}
    return spec.build_id("tokens") not in read and vega_index != spec.token_index_name


def _get_bars(agg: Mapping[str, Any]) -> tuple[str, str]:
    return agg["type"], agg["params"].get("field", "")


def _get_params(each: UnfoldedObject) -> dict[str, Any]:
    params: dict[str, Any] = each["attributes"].get("visState", {}).get("params", {})
    return params


def _fit_pattern(pattern: UnfoldedObject, spec: DashboardSpec) -> None:
    """Fill in an index pattern; Kibana calls it a data view.

    It has no time field: the default range of the time picker, 15 minutes, would leave every panel empty. Without fields, the
    products ask the cluster, and OpenSearch Dashboards saves the answer.
    """
    is_of_tokens = pattern["id"] == spec.build_id("tokens")
    attributes = pattern["attributes"]
    attributes["fields"] = list(spec.token_index_fields if is_of_tokens else spec.image_fields)
    formats = {field: format_ for field, format_ in attributes["fieldFormatMap"].items() if field not in _LINK_FIELDS}
    if spec.page_url is not None:
        params = {"type": "a", "urlTemplate": f"{spec.page_url}/image/{{{{value}}}}", "labelTemplate": "open"}
        formats = {_LINK_FIELDS[is_of_tokens]: {"id": "url", "params": params}, **formats}
    attributes["fieldFormatMap"] = formats


def _fit_table(table: UnfoldedObject, spec: DashboardSpec) -> None:
    left_out = {*_LINK_FIELDS, *(() if spec.thumbnails else ("thumbnail",)), *(() if spec.captions else ("caption",))}
    columns = [_rename_field(column, spec) for column in table["attributes"]["columns"] if column not in left_out]
    columns = list(dict.fromkeys(reversed(columns)))[::-1]  # without a name, the URI is there twice: the last one stays
    if spec.page_url is not None:
        columns.append(_LINK_FIELDS[table["references"][0]["id"] == spec.build_id("tokens")])
    table["attributes"]["columns"] = columns


def _rename_field(field: str, spec: DashboardSpec) -> str:
    return spec.name_field if field == "name" else field


def _fit_visualization(visualization: UnfoldedObject, spec: DashboardSpec) -> None:
    for agg in visualization["attributes"]["visState"]["aggs"]:
        bars, params = _get_bars(agg), agg["params"]
        if bars == _TIME_BARS:
            params.update(field=spec.time_field, interval=spec.interval)
        elif bars == _COUNT_BARS:
            # The products make a filter of a bar from `parseInt(key)` to that plus `interval`: so it is a number, not `auto`.
            params["interval"] = max(1, round(choose_step(spec.token_counts[1], MAX_BARS)))
        elif bars == _WEIGHT_BARS:
            params["ranges"] = list_ranges(spec.largest_weight)
    params = _get_params(visualization)
    if "controls" in params:
        params["controls"] = controls = list(_list_controls(params["controls"], spec))
        pattern = {"type": "index-pattern", "id": spec.build_id("images")}
        visualization["references"] = [{"name": control["indexPatternRefName"], **pattern} for control in controls]


_FITTERS: dict[str, Callable[[UnfoldedObject, DashboardSpec], None]] = {
    "index-pattern": _fit_pattern,
    "search": _fit_table,
    "visualization": _fit_visualization,
}


def _list_controls(controls: Iterable[Mapping[str, Any]], spec: DashboardSpec) -> Iterator[dict[str, Any]]:
    """Yield the controls of fields that both indices have, since the products apply each filter to every panel."""
    kept = (control for control in controls if spec.colors or control["fieldName"] != "colors")
    for number, control in enumerate(kept):
        other = {} if spec.has_token_index else _CONTROLS_WITHOUT_TOKEN_INDEX.get(control["fieldName"], {})
        yield {
            **control,
            "id": f"control-{number}",
            "fieldName": _rename_field(control["fieldName"], spec),
            "indexPatternRefName": f"control_{number}_index_pattern",
            **other,
        }


def list_ranges(largest: float) -> list[dict[str, float]]:
    """List ranges of fractions from 0 to `largest`; the last one is open, for larger values that come later.

    A histogram with a decimal interval shows ranges that don't exist: the products fill gaps by adding the interval, and 0.12 +
    0.02 isn't 0.14 for them. Their filters don't know fractions either.
    """
    step = choose_step(largest, MAX_RANGES)
    edges = [float(f"{number * step:.6g}") for number in range(max(1, math.floor(largest / step + 1e-9)) + 1)]
    return [*({"from": low, "to": high} for low, high in itertools.pairwise(edges)), {"from": edges[-1]}]


def choose_step(largest: float, most: int) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that at most `most` steps reach `largest`."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest / most))
    step = next(factor for factor in (1, 2, 5, 10) if largest / (factor * power) <= most)
    return float(f"{step * power:.6g}")


def _fit_dashboard(dashboard: UnfoldedObject, panels: Sequence[tuple[Mapping[str, Any], UnfoldedObject]]) -> None:
    positions = assign_grid_positions([(panel["gridData"]["w"], panel["gridData"]["h"]) for panel, _ in panels])
    dashboard["attributes"]["panelsJSON"] = [
        {
            **panel,
            "version": _PANEL_VERSION,
            "panelIndex": f"p{number}",
            "gridData": {**position, "i": f"p{number}"},
            "panelRefName": f"panel_{number}",
        }
        for number, ((panel, _), position) in enumerate(zip(panels, positions, strict=True))
    ]
    dashboard["references"] = [
        {"name": f"panel_{number}", "type": each["type"], "id": each["id"]} for number, (_, each) in enumerate(panels)
    ]


def assign_grid_positions(sizes: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Assign panels of some columns and rows to a grid of 48 columns. The last panel of a row takes the remaining width."""
    rows: list[list[tuple[int, int]]] = [[]]
    for size in sizes:
        if rows[-1] and sum(width for width, _ in rows[-1]) + size[0] > GRID_COLUMNS:
            rows.append([])
        rows[-1].append(size)
    positions = list[dict[str, int]]()
    y = 0
    for row in rows:
        height = max((height for _, height in row), default=0)
        x = 0
        for number, (width, _) in enumerate(row, start=1):
            width = GRID_COLUMNS - x if number == len(row) else width
            positions.append({"x": x, "y": y, "w": width, "h": height})
            x += width
        y += height
    return positions


def _add_control_group(dashboard: UnfoldedObject, controls: Sequence[Mapping[str, Any]], spec: DashboardSpec) -> None:
    panels = {
        control["id"]: {
            "order": number,
            "width": "medium",
            "grow": True,
            "type": "optionsListControl",
            "explicitInput": {
                "id": control["id"],
                "fieldName": control["fieldName"],
                "title": control["label"],
                "selectedOptions": [],
                "enhancements": {},
            },
        }
        for number, control in enumerate(controls)
    }
    dashboard["attributes"]["controlGroupInput"] = {
        "controlStyle": "oneLine",
        "chainingSystem": "HIERARCHICAL",
        "ignoreParentSettingsJSON": {
            "ignoreFilters": False,
            "ignoreQuery": False,
            "ignoreTimerange": False,
            "ignoreValidations": False,
        },
        "panelsJSON": panels,
    }
    pattern = {"type": "index-pattern", "id": spec.build_id("images")}
    dashboard["references"] += [{"name": f"controlGroup_{id_}:optionsListDataView", **pattern} for id_ in panels]


def dump_compact_json(value: object) -> str:
    """Dump JSON without spaces, as the products embed it in strings."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_ndjson(objects: Iterable[SavedObject]) -> str:
    """Return the objects as NDJSON, the import format of both products."""
    return "".join(dump_compact_json(saved_object) + "\n" for saved_object in objects)


def fold_object(unfolded: Mapping[str, Any]) -> SavedObject:
    """Return an object with the JSON in strings that its attributes have in the products."""
    type_ = unfolded["type"]
    return {
        "id": unfolded["id"],
        "type": type_,
        "attributes": _fold(unfolded["attributes"]),
        "references": unfolded["references"],
        "migrationVersion": {type_: MIGRATION_VERSIONS[type_]},
    }


def _fold(value: Mapping[str, Any]) -> dict[str, Any]:
    folded = dict[str, Any]()
    for name, part in value.items():
        content = _fold(part) if isinstance(part, Mapping) else part
        if name == "spec":  # of Vega: indented, since users adapt it in the product's editor
            content = json.dumps(part, ensure_ascii=False, indent=2)
        folded[name] = dump_compact_json(content) if name in EMBEDDED_JSON else content
    return folded
