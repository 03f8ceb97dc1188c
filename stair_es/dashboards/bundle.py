"""All saved objects of a dashboard, dependencies first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stair_es.dashboards.controls import control_group, controls
from stair_es.dashboards.corpus import Corpus, Product
from stair_es.dashboards.objects import SavedObject, dashboard, index_pattern, reference
from stair_es.dashboards.panels import FULL, Panel, panels

_PANEL_VERSION = "7.10.0"
_THUMBNAIL = {
    "id": "url",
    # No URL template: it would encode the data URI. The label is the alternative text; the default is the whole URI.
    "params": {"type": "img", "width": 96, "height": 96, "labelTemplate": "thumbnail"},
}
_WEIGHT = {"id": "number", "params": {"pattern": "0.000"}}
_SHARE = {"id": "percent", "params": {"pattern": "0.0%"}}
_WHOLE = {"id": "number", "params": {"pattern": "0,0"}}
_UNREADABLE = ("tokens", "tokens.*", "impacts", "policy_undo", "policy_undo.*", "version")
"""Fields of the main index that a table of documents doesn't load."""


def bundle(corpus: Corpus, product: Product) -> list[SavedObject]:
    """Build the index patterns, the panels and the dashboard; they refer to nothing else and can be imported anywhere."""
    shown = panels(corpus, product)
    return [*_patterns(corpus), *(panel.made for panel in shown), _dashboard(corpus, product, shown)]


def dashboard_id(corpus: Corpus) -> str:
    """Return the id of the dashboard."""
    return corpus.id("dashboard")


def placed(shown: Iterable[Panel]) -> list[dict[str, int]]:
    """Assign the panels to a grid of 48 columns.

    Args:
        shown: Panels in reading order.

    Returns:
        Position and size of each panel. The last panel of a row takes the remaining width.
    """
    rows: list[list[Panel]] = [[]]
    for panel in shown:
        if rows[-1] and sum(each.size[0] for each in rows[-1]) + panel.size[0] > FULL:
            rows.append([])
        rows[-1].append(panel)
    places = list[dict[str, int]]()
    y = 0
    for row in rows:
        height = max((panel.size[1] for panel in row), default=0)
        x = 0
        for panel in row:
            width = FULL - x if panel is row[-1] else panel.size[0]
            places.append({"x": x, "y": y, "w": width, "h": height})
            x += width
        y += height
    return places


def _patterns(corpus: Corpus) -> list[SavedObject]:
    main = {"thumbnail": _THUMBNAIL, "width": _WHOLE, "height": _WHOLE}
    made = [index_pattern(corpus.id("images"), corpus.name, main, _UNREADABLE)]
    if corpus.companion:
        words = {"weight": _WEIGHT, "share": _SHARE, "rank": _WHOLE, "words": _WHOLE}
        made.append(index_pattern(corpus.id("words"), corpus.words_name, words))
    return made


def _dashboard(corpus: Corpus, product: Product, shown: list[Panel]) -> SavedObject:
    items = [
        {
            "version": _PANEL_VERSION,
            "panelIndex": f"p{number}",
            "gridData": {**place, "i": f"p{number}"},
            "title": panel.title,
            "embeddableConfig": {},
            "panelRefName": f"panel_{number}",
        }
        for number, (panel, place) in enumerate(zip(shown, placed(shown), strict=True))
    ]
    references = [reference(f"panel_{number}", panel.made["type"], panel.made["id"]) for number, panel in enumerate(shown)]
    more: Mapping[str, Any] = {}
    if product == "kibana":
        more, controlled = control_group(controls(corpus), corpus.id("images"))
        references += controlled
    description = f"The words of the images in {corpus.name}. Made by stair-es: publishing again overwrites it."
    return dashboard(dashboard_id(corpus), f"STAIR words: {corpus.name}", items, references, description=description, more=more)
