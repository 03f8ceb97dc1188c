"""All saved objects of a dashboard, dependencies first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stair_es.dashboards.controls import build_control_group, list_controls
from stair_es.dashboards.index_info import DashboardSpec, Product
from stair_es.dashboards.panels import GRID_COLUMNS, Panel, build_panels
from stair_es.dashboards.saved_objects import (
    SavedObject,
    build_dashboard_object,
    build_index_pattern,
    build_reference,
    dump_compact_json,
)

_PANEL_VERSION = "7.10.0"
_THUMBNAIL_FORMAT = {
    "id": "url",
    # No URL template: it would encode the data URI. The label is the alternative text; the default is the whole URI.
    "params": {"type": "img", "width": 96, "height": 96, "labelTemplate": "thumbnail"},
}
_WEIGHT_FORMAT = {"id": "number", "params": {"pattern": "0.000"}}
_SHARE_FORMAT = {"id": "percent", "params": {"pattern": "0.0%"}}
_WHOLE_NUMBER_FORMAT = {"id": "number", "params": {"pattern": "0,0"}}
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
    "weight_share": "Share of the image",
    "rank": "Rank",
    "token_count": "Words of the image",
}
"""Field -> column head in Kibana; OpenSearch Dashboards has none but the name of the field."""
_HIDDEN_FIELDS = ("tokens", "tokens.*", "impacts", "policy_undo", "policy_undo.*", "version")
"""Fields of the main index that a table of documents doesn't load."""


def build_bundle(spec: DashboardSpec, product: Product) -> list[SavedObject]:
    """Build the index patterns, the panels and the dashboard; they refer to nothing else and can be imported anywhere."""
    panels = build_panels(spec, product)
    return [
        *_build_index_patterns(spec, product),
        *(panel.saved_object for panel in panels),
        _build_dashboard(spec, product, panels),
    ]


def get_dashboard_id(spec: DashboardSpec) -> str:
    """Return the id of the dashboard."""
    return spec.build_id("dashboard")


def assign_grid_positions(panels: Iterable[Panel]) -> list[dict[str, int]]:
    """Assign the panels to a grid of 48 columns.

    Returns:
        Position and size of each panel. The last panel of a row takes the remaining width.
    """
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        if rows[-1] and sum(placed.size[0] for placed in rows[-1]) + panel.size[0] > GRID_COLUMNS:
            rows.append([])
        rows[-1].append(panel)
    positions = list[dict[str, int]]()
    y = 0
    for row in rows:
        height = max((panel.size[1] for panel in row), default=0)
        x = 0
        for panel in row:
            width = GRID_COLUMNS - x if panel is row[-1] else panel.size[0]
            positions.append({"x": x, "y": y, "w": width, "h": height})
            x += width
        y += height
    return positions


def _build_link_format(spec: DashboardSpec, field: str) -> dict[str, Any]:
    """Build the format that shows the ids in `field` as links to the page, if there is one."""
    if spec.page_url is None:
        return {}
    template = f"{spec.page_url}/image/{{{{value}}}}"
    return {field: {"id": "url", "params": {"type": "a", "urlTemplate": template, "labelTemplate": "open"}}}


def _build_index_patterns(spec: DashboardSpec, product: Product) -> list[SavedObject]:
    labels = dump_compact_json({field: {"customLabel": label} for field, label in _COLUMN_LABELS.items()})
    extra = {"fieldAttrs": labels} if product == "kibana" else {}
    image_formats = {
        **_build_link_format(spec, "_id"),
        "thumbnail": _THUMBNAIL_FORMAT,
        "width": _WHOLE_NUMBER_FORMAT,
        "height": _WHOLE_NUMBER_FORMAT,
    }
    patterns = [
        build_index_pattern(
            spec.build_id("images"), spec.name, image_formats, spec.image_fields, hidden=_HIDDEN_FIELDS, extra=extra
        )
    ]
    if spec.has_token_index:
        formats = {
            **_build_link_format(spec, "image_id"),
            "weight": _WEIGHT_FORMAT,
            "weight_share": _SHARE_FORMAT,
            "rank": _WHOLE_NUMBER_FORMAT,
            "token_count": _WHOLE_NUMBER_FORMAT,
        }
        patterns.append(
            build_index_pattern(spec.build_id("tokens"), spec.token_index_name, formats, spec.token_index_fields, extra=extra)
        )
    return patterns


def _build_dashboard(spec: DashboardSpec, product: Product, panels: list[Panel]) -> SavedObject:
    items = [
        {
            "version": _PANEL_VERSION,
            "panelIndex": f"p{number}",
            "gridData": {**position, "i": f"p{number}"},
            "title": panel.title,
            "embeddableConfig": {},
            "panelRefName": f"panel_{number}",
        }
        for number, (panel, position) in enumerate(zip(panels, assign_grid_positions(panels), strict=True))
    ]
    references = [
        build_reference(f"panel_{number}", panel.saved_object["type"], panel.saved_object["id"])
        for number, panel in enumerate(panels)
    ]
    extra: Mapping[str, Any] = {}
    if product == "kibana":
        extra, control_references = build_control_group(list_controls(spec), spec.build_id("images"))
        references += control_references
    description = f"The words of the images in {spec.name}. Made by stair-es: publishing again overwrites it."
    return build_dashboard_object(
        get_dashboard_id(spec), f"STAIR words: {spec.name}", items, references, description=description, extra=extra
    )
