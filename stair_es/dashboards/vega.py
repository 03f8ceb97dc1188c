"""Charts that the classic types can't draw, as Vega-Lite. Pure.

They use only features from the first Vega-Lite 5 release, so every version in the products renders them; no images, which both
products block by default; no text colors, which the products set for light and dark themes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.dashboards.index_info import DashboardSpec

VegaSpec: TypeAlias = dict[str, Any]

VEGA_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
AVERAGE_WEIGHT_TOKENS = 25
"""Tokens in `Average weight by word`."""
COOCCURRENCE_TOKENS = 20
"""Tokens on each axis of `Words that occur together`."""
_COUNTED_TOKENS = 200
"""Co-occurring tokens counted per token; a token of the other axis that is not among them is rare there."""
MAX_SOURCES = 12
_TOKENS_PER_SOURCE = 300
_SOURCE_CHART_TOKENS = 20
IMAGE_CHART_TOKENS = 16
"""The token index holds at most this many tokens per image."""

PIECES = "[#]{2}.+|[A-Za-z0-9]"
"""Tokens that charts leave out, as a regular expression of Lucene (in which `#` alone is an operator): pieces of words, and
single letters and digits."""

_BAR_COLOR = "#1a7f9c"
_LINE_COLOR = "#e07b39"
_MIN_OPACITY = 0.07
"""Larger values are more opaque, which works on light and dark backgrounds."""


def build_vega_state(spec: VegaSpec) -> dict[str, Any]:
    """Build the state of a visualization that draws `spec`; indented, since users adapt it in the product's editor."""
    return {"type": "vega", "params": {"spec": json.dumps(spec, ensure_ascii=False, indent=2)}, "aggs": []}


def build_average_weight_chart(spec: DashboardSpec) -> VegaSpec:
    """Build a chart of the most frequent tokens: mean weight as a bar, largest weight as a tick."""
    aggs = {"weight": {"avg": {"field": "weight"}}, "heaviest": {"max": {"field": "weight"}}}
    body = _build_terms_body(spec.token_field, AVERAGE_WEIGHT_TOKENS, aggs)
    tooltip = [
        _build_tooltip("key", "Word"),
        _build_tooltip("doc_count", "Images with it", "d"),
        _build_tooltip("average", "Average weight", ".3f"),
        _build_tooltip("largest", "Largest weight", ".3f"),
    ]
    y = _build_ordered_axis("key", "average", {"labelLimit": 140}, "descending")
    x = _build_number_axis("average", "average weight (bar), largest weight (line)")
    return _build_spec(
        _build_data(spec.token_index_name, body, "aggregations.tokens.buckets"),
        [_calculate_field("average", "datum.weight.value"), _calculate_field("largest", "datum.heaviest.value")],
        {
            "layer": [
                {"mark": {"type": "bar", "color": _BAR_COLOR}, "encoding": {"y": y, "x": x, "tooltip": tooltip}},
                {
                    "mark": {"type": "tick", "color": _LINE_COLOR, "thickness": 3, "opacity": 1},
                    "encoding": {"y": y, "x": {**x, "field": "largest"}, "tooltip": tooltip},
                },
            ]
        },
    )


