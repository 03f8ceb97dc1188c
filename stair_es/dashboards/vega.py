"""Charts that the classic types can't draw, as Vega-Lite. Pure.

They use only features from the first Vega-Lite 5 release, so every version in the products renders them; no images, which both
products block by default; no text colours, which the products set for light and dark themes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.dashboards.corpus import Corpus
from stair_es.dashboards.objects import packed

Spec: TypeAlias = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
FREQUENT = 25
"""Tokens in `Average weight by word`."""
TOGETHER = 20
"""Tokens on each axis of `Words that occur together`."""
_BESIDE = 200
"""Co-occurring tokens counted per token; a token of the other axis that is not among them is rare there."""
SOURCES = 12
_WORDS_OF_SOURCE = 300
_WORDS_SHOWN = 20
TOP_WORDS = 16
"""The token index holds at most this many tokens per image."""

_BAR = "#1a7f9c"
_LINE = "#e07b39"
_FAINTEST = 0.07
"""Larger values are more opaque, which works on light and dark backgrounds."""


def state(spec: Spec) -> dict[str, Any]:
    """Build the state of a visualization that draws `spec`."""
    return {"type": "vega", "params": {"spec": packed(spec)}, "aggs": []}


def average_weight(corpus: Corpus) -> Spec:
    """Build a chart of the most frequent tokens: mean weight as a bar, largest weight as a tick."""
    aggs = {"weight": {"avg": {"field": "weight"}}, "heaviest": {"max": {"field": "weight"}}}
    body = _terms(corpus.companion_word, FREQUENT, aggs)
    tooltip = [
        _told("key", "Word"),
        _told("doc_count", "Images with it", "d"),
        _told("average", "Average weight", ".3f"),
        _told("largest", "Largest weight", ".3f"),
    ]
    y = _ordered("key", "average", {"labelLimit": 140}, "descending")
    x = _number("average", "average weight (bar), largest weight (line)")
    return _spec(
        _asked(corpus.words_name, body, "aggregations.words.buckets"),
        [_made("average", "datum.weight.value"), _made("largest", "datum.heaviest.value")],
        {
            "layer": [
                {"mark": {"type": "bar", "color": _BAR}, "encoding": {"y": y, "x": x, "tooltip": tooltip}},
                {
                    "mark": {"type": "tick", "color": _LINE, "thickness": 3, "opacity": 1},
                    "encoding": {"y": y, "x": {**x, "field": "largest"}, "tooltip": tooltip},
                },
            ],
        },
    )


def together(corpus: Corpus) -> Spec:
    """Build a heat map of the most frequent tokens that share images: images with both, out of the images with either."""
    inner = {"terms": {"field": "top_tokens", "size": _BESIDE}}
    own = "datum.word == datum.beside ? datum.images : 0"
    transform: list[Spec] = [
        {"flatten": ["others.buckets"], "as": ["other"]},
        _made("word", "datum.key"),
        _made("beside", "datum.other.key"),
        _made("images", "datum.doc_count"),
        _made("both", "datum.other.doc_count"),
        _made("own", own),
        # A token on both axes has a pair with itself, which holds the number of its images.
        {"joinaggregate": [{"op": "max", "field": "own", "as": "beside_images"}], "groupby": ["beside"]},
        {"filter": "datum.beside_images > 0 && datum.word != datum.beside"},
        _made("overlap", "datum.both / (datum.images + datum.beside_images - datum.both)"),
        _placed("word_place", "images", "word"),
        _placed("beside_place", "beside_images", "beside"),
    ]
    return _spec(
        _asked(corpus.name, _terms("top_tokens", TOGETHER, {"others": inner}), "aggregations.words.buckets"),
        transform,
        {
            "mark": {"type": "rect", "color": _BAR},
            "encoding": {
                "x": _ordered("beside", "beside_place", {"labelAngle": -45, "labelLimit": 90}),
                "y": _ordered("word", "word_place", {"labelLimit": 120}),
                "opacity": _shade("overlap", "shared images", ".0%"),
                "tooltip": [
                    _told("word", "Word"),
                    _told("beside", "beside"),
                    _told("both", "Images with both", "d"),
                    _told("images", "with the first", "d"),
                    _told("beside_images", "with the second", "d"),
                    _told("overlap", "Shared", ".1%"),
                ],
            },
        },
    )


def by_source(corpus: Corpus) -> Spec:
    """Build a chart of the share of each source's images that have a token; comparable across sources of any size."""
    sources = {"terms": {"field": "source", "size": SOURCES}, "aggs": {"words": _words("top_tokens", _WORDS_OF_SOURCE)}}
    transform: list[Spec] = [
        {"flatten": ["words.buckets"], "as": ["word"]},
        _made("source", "datum.key"),
        _made("name", "datum.word.key"),
        _made("both", "datum.word.doc_count"),
        _made("part", "datum.word.doc_count / datum.doc_count"),
        {"joinaggregate": [{"op": "sum", "field": "both", "as": "total"}], "groupby": ["name"]},
        _placed("place", "total", "name"),
        {"filter": f"datum.place <= {_WORDS_SHOWN}"},
    ]
    tooltip = [
        _told("source", "Source"),
        _told("name", "Word"),
        _told("both", "Images with it", "d"),
        _told("doc_count", "Images of the source", "d"),
        _told("part", "Part", ".1%"),
    ]
    y = _ordered("name", "place", {"labelLimit": 140, "grid": True})
    x = _number("part", "part of the source's images that have the word", ".0%")
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 300, "labelExpr": _tail(40), "symbolOpacity": 1}
    which = {"field": "source", "type": "nominal", "title": None, "legend": legend}
    return _spec(
        _asked(corpus.name, {"size": 0, "aggs": {"sources": sources}}, "aggregations.sources.buckets"),
        transform,
        {
            "mark": {"type": "point", "filled": True, "size": 100, "opacity": 0.85},
            "encoding": {
                "y": y,
                "x": x,
                "color": which,
                "shape": which,  # keeps overlapping points apart
                "tooltip": tooltip,
            },
        },
    )


