"""States of the classic chart types (`visState`), which both products still render. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

VisState: TypeAlias = dict[str, Any]
Agg: TypeAlias = dict[str, Any]

MAX_BARS = 50
"""Bars of a histogram: the products widen the interval beyond 100, and their filters don't know."""
MAX_RANGES = 40
_COUNT_ID = "1"


def build_count_agg(label: str) -> Agg:
    """Build a metric that counts documents."""
    return _build_agg(_COUNT_ID, "count", "metric", {"customLabel": label})


def build_metric_agg(type_: Literal["avg", "max", "min", "sum", "cardinality"], field: str, label: str, id_: str) -> Agg:
    """Build a metric over a field."""
    return _build_agg(id_, type_, "metric", {"field": field, "customLabel": label})


def build_terms_agg(field: str, size: int, label: str, schema: str, exclude: str = "") -> Agg:
    """Build buckets of the values of a field, most frequent first, without those that match `exclude`."""
    params = {
        "field": field,
        "size": size,
        "order": "desc",
        "orderBy": _COUNT_ID,
        "otherBucket": False,
        "otherBucketLabel": "Other",
        "missingBucket": False,
        "missingBucketLabel": "Missing",
        # Later Kibana versions take the pattern for a value without the second one; the others ignore it.
        **({"exclude": exclude, "excludeIsRegex": True} if exclude else {}),
        "customLabel": label,
    }
    return _build_agg("2", "terms", schema, params)


def build_histogram_agg(field: str, largest: int, label: str) -> Agg:
    """Build ranges of whole numbers up to about `largest`.

    The products make a filter of a bar from `parseInt(key)` to that plus `interval`. So the interval is a number, not `auto`,
    and this is nothing for fractions: use `build_range_agg`.
    """
    params = {
        "field": field,
        "interval": max(1, round(choose_step(largest, MAX_BARS))),
        "min_doc_count": True,
        "has_extended_bounds": False,
        "extended_bounds": {"min": "", "max": ""},
        "customLabel": label,
    }
    return _build_agg("2", "histogram", "segment", params)


def build_range_agg(field: str, largest: float, label: str) -> Agg:
    """Build ranges of fractions from 0 to `largest`; the last one is open, for larger values that come later.

    A histogram with a decimal interval shows ranges that don't exist: the products fill gaps by adding the interval, and 0.12 +
    0.02 isn't 0.14 for them.
    """
    step = choose_step(largest, MAX_RANGES)
    edges = [float(f"{number * step:.6g}") for number in range(max(1, math.floor(largest / step + 1e-9)) + 1)]
    ranges: list[dict[str, float]] = [{"from": low, "to": high} for low, high in itertools.pairwise(edges)]
    return _build_agg("2", "range", "segment", {"field": field, "ranges": [*ranges, {"from": edges[-1]}], "customLabel": label})


def choose_step(largest: float, most: int) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that at most `most` steps reach `largest`."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest / most))
    step = next(factor for factor in (1, 2, 5, 10) if largest / (factor * power) <= most)
    return float(f"{step * power:.6g}")


def build_date_agg(field: str, interval: str, label: str, id_: str) -> Agg:
    """Build buckets of time."""
    params = {
        "field": field,
        "scaleMetricValues": False,
        "interval": interval,
        "drop_partials": False,
        "min_doc_count": 1,
        "extended_bounds": {},
        "customLabel": label,
    }
    return _build_agg(id_, "date_histogram", "segment", params)


def build_tag_cloud(aggs: Sequence[Agg]) -> VisState:
    """Build a tag cloud: the more frequent a token, the larger."""
    params = {"scale": "square root", "orientation": "single", "minFontSize": 14, "maxFontSize": 54, "showLabel": False}
    return {"type": "tagcloud", "params": params, "aggs": list(aggs)}


def build_data_table(aggs: Sequence[Agg], rows: int) -> VisState:
    """Build a table with `rows` rows per page."""
    params = {
        "perPage": rows,
        "showPartialRows": False,
        "showMetricsAtAllLevels": False,
        "sort": {"columnIndex": None, "direction": None},
        "showTotal": False,
        "totalFunc": "sum",
        "percentageCol": "",
    }
    return {"type": "table", "params": params, "aggs": list(aggs)}


def build_metric_numbers(aggs: Sequence[Agg]) -> VisState:
    """Build large numbers, side by side."""
    metric_style = {
        "percentageMode": False,
        "useRanges": False,
        "colorSchema": "Green to Red",
        "metricColorMode": "None",
        "colorsRange": [{"from": 0, "to": 10000}],
        "labels": {"show": True},
        "invertColors": False,
        "style": {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 36},
    }
    return {
        "type": "metric",
        "params": {"addTooltip": True, "addLegend": False, "type": "metric", "metric": metric_style},
        "aggs": list(aggs),
    }


def build_markdown_text(text: str) -> VisState:
    """Build a Markdown text."""
    return {"type": "markdown", "params": {"fontSize": 12, "openLinksInNewTab": False, "markdown": text}, "aggs": []}


def build_bar_chart(aggs: Sequence[Agg], *, upright: bool = False, stacked: bool = False) -> VisState:
    """Build a bar chart of the first metric: horizontal for tokens, `upright` for ranges."""
    first = aggs[0]
    title = first["params"]["customLabel"]
    category, value = ("bottom", "left") if upright else ("left", "bottom")
    series = {
        "show": True,
        "type": "histogram",
        "mode": "stacked" if stacked else "normal",
        "data": {"label": title, "id": first["id"]},
        "valueAxis": "ValueAxis-1",
        "drawLinesBetweenPoints": True,
        "lineWidth": 2,
        "showCircles": True,
    }
    params = {
        "type": "histogram",
        "grid": {"categoryLines": False},
        "categoryAxes": [_build_axis("CategoryAxis-1", "category", category, {"rotate": 0, "filter": upright, "truncate": 200})],
        "valueAxes": [
            {
                **_build_axis("ValueAxis-1", "value", value, {"rotate": 0, "filter": not upright, "truncate": 100}, title),
                "name": f"{value.title()}Axis-1",
                "scale": {"type": "linear", "mode": "normal"},
            }
        ],
        "seriesParams": [series],
        "addTooltip": True,
        "addLegend": stacked,
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
        "labels": {"show": False},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"},
    }
    return {"type": "histogram" if upright else "horizontal_bar", "params": params, "aggs": list(aggs)}


def _build_axis(id_: str, type_: str, position: str, labels: Mapping[str, Any], title: str | None = None) -> dict[str, Any]:
    return {
        "id": id_,
        "type": type_,
        "position": position,
        "show": True,
        "style": {},
        "scale": {"type": "linear"},
        "labels": {"show": True, **labels},
        "title": {"text": title} if title else {},
    }


def _build_agg(id_: str, type_: str, schema: str, params: Mapping[str, Any]) -> Agg:
    return {"id": id_, "enabled": True, "type": type_, "schema": schema, "params": dict(params)}
