"""The Vega panels of a dashboard as pictures, drawn by the real Vega from a cluster's data.

    cd tests && python -m support.oracles.vega_render URL INDEX FOLDER [--version 6.4] [--dark]

The size is about that of the panel on a screen 1600 pixels wide. Needs vl-convert-python; nothing is fetched.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import vl_convert

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.dashboards.bundle import build_bundle
from stair_es.dashboards.index_info import inspect_index
from support.servers.saved_objects_requests import Product, Search, inline_response, list_requests

WIDTH_PX = 760
HEIGHT_PX = 380
_BACKGROUNDS = {"light": "#ffffff", "dark": "#1d1e24"}
Theme = Literal["light", "dark"]


def build_spec(spec: Mapping[str, Any], height: int, theme: Theme = "light") -> dict[str, Any]:
    """Return a spec as a product hands it to Vega: without product settings, with panel size and theme colors."""
    config = {name: value for name, value in spec.get("config", {}).items() if name != "kibana"}
    if theme == "dark":
        text = "#dfe5ef"
        config |= {
            "title": {"color": text},
            "style": {"guide-label": {"fill": text}, "guide-title": {"fill": text}, "group-title": {"fill": text}},
            "axis": {"domainColor": "#535966", "gridColor": "#343741", "tickColor": "#535966"},
        }
    return {**spec, "width": WIDTH_PX, "height": height, "background": _BACKGROUNDS[theme], "config": config}


def render_png(spec: Mapping[str, Any], *, version: str | None = None, theme: Theme = "light") -> bytes:
    """Render a spec with inlined data; raise errors of Vega."""
    sized = build_spec(spec, HEIGHT_PX, theme)
    return vl_convert.vegalite_to_png(json.dumps(sized), vl_version=version, scale=1.5, show_warnings=False)


def render_marks(spec: Mapping[str, Any], *, version: str | None = None) -> list[dict[str, str]]:
    """Return the drawn marks as Vega describes them to screen readers: channel title -> value."""
    svg = vl_convert.vegalite_to_svg(json.dumps(build_spec(spec, 400)), vl_version=version, show_warnings=False)
    labels = [html.unescape(label) for label in re.findall(r'aria-roledescription="[^"]*"[^>]*aria-label="([^"]*)"', svg)]
    labels += [html.unescape(label) for label in re.findall(r'aria-label="([^"]*)"[^>]*aria-roledescription="[^"]*"', svg)]
    pairs = [[part.partition(": ") for part in label.split("; ")] for label in labels]
    return [{name: value for name, sign, value in parts if sign} for parts in pairs]


def list_charts(
    objects: Sequence[Mapping[str, Any]], search: Search, product: Product = "kibana"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and spec of each Vega panel, with inlined response."""
    specs = {}
    for obj in objects:
        state = json.loads(obj["attributes"].get("visState", "{}"))
        if state.get("type") == "vega":
            specs[obj["id"]] = json.loads(state["params"]["spec"])
    for request in list_requests([obj for obj in objects if obj["type"] != "dashboard"], product):
        if request.panel in specs:
            yield request.panel, inline_response(specs[request.panel], search(request.index, request.body))


def draw_panels(url: str, index: str, version: str | None = None, theme: Theme = "light") -> Iterator[tuple[str, bytes]]:
    """Draw the Vega panels of an index; yield the name of each and its picture as PNG."""
    with Cluster(Connection(url=url)) as cluster:
        corpus = inspect_index(cluster, index).spec
        objects = build_bundle(corpus, "kibana")

        def run_search(name: str, body: dict[str, Any]) -> dict[str, Any]:
            response: dict[str, Any] = cluster.client.search(index=name, body=body)
            return response

        for id_, spec in list_charts(objects, run_search):
            yield id_.removeprefix(corpus.build_id("")).strip("-"), render_png(spec, version=version, theme=theme)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    vega_version = arguments[arguments.index("--version") + 1] if "--version" in arguments else None
    vega_theme: Theme = "dark" if "--dark" in arguments else "light"
    folder = Path(arguments[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in draw_panels(arguments[0], arguments[1], vega_version, vega_theme):
        (folder / f"{name}.png").write_bytes(png)
