"""The Vega panels of a dashboard as pictures, drawn by the real Vega from a cluster's data.

    python tools/dashboard_pictures.py URL INDEX FOLDER [--version 6.4]

The size is about that of the panel on a screen 1600 pixels wide. Needs vl-convert-python; nothing is fetched.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import vl_convert
from dashboard_requests import asks, rows

from stair_es.cluster.connect import Connection
from stair_es.dashboards.bundle import bundle
from stair_es.dashboards.look import look

WIDTH_PX = 760
_ROW_PX = 20
_BACKGROUNDS = {"light": "#ffffff", "dark": "#1d1e24"}
Theme = Literal["light", "dark"]


def drawable(spec: Mapping[str, Any], height: int, theme: Theme = "light") -> dict[str, Any]:
    """A spec as a product hands it to Vega: its own settings taken out, the size of the panel and the theme's colours in."""
    config = {name: value for name, value in spec.get("config", {}).items() if name != "kibana"}
    if theme == "dark":
        text = "#dfe5ef"
        config |= {
            "title": {"color": text},
            "style": {"guide-label": {"fill": text}, "guide-title": {"fill": text}, "group-title": {"fill": text}},
            "axis": {"domainColor": "#535966", "gridColor": "#343741", "tickColor": "#535966"},
        }
    return {**spec, "width": WIDTH_PX, "height": height, "background": _BACKGROUNDS[theme], "config": config}


def png(spec: Mapping[str, Any], *, rows_high: int, version: str | None = None, theme: Theme = "light") -> bytes:
    """The picture of a spec whose data are inlined; errors of Vega are raised."""
    made = drawable(spec, rows_high * _ROW_PX - 40, theme)
    return vl_convert.vegalite_to_png(json.dumps(made), vl_version=version, scale=1.5, show_warnings=False)


def main(url: str, index: str, folder: Path, version: str | None = None) -> None:
    """Draw all of them."""
    connection = Connection(url=url)
    with closing(connection.client()) as client:
        corpus = look(client, connection, index).corpus
        objects = bundle(corpus, "kibana")

        def search(name: str, body: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = client.search(index=name, body=body)
            return answer

        panels = json.loads(objects[-1]["attributes"]["panelsJSON"])
        heights = {ref["id"]: panel["gridData"]["h"] for panel, ref in zip(panels, objects[-1]["references"], strict=False)}
        specs = {made["id"]: made for made in objects if made["type"] == "visualization"}
        folder.mkdir(parents=True, exist_ok=True)
        for ask in asks(objects, "kibana", search):
            state = json.loads(specs[ask.panel]["attributes"]["visState"]) if ask.panel in specs else {}
            if state.get("type") != "vega":
                continue
            spec = rows(json.loads(state["params"]["spec"]), search(ask.index, ask.body))
            kind = ask.panel.removeprefix(corpus.id("")).strip("-")
            path = folder / f"dashboards-{kind}.png"
            path.write_bytes(png(spec, rows_high=heights[ask.panel], version=version))
            print(path)


if __name__ == "__main__":
    given = sys.argv[1:]
    wanted = given[given.index("--version") + 1] if "--version" in given else None
    main(given[0], given[1], Path(given[2]), wanted)