def build_cooccurrence_chart(spec: DashboardSpec) -> VegaSpec:
    """Build a heat map of the most frequent tokens that share images: images with both, out of the images with either."""
    inner = _build_terms_agg("top_tokens", _COUNTED_TOKENS)
    own = "datum.word == datum.other_token ? datum.images : 0"
    transform: list[VegaSpec] = [
        {"flatten": ["others.buckets"], "as": ["other"]},
        _calculate_field("word", "datum.key"),
        _calculate_field("other_token", "datum.other.key"),
        _calculate_field("images", "datum.doc_count"),
        _calculate_field("both", "datum.other.doc_count"),
        _calculate_field("own", own),
        # A token on both axes has a pair with itself, which holds the number of its images.
        {"joinaggregate": [{"op": "max", "field": "own", "as": "other_images"}], "groupby": ["other_token"]},
        {"filter": "datum.other_images > 0 && datum.word != datum.other_token"},
        _calculate_field("overlap", "datum.both / (datum.images + datum.other_images - datum.both)"),
        _rank_by("word_rank", "images", "word"),
        _rank_by("other_rank", "other_images", "other_token"),
    ]
    return _build_spec(
        _build_data(
            spec.name, _build_terms_body("top_tokens", COOCCURRENCE_TOKENS, {"others": inner}), "aggregations.tokens.buckets"
        ),
        transform,
        {
            "mark": {"type": "rect", "color": _BAR_COLOR},
            "encoding": {
                "x": _build_ordered_axis("other_token", "other_rank", {"labelAngle": -45, "labelLimit": 90}),
                "y": _build_ordered_axis("word", "word_rank", {"labelLimit": 120}),
                "opacity": _build_opacity("overlap", "shared images", ".0%"),
                "tooltip": [
                    _build_tooltip("word", "Word"),
                    _build_tooltip("other_token", "Other word"),
                    _build_tooltip("both", "Images with both", "d"),
                    _build_tooltip("images", "with the first", "d"),
                    _build_tooltip("other_images", "with the second", "d"),
                    _build_tooltip("overlap", "Shared", ".1%"),
                ],
            },
        },
    )


def build_source_heatmap(spec: DashboardSpec) -> VegaSpec:
    """Build a chart of the share of each source's images that have a token; comparable across sources of any size."""
    sources = {
        "terms": {"field": "source", "size": MAX_SOURCES},
        "aggs": {"tokens": _build_terms_agg("top_tokens", _TOKENS_PER_SOURCE)},
    }
    transform: list[VegaSpec] = [
        {"flatten": ["tokens.buckets"], "as": ["word"]},
        _calculate_field("source", "datum.key"),
        _calculate_field("name", "datum.word.key"),
        _calculate_field("both", "datum.word.doc_count"),
        _calculate_field("part", "datum.word.doc_count / datum.doc_count"),
        {"joinaggregate": [{"op": "sum", "field": "both", "as": "total"}], "groupby": ["name"]},
        _rank_by("name_rank", "total", "name"),
        {"filter": f"datum.name_rank <= {_SOURCE_CHART_TOKENS}"},
    ]
    tooltip = [
        _build_tooltip("source", "Source"),
        _build_tooltip("name", "Word"),
        _build_tooltip("both", "Images with it", "d"),
        _build_tooltip("doc_count", "Images of the source", "d"),
        _build_tooltip("part", "Part", ".1%"),
    ]
    y = _build_ordered_axis("name", "name_rank", {"labelLimit": 140, "grid": True})
    x = _build_number_axis("part", "part of the source's images that have the word", ".0%")
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 300, "labelExpr": _truncate_label(40), "symbolOpacity": 1}
    source_channel = {"field": "source", "type": "nominal", "title": None, "legend": legend}
    return _build_spec(
        _build_data(spec.name, {"size": 0, "aggs": {"sources": sources}}, "aggregations.sources.buckets"),
        transform,
        {
            "mark": {"type": "point", "filled": True, "size": 100, "opacity": 0.85},
            "encoding": {
                "y": y,
                "x": x,
                "color": source_channel,
                "shape": source_channel,  # separates overlapping points
                "tooltip": tooltip,
            },
        },
    )


