"""What is wrong with a dashboard: its grid. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from stair_es.dashboards.bundle import SavedObject

_COLUMNS = 48
_PANEL_VERSION = "7.10.0"  # older ones are rewritten as if they came from an old link


def find_dashboard_errors(obj: SavedObject) -> Iterator[str]:
    """Yield errors as phrases."""
    panels = json.loads(obj["attributes"]["panelsJSON"])
    if not panels:
        yield "no panels"
    for number, panel in enumerate(panels):
        yield from (f"panel {number}: {fault}" for fault in _find_panel_errors(panel))
    for index, times in Counter(panel.get("panelIndex") for panel in panels).items():
        if times > 1:
            yield f"{times} panels with the index {index!r}"
    placed = [(number, panel["gridData"]) for number, panel in enumerate(panels) if _is_grid(panel.get("gridData"))]
    for (one, first), (other, second) in combinations(placed, 2):
        if _has_overlap(first, second):
            yield f"panels {one} and {other} lie on each other"


def _find_panel_errors(panel: Mapping[str, Any]) -> Iterator[str]:
    grid = panel.get("gridData")
    if not _is_grid(grid) or grid is None:
        yield "gridData has no whole x, y, w and h"
        return
    if grid.get("i") != panel.get("panelIndex"):
        yield f"gridData.i is {grid.get('i')!r}, panelIndex {panel.get('panelIndex')!r}"
    if grid["w"] < 1 or grid["h"] < 1 or grid["x"] < 0 or grid["y"] < 0 or grid["x"] + grid["w"] > _COLUMNS:
        yield f"it doesn't fit on {_COLUMNS} columns"
    if panel.get("version") != _PANEL_VERSION:
        yield f"version {panel.get('version')!r}, not {_PANEL_VERSION!r}"
    if panel.get("title") == "":
        yield "an empty title, which becomes a hidden one"
    if not panel.get("panelRefName"):
        yield "no panelRefName"
    if not isinstance(panel.get("embeddableConfig"), dict):
        yield "no embeddableConfig"


def _is_grid(grid: object) -> bool:
    return isinstance(grid, dict) and all(isinstance(grid.get(side), int) for side in "xywh")


def _has_overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
