"""All saved objects of a dashboard, dependencies first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stair_es.dashboards.controls import build_control_group, list_controls
from stair_es.dashboards.index_info import DashboardSpec, Product
from stair_es.dashboards.panels import GRID_COLUMNS, Panel, build_panels
from stair_es.dashboards.saved_objects import SavedObject, build_dashboard_object, build_index_pattern, build_reference

_PANEL_VERSION = "7.10.0"
_THUMBNAIL_FORMAT = {
    "id": "url",
    # No URL template: it would encode the data URI. The label is the alternative text; the default is the whole URI.
    "params": {"type": "img", "width": 96, "height": 96, "labelTemplate": "thumbnail"},
}
_WEIGHT_FORMAT = {"id": "number", "params": {"pattern": "0.000"}}
_SHARE_FORMAT = {"id": "percent", "params": {"pattern": "0.0%"}}
_WHOLE_NUMBER_FORMAT = {"id": "number", "params": {"pattern": "0,0"}}
_HIDDEN_FIELDS = ("tokens", "tokens.*", "impacts", "policy_undo", "policy_undo.*", "version")
"""Fields of the main index that a table of documents doesn't load."""


def build_bundle(corpus: DashboardSpec, product: Product) -> list[SavedObject]:
    """Build the index patterns, the panels and the dashboard; they refer to nothing else and can be imported anywhere."""
    shown = build_panels(corpus, product)
    return [*_build_index_patterns(corpus), *(panel.saved_object for panel in shown), _build_dashboard(corpus, product, shown)]


def get_dashboard_id(corpus: DashboardSpec) -> str:
    """Return the id of the dashboard."""
    return corpus.build_id("dashboard")


def assign_grid_positions(shown: Iterable[Panel]) -> list[dict[str, int]]:
    """Assign the panels to a grid of 48 columns.

    Args:
        shown: Panels in reading order.

    Returns:
        Position and size of each panel. The last panel of a row takes the remaining width.
    """
    rows: list[list[Panel]] = [[]]
    for panel in shown:
        if rows[-1] and sum(each.size[0] for each in rows[-1]) + panel.size[0] > GRID_COLUMNS:
            rows.append([])
        rows[-1].append(panel)
    places = list[dict[str, int]]()
    y = 0
    for row in rows:
        height = max((panel.size[1] for panel in row), default=0)
        x = 0
        for panel in row:
            width = GRID_COLUMNS - x if panel is row[-1] else panel.size[0]
            places.append({"x": x, "y": y, "w": width, "h": height})
            x += width
        y += height
    return places


def _build_index_patterns(corpus: DashboardSpec) -> list[SavedObject]:
    main = {"thumbnail": _THUMBNAIL_FORMAT, "width": _WHOLE_NUMBER_FORMAT, "height": _WHOLE_NUMBER_FORMAT}
    made = [build_index_pattern(corpus.build_id("images"), corpus.name, main, _HIDDEN_FIELDS)]
    if corpus.has_token_index:
        formats = {
            "weight": _WEIGHT_FORMAT,
            "weight_share": _SHARE_FORMAT,
            "rank": _WHOLE_NUMBER_FORMAT,
            "token_count": _WHOLE_NUMBER_FORMAT,
        }
        made.append(build_index_pattern(corpus.build_id("tokens"), corpus.token_index_name, formats))
    return made


def _build_dashboard(corpus: DashboardSpec, product: Product, shown: list[Panel]) -> SavedObject:
    items = [
        {
            "version": _PANEL_VERSION,
            "panelIndex": f"p{number}",
            "gridData": {**place, "i": f"p{number}"},
            "title": panel.title,
            "embeddableConfig": {},
            "panelRefName": f"panel_{number}",
        }
        for number, (panel, place) in enumerate(zip(shown, assign_grid_positions(shown), strict=True))
    ]
    references = [
        build_reference(f"panel_{number}", panel.saved_object["type"], panel.saved_object["id"])
        for number, panel in enumerate(shown)
    ]
    more: Mapping[str, Any] = {}
    if product == "kibana":
        more, controlled = build_control_group(list_controls(corpus), corpus.build_id("images"))
        references += controlled
    description = f"The words of the images in {corpus.name}. Made by stair-es: publishing again overwrites it."
    return build_dashboard_object(
        get_dashboard_id(corpus), f"STAIR words: {corpus.name}", items, references, description=description, more=more
    )