def one_image(corpus: Corpus) -> Spec:
    """Build a chart of the token weights of one image: the first one by URI that passes the filters."""
    body = {
        "size": TOP_WORDS,
        "_source": ["image_id", "uri", "token", "weight", "share", "rank", "words"],
        "sort": [{"uri": "asc"}, {"image_id": "asc"}, {"rank": "asc"}],
    }
    transform: list[Spec] = [
        {
            "window": [{"op": "first_value", "field": "_source.image_id", "as": "first"}],
            "sort": [{"field": "_source.uri"}, {"field": "_source.image_id"}, {"field": "_source.rank"}],
            "frame": [None, None],
        },
        {"filter": "datum._source.image_id == datum.first"},
    ]
    tooltip = [
        _told("_source.uri", "Image"),
        _told("word", "Word"),
        _told("weight", "Weight", ".3f"),
        _told("_source.share", "of all its weights", ".1%"),
        _told("_source.words", "Words in all", "d"),
    ]
    legend = {"orient": "top", "labelLimit": 420, "labelExpr": _tail(60), "symbolType": "square"}
    return _spec(
        _asked(corpus.words_name, body, "hits.hits"),
        [
            *transform,
            _made("word", "datum._source.token"),
            _made("weight", "datum._source.weight"),
            _made("rank", "datum._source.rank"),
            _made("uri", "datum._source.uri"),
        ],
        {
            "mark": {"type": "bar"},
            "encoding": {
                "y": _ordered("word", "rank", {"labelLimit": 140}),
                "x": _number("weight", "weight"),
                # Shows the URI above the bars, in the text colour of the product's theme.
                "color": {"field": "uri", "type": "nominal", "title": None, "scale": {"range": [_BAR]}, "legend": legend},
                "tooltip": tooltip,
            },
        },
    )


def _spec(data: Mapping[str, Any], transform: Sequence[Mapping[str, Any]], view: Mapping[str, Any]) -> Spec:
    return {
        "$schema": SCHEMA,
        "config": {"kibana": {"hideWarnings": True}},  # both products read this name
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 5,
        "data": data,
        **({"transform": list(transform)} if transform else {}),
        **view,
    }


def _asked(index: str, body: Mapping[str, Any], found: str) -> dict[str, Any]:
    """Build the data section: the search that the product runs, with the dashboard's filters, and the path of the rows."""
    return {"url": {"%context%": True, "index": index, "body": body}, "format": {"property": found}}


def _terms(field: str, size: int, aggs: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": 0, "aggs": {"words": {**_words(field, size), "aggs": aggs}}}


def _words(field: str, size: int) -> dict[str, Any]:
    return {"terms": {"field": field, "size": size}}


def _made(name: str, expression: str) -> dict[str, str]:
    return {"calculate": expression, "as": name}


def _told(field: str, title: str, number: str | None = None) -> dict[str, str]:
    if number is None:
        return {"field": field, "type": "nominal", "title": title}
    return {"field": field, "type": "quantitative", "title": title, "format": number}


def _number(field: str, title: str, number: str = ".2f") -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "axis": {"format": number, "tickCount": 8}}


def _placed(name: str, by: str, word: str) -> Spec:
    """Rank tokens by a field, largest first; ties by token, so that both axes have the same order."""
    order = [{"field": by, "order": "descending"}, {"field": word, "order": "ascending"}]
    return {"window": [{"op": "dense_rank", "as": name}], "sort": order}


def _ordered(field: str, by: str, axis: Mapping[str, Any], order: str = "ascending") -> dict[str, Any]:
    return {
        "field": field,
        "type": "nominal",
        "sort": {"field": by, "op": "min", "order": order},
        "title": None,
        "axis": dict(axis),
    }


def _tail(longest: int) -> str:
    """Build an expression that keeps the end of a long label, where labels differ."""
    return f"length(datum.label) > {longest} ? '…' + slice(datum.label, {1 - longest}) : datum.label"


def _shade(field: str, title: str, number: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"range": [_FAINTEST, 1], "domainMin": 0},
        "legend": {"format": number, "symbolType": "square", "symbolFillColor": _BAR, "symbolStrokeWidth": 0, "symbolSize": 200},
    }
