"""The panels of the dashboard, in reading order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from stair_es.dashboards import charts, vega
from stair_es.dashboards.controls import control_panel, controls
from stair_es.dashboards.corpus import Corpus, Product
from stair_es.dashboards.objects import SavedObject, search, visualization

Size: TypeAlias = "tuple[int, int]"

FULL = 48
"""Columns of the grid."""
_HALF: Size = (24, 15)
_TALL: Size = (24, 20)
_WIDE: Size = (48, 15)
_COLOURS: Size = (16, 15)
_TIMES = {"taken_at": "taken", "ingested_at": "ingested"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A saved object on the dashboard."""

    made: SavedObject
    title: str
    """Shown above the panel."""
    size: Size
    """Columns and rows on the grid."""


@dataclass(frozen=True, kw_only=True)
class _Builder:
    corpus: Corpus

    @property
    def main(self) -> str:
        return self.corpus.id("images")

    @property
    def words(self) -> str:
        return self.corpus.id("words")

    def chart(
        self, kind: str, title: str, state: charts.State, pattern: str | None = None, *, query: str = "", size: Size = _HALF
    ) -> Panel:
        made = visualization(self.corpus.id(kind), self.corpus.title(title), state, pattern, query=query)
        return Panel(made=made, title=title, size=size)

    def vega(self, kind: str, title: str, spec: vega.Spec, size: Size = _HALF) -> Panel:
        return self.chart(kind, title, vega.state(spec), size=size)

    def table(
        self, kind: str, title: str, columns: list[str], sort: tuple[str, str], *, query: str = "", size: Size = _HALF
    ) -> Panel:
        """Build a table of the token index if it has the sort field, otherwise of the main index."""
        pattern = self.main if sort[0] == "ingested_at" else self.words
        made = search(self.corpus.id(kind), self.corpus.title(title), pattern, columns, sort, query=query)
        return Panel(made=made, title=title, size=size)


def panels(corpus: Corpus, product: Product) -> list[Panel]:
    """Build all panels that can have data."""
    build = _Builder(corpus=corpus)
    made = [*_head(build, product), *_words(build)]
    if corpus.companion:
        made += _weights(build)
    made += _images(build)
    return made + list(_quality(build))


def about(corpus: Corpus) -> str:
    """Return the text at the top of the dashboard, in Markdown."""
    lines = [
        f"### The words of `{corpus.name}`",
        "Each image is a handful of weighted words; these are the heaviest of each. Choose a word, an image or a source above "
        "or beside, or click on a bar, and every panel follows.",
    ]
    if not corpus.companion:
        lines.append(
            f"Weights are missing: `stair-es ingest ... --index {corpus.name} --words-index` makes the index "
            f"`{corpus.words_name}`, then publish again."
        )
    elif corpus.companion_word != "top_tokens":
        lines.append("A word chosen as a filter empties the panels about weights: this companion index has another name for it.")
    return "\n\n".join(lines)


def _head(build: _Builder, product: Product) -> Iterator[Panel]:
    aggs = [charts.count("Images"), charts.metric("cardinality", "top_tokens", "Different words", "2")]
    if product == "kibana":  # its controls are above the panels
        yield build.chart("about", "About", charts.markdown(about(build.corpus)), size=(30, 7))
        yield build.chart("numbers", "In numbers", charts.numbers(aggs), build.main, size=(18, 7))
        return
    yield build.chart("about", "About", charts.markdown(about(build.corpus)), size=(16, 11))
    made = control_panel(build.corpus.id("controls"), build.corpus.title("Choose"), controls(build.corpus), pattern=build.main)
    yield Panel(made=made, title="Choose", size=(20, 11))
    yield build.chart("numbers", "In numbers", charts.numbers(aggs), build.main, size=(12, 11))


def _words(build: _Builder) -> Iterator[Panel]:
    corpus, main = build.corpus, build.main
    images = charts.count("Images")
    yield build.chart(
        "cloud",
        "Most frequent words",
        charts.tag_cloud([images, charts.terms("top_tokens", 40, "Word", "segment")]),
        main,
    )
    yield build.chart(
        "bars",
        "Most frequent words, counted",
        charts.bars([images, charts.terms("top_tokens", 20, "Word", "segment")]),
        main,
    )
    yield build.vega("together", "Words that occur together", vega.together(corpus), size=_TALL)
    yield build.vega("by-source", "Words by source", vega.by_source(corpus), size=_TALL)
    time = _TIMES[corpus.time_field]
    first_words = charts.terms("top_tokens", 8, "Word", "group")
    over_time = charts.bars(
        [images, first_words, charts.dates(corpus.time_field, corpus.interval, time, "3")], upright=True, stacked=True
    )
    beside = _COLOURS[0] if corpus.colours else 0
    size = (FULL - beside, _WIDE[1])
    yield build.chart("over-time", f"Words over time ({time})", over_time, main, size=size)
    if corpus.colours:
        counts = charts.bars([images, charts.terms("colours", 12, "Colour", "segment")])
        yield build.chart("colours", "Colours of the images", counts, main, size=_COLOURS)


def _weights(build: _Builder) -> Iterator[Panel]:
    corpus, words = build.corpus, build.words
    rows = charts.count("Images")
    yield build.vega("average-weight", "Average weight by word", vega.average_weight(corpus), size=_TALL)
    numbers = [
        rows,
        charts.metric("avg", "weight", "Average weight", "3"),
        charts.metric("max", "weight", "Largest weight", "4"),
        charts.metric("avg", "share", "Average share of an image", "5"),
        charts.terms(corpus.companion_word, 100, "Word", "bucket"),
    ]
    yield build.chart("in-numbers", "Words in numbers", charts.table(numbers, 15), words, size=_TALL)
    weights = [charts.count("Words of images"), charts.histogram("weight", 40, "Weight")]
    yield build.chart("distribution", "Weight distribution", charts.bars(weights, upright=True), words)
    yield build.vega("one-image", "Weights of one image (choose it under Image)", vega.one_image(corpus))


def _images(build: _Builder) -> Iterator[Panel]:
    corpus = build.corpus
    optional = (["thumbnail"] if corpus.thumbnails else [], ["caption"] if corpus.captions else [])
    columns = [*optional[0], "top_tokens", *optional[1], "uri"]
    yield build.table(
        "found",
        "Images that the chosen words find",
        columns,
        ("ingested_at", "desc"),
        size=(FULL, 22),
    )
    if corpus.companion:
        columns = ["token", "weight", "share", "rank", "uri"]
        where = "choose it under Word" if corpus.companion_word == "top_tokens" else "filter by `token`"
        title = f"Images by the weight of a word ({where})"
        yield build.table("by-weight", title, columns, ("weight", "desc"), size=_WIDE)


def _quality(build: _Builder) -> Iterator[Panel]:
    if build.corpus.companion:
        first = "rank:1"  # once per image
        counts = [charts.count("Images"), charts.histogram("words", 40, "Words of an image")]
        state = charts.bars(counts, upright=True)
        yield build.chart("words-per-image", "Quality: how many words images have", state, build.words, query=first)
        yield build.table(
            "few-words", "Quality: images with few words", ["words", "token", "weight", "uri"], ("words", "asc"), query=first
        )
        title = "Quality: images that one word dominates"
        columns = ["share", "token", "weight", "words", "uri"]
        yield build.table("dominated", title, columns, ("share", "desc"), query=first)
    columns = ["thumbnail", "uri"] if build.corpus.thumbnails else ["uri"]
    yield build.table(
        "wordless",
        "Quality: images without any word",
        columns,
        ("ingested_at", "desc"),
        query="NOT top_tokens:*",
    )
