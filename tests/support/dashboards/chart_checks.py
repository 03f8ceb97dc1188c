"""What is wrong with a visualization: its aggregations, or its Vega spec. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.dashboards.bundle import SavedObject
from stair_es.dashboards.index_info import PRODUCT_LABELS, Product

_METRICS = {"count", "avg", "max", "min", "sum", "cardinality"}
_BUCKETS = {"terms", "histogram", "date_histogram", "range"}
_SCHEMAS = {
    "tagcloud": {"metric", "segment"},
    "horizontal_bar": {"metric", "segment", "group"},
    "histogram": {"metric", "segment", "group"},
    "table": {"metric", "bucket"},
    "metric": {"metric"},
}
"""Type -> what its aggregations may be for."""
_WITHOUT_AGGS = {"markdown", "vega", "input_control_vis"}
_OPENSEARCH_ONLY = {"input_control_vis"}
_VEGA_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_EXPRESSIONS = {"calculate", "filter", "expr", "update", "test", "signal", "labelExpr"}
_BLOCKED = re.compile(
    r"\b(window|document|global|globalThis|top|parent|frames|self|constructor|view|prototype|__proto__|ownerDocument|defaultView"
    r"|eval|Function|setTimeout|setInterval|atob|btoa|kibana\w+|opensearchDashboards\w+)\b"
)
"""Names that one of the products refuses in expressions, or that only one of them has."""


def find_visualization_errors(obj: SavedObject, product: Product) -> Iterator[str]:
    """Yield errors as phrases."""
    state = json.loads(obj["attributes"]["visState"])
    type_ = state.get("type")
    if type_ not in _SCHEMAS and type_ not in _WITHOUT_AGGS:
        yield f"an unknown type of chart: {type_!r}"
        return
    if type_ in _OPENSEARCH_ONLY and product != "opensearch-dashboards":
        yield f"{PRODUCT_LABELS[product]} has no {type_} any more"
    if state.get("title") != obj["attributes"]["title"]:
        yield "visState has another title than the object"
    if type_ in _WITHOUT_AGGS:
        if state.get("aggs"):
            yield f"{type_} takes no aggregations"
        yield from _find_vega_errors(state) if type_ == "vega" else ()
        return
    if not obj["references"]:
        yield "no index pattern"
    yield from _find_aggregation_errors(type_, state.get("aggs", []))
    yield from _find_series_errors(state)


def _find_aggregation_errors(type_: str, aggs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    ids = [agg["id"] for agg in aggs]
    if len(set(ids)) < len(ids):
        yield "two aggregations with one id"
    metrics = {agg["id"] for agg in aggs if agg["schema"] == "metric"}
    if not metrics:
        yield "no metric"
    for agg in aggs:
        kind, params = agg["type"], agg["params"]
        if agg["schema"] not in _SCHEMAS[type_]:
            yield f"aggregation {agg['id']}: {type_} has no place called {agg['schema']!r}"
        if kind not in (_METRICS if agg["schema"] == "metric" else _BUCKETS):
            yield f"aggregation {agg['id']}: {kind!r} is none for {agg['schema']!r}"
        if kind != "count" and not params.get("field"):
            yield f"aggregation {agg['id']}: no field"
        if kind == "histogram" and type(params.get("interval")) is not int:
            yield f"aggregation {agg['id']}: a click adds the interval {params.get('interval')!r} to a whole number"
        if kind == "terms" and params.get("orderBy") not in metrics | {"_key"}:
            yield f"aggregation {agg['id']}: ordered by {params.get('orderBy')!r}, which is no metric"


def _find_series_errors(state: Mapping[str, Any]) -> Iterator[str]:
    axes = {axis["id"] for axis in state["params"].get("valueAxes", ())}
    metrics = {agg["id"] for agg in state["aggs"] if agg["schema"] == "metric"}
    for series in state["params"].get("seriesParams", ()):
        if series["data"]["id"] not in metrics:
            yield f"a series of {series['data']['id']!r}, which is no metric"
        if series["valueAxis"] not in axes:
            yield f"a series on {series['valueAxis']!r}, which is no axis"


def _find_vega_errors(state: Mapping[str, Any]) -> Iterator[str]:
    try:
        spec = json.loads(state["params"]["spec"])
    except (KeyError, TypeError, ValueError) as error:
        yield f"the spec is no JSON: {error}"
        return
    if spec.get("$schema") != _VEGA_SCHEMA:
        yield f"$schema is not {_VEGA_SCHEMA}"
    data = spec.get("data", {})
    url = data.get("url")
    if not isinstance(url, dict) or not url.get("index") or not isinstance(url.get("body"), dict):
        yield "data.url asks no index for anything"
    elif url.get("%context%") is not True:
        yield "without %context% the filters of the dashboard don't reach it"
    elif "query" in url["body"]:
        yield "%context% together with body.query is refused"
    if not data.get("format", {}).get("property"):
        yield "data.format.property doesn't say where the rows are"
    yield from _find_expression_errors(spec)


def _find_expression_errors(part: object, name: str = "") -> Iterator[str]:
    """Yield errors anywhere in a spec."""
    if isinstance(part, dict):
        mark = part.get("mark")
        if "image" in (mark, mark.get("type") if isinstance(mark, dict) else None):
            yield "image marks are blocked by default"
        for key, value in part.items():
            yield from _find_expression_errors(value, key)
    elif isinstance(part, list):
        for value in part:
            yield from _find_expression_errors(value, name)
    elif isinstance(part, str) and name in _EXPRESSIONS and (match := _BLOCKED.search(part)):
        yield f"the expression {part!r} uses {match[0]!r}, which is refused"