def build_image_chart(spec: DashboardSpec) -> VegaSpec:
    """Build a chart of the token weights of one image: the first one by URI that passes the filters."""
    body = {
        "size": IMAGE_CHART_TOKENS,
        "_source": ["image_id", "name", "uri", "token", "weight", "weight_share", "rank", "token_count"],
        "sort": [{"uri": "asc"}, {"image_id": "asc"}, {"rank": "asc"}],
    }
    transform: list[VegaSpec] = [
        {
            "window": [{"op": "first_value", "field": "_source.image_id", "as": "first"}],
            "sort": [{"field": "_source.uri"}, {"field": "_source.image_id"}, {"field": "_source.rank"}],
            "frame": [None, None],
        },
        {"filter": "datum._source.image_id == datum.first"},
    ]
    tooltip = [
        _build_tooltip("image", "Image"),
        _build_tooltip("word", "Word"),
        _build_tooltip("weight", "Weight", ".3f"),
        _build_tooltip("_source.weight_share", "of all its weights", ".1%"),
        _build_tooltip("_source.token_count", "Words in all", "d"),
    ]
    legend = {"orient": "top", "labelLimit": 420, "labelExpr": _truncate_label(60), "symbolType": "square"}
    return _build_spec(
        _build_data(spec.token_index_name, body, "hits.hits"),
        [
            *transform,
            _calculate_field("word", "datum._source.token"),
            _calculate_field("weight", "datum._source.weight"),
            _calculate_field("rank", "datum._source.rank"),
            _calculate_field("image", "datum._source.name || datum._source.uri"),
        ],
        {
            "mark": {"type": "bar"},
            "encoding": {
                "y": _build_ordered_axis("word", "rank", {"labelLimit": 140}),
                "x": _build_number_axis("weight", "weight"),
                # Shows the name above the bars, in the text color of the product's theme.
                "color": {
                    "field": "image",
                    "type": "nominal",
                    "title": None,
                    "scale": {"range": [_BAR_COLOR]},
                    "legend": legend,
                },
                "tooltip": tooltip,
            },
        },
    )


def _build_spec(data: Mapping[str, Any], transform: Sequence[Mapping[str, Any]], view: Mapping[str, Any]) -> VegaSpec:
    return {
        "$schema": VEGA_SCHEMA,
        # Both products read this name. The frame of the plot would be a bright line in a dark theme.
        "config": {"kibana": {"hideWarnings": True}, "view": {"stroke": None}},
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 5,
        "data": data,
        **({"transform": list(transform)} if transform else {}),
        **view,
    }


def _build_data(index: str, body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Build the data section: the search that the product runs, with the dashboard's filters, and the path of the rows."""
    return {"url": {"%context%": True, "index": index, "body": body}, "format": {"property": path}}


def _build_terms_body(field: str, size: int, aggs: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": 0, "aggs": {"tokens": {**_build_terms_agg(field, size), "aggs": aggs}}}


def _build_terms_agg(field: str, size: int) -> dict[str, Any]:
    return {"terms": {"field": field, "size": size, "exclude": PIECES}}


def _calculate_field(name: str, expression: str) -> dict[str, str]:
    return {"calculate": expression, "as": name}


def _build_tooltip(field: str, title: str, number_format: str | None = None) -> dict[str, str]:
    if number_format is None:
        return {"field": field, "type": "nominal", "title": title}
    return {"field": field, "type": "quantitative", "title": title, "format": number_format}


def _build_number_axis(field: str, title: str, number_format: str = ".2f") -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "axis": {"format": number_format, "tickCount": 8}}


def _rank_by(name: str, by: str, token: str) -> VegaSpec:
    """Rank tokens by a field, largest first; ties by token, so that both axes have the same order."""
    order = [{"field": by, "order": "descending"}, {"field": token, "order": "ascending"}]
    return {"window": [{"op": "dense_rank", "as": name}], "sort": order}


def _build_ordered_axis(field: str, by: str, axis: Mapping[str, Any], order: str = "ascending") -> dict[str, Any]:
    return {
        "field": field,
        "type": "nominal",
        "sort": {"field": by, "op": "min", "order": order},
        "title": None,
        "axis": dict(axis),
    }


def _truncate_label(longest: int) -> str:
    """Build an expression that keeps the end of a long label, where labels differ."""
    return f"length(datum.label) > {longest} ? '…' + slice(datum.label, {1 - longest}) : datum.label"


def _build_opacity(field: str, title: str, number_format: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"range": [_MIN_OPACITY, 1], "domainMin": 0},
        "legend": {
            "format": number_format,
            "symbolType": "square",
            "symbolFillColor": _BAR_COLOR,
            "symbolStrokeWidth": 0,
            "symbolSize": 200,
        },
    }
