"""The panels of the dashboard, in reading order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from stair_es.dashboards import charts, vega
from stair_es.dashboards.controls import build_control_panel, list_controls
from stair_es.dashboards.index_info import DashboardSpec, Product
from stair_es.dashboards.saved_objects import SavedObject, build_saved_search, build_visualization

PanelSize: TypeAlias = "tuple[int, int]"

GRID_COLUMNS = 48
"""Columns of the grid."""
_HALF: PanelSize = (24, 15)
_TALL: PanelSize = (24, 20)
_WIDE: PanelSize = (48, 15)
_COLOURS: PanelSize = (16, 15)
_TIME_LABELS = {"taken_at": "taken", "ingested_at": "ingested"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A saved object on the dashboard."""

    saved_object: SavedObject
    title: str
    """Shown above the panel."""
    size: PanelSize
    """Columns and rows on the grid."""


@dataclass(frozen=True, kw_only=True)
class _PanelBuilder:
    corpus: DashboardSpec

    @property
    def image_pattern(self) -> str:
        return self.corpus.build_id("images")

    @property
    def token_pattern(self) -> str:
        return self.corpus.build_id("tokens")

    def build_chart(
        self,
        kind: str,
        title: str,
        state: charts.VisState,
        pattern: str | None = None,
        *,
        query: str = "",
        size: PanelSize = _HALF,
    ) -> Panel:
        made = build_visualization(self.corpus.build_id(kind), self.corpus.build_title(title), state, pattern, query=query)
        return Panel(saved_object=made, title=title, size=size)

    def build_vega_chart(self, kind: str, title: str, spec: vega.VegaSpec, size: PanelSize = _HALF) -> Panel:
        return self.build_chart(kind, title, vega.build_vega_state(spec), size=size)

    def build_table(
        self, kind: str, title: str, columns: list[str], sort: tuple[str, str], *, query: str = "", size: PanelSize = _HALF
    ) -> Panel:
        """Build a table of the token index if it has the sort field, otherwise of the main index."""
        pattern = self.image_pattern if sort[0] == "ingested_at" else self.token_pattern
        made = build_saved_search(self.corpus.build_id(kind), self.corpus.build_title(title), pattern, columns, sort, query=query)
        return Panel(saved_object=made, title=title, size=size)


def build_panels(corpus: DashboardSpec, product: Product) -> list[Panel]:
    """Build all panels that can have data."""
    build = _PanelBuilder(corpus=corpus)
    made = [*_build_head_panels(build, product), *_build_token_panels(build)]
    if corpus.has_token_index:
        made += _build_weight_panels(build)
    made += _build_image_panels(build)
    return made + list(_build_quality_panels(build))


def build_about_text(corpus: DashboardSpec) -> str:
    """Return the text at the top of the dashboard, in Markdown."""
    lines = [
        f"### The words of `{corpus.name}`",
        "Each image has a few dozen weighted words; these are the heaviest of each. Select a word, an image or a source in the "
        "controls, or click a bar, to filter all panels.",
    ]
    if not corpus.has_token_index:
        lines.append(
            f"Weights are missing: run `stair-es ingest ... --index {corpus.name} --token-index` to create the index "
            f"`{corpus.token_index_name}`, then publish again."
        )
    elif corpus.token_field != "top_tokens":
        lines.append("Filtering by a word empties the panels about weights: in the token index that field has another name.")
    return "\n\n".join(lines)


def _build_head_panels(build: _PanelBuilder, product: Product) -> Iterator[Panel]:
    aggs = [charts.build_count_agg("Images"), charts.build_metric_agg("cardinality", "top_tokens", "Different words", "2")]
    if product == "kibana":  # its controls are above the panels
        yield build.build_chart("about", "About", charts.build_markdown_text(build_about_text(build.corpus)), size=(30, 7))
        yield build.build_chart("numbers", "In numbers", charts.build_metric_numbers(aggs), build.image_pattern, size=(18, 7))
        return
    yield build.build_chart("about", "About", charts.build_markdown_text(build_about_text(build.corpus)), size=(16, 11))
    made = build_control_panel(
        build.corpus.build_id("controls"),
        build.corpus.build_title("Choose"),
        list_controls(build.corpus),
        pattern=build.image_pattern,
    )
    yield Panel(saved_object=made, title="Choose", size=(20, 11))
    yield build.build_chart("numbers", "In numbers", charts.build_metric_numbers(aggs), build.image_pattern, size=(12, 11))


def _build_token_panels(build: _PanelBuilder) -> Iterator[Panel]:
    corpus, main = build.corpus, build.image_pattern
    images = charts.build_count_agg("Images")
    yield build.build_chart(
        "cloud",
        "Most frequent words",
        charts.build_tag_cloud([images, charts.build_terms_agg("top_tokens", 40, "Word", "segment")]),
        main,
    )
    yield build.build_chart(
        "bars",
        "Most frequent words, counted",
        charts.build_bar_chart([images, charts.build_terms_agg("top_tokens", 20, "Word", "segment")]),
        main,
    )
    yield build.build_vega_chart("together", "Words that occur together", vega.build_cooccurrence_chart(corpus), size=_TALL)
    yield build.build_vega_chart("by-source", "Words by source", vega.build_source_heatmap(corpus), size=_TALL)
    time = _TIME_LABELS[corpus.time_field]
    first_words = charts.build_terms_agg("top_tokens", 8, "Word", "group")
    over_time = charts.build_bar_chart(
        [images, first_words, charts.build_date_agg(corpus.time_field, corpus.interval, time, "3")], upright=True, stacked=True
    )
    beside = _COLOURS[0] if corpus.colours else 0
    size = (GRID_COLUMNS - beside, _WIDE[1])
    yield build.build_chart("over-time", f"Words over time ({time})", over_time, main, size=size)
    if corpus.colours:
        counts = charts.build_bar_chart([images, charts.build_terms_agg("colours", 12, "Colour", "segment")])
        yield build.build_chart("colours", "Colours of the images", counts, main, size=_COLOURS)


def _build_weight_panels(build: _PanelBuilder) -> Iterator[Panel]:
    corpus, words = build.corpus, build.token_pattern
    rows = charts.build_count_agg("Images")
    yield build.build_vega_chart("average-weight", "Average weight by word", vega.build_average_weight_chart(corpus), size=_TALL)
    numbers = [
        rows,
        charts.build_metric_agg("avg", "weight", "Average weight", "3"),
        charts.build_metric_agg("max", "weight", "Largest weight", "4"),
        charts.build_metric_agg("avg", "weight_share", "Average share of an image", "5"),
        charts.build_terms_agg(corpus.token_field, 100, "Word", "bucket"),
    ]
    yield build.build_chart("in-numbers", "Words in numbers", charts.build_data_table(numbers, 15), words, size=_TALL)
    weights = [charts.build_count_agg("Words of images"), charts.build_histogram_agg("weight", 40, "Weight")]
    yield build.build_chart("distribution", "Weight distribution", charts.build_bar_chart(weights, upright=True), words)
    yield build.build_vega_chart("one-image", "Weights of one image (choose it under Image)", vega.build_image_chart(corpus))


def _build_image_panels(build: _PanelBuilder) -> Iterator[Panel]:
    corpus = build.corpus
    optional = (["thumbnail"] if corpus.thumbnails else [], ["caption"] if corpus.captions else [])
    columns = [*optional[0], "top_tokens", *optional[1], "uri"]
    yield build.build_table(
        "found",
        "Images that the chosen words find",
        columns,
        ("ingested_at", "desc"),
        size=(GRID_COLUMNS, 22),
    )
    if corpus.has_token_index:
        columns = ["token", "weight", "weight_share", "rank", "uri"]
        where = "choose it under Word" if corpus.token_field == "top_tokens" else "filter by `token`"
        title = f"Images by the weight of a word ({where})"
        yield build.build_table("by-weight", title, columns, ("weight", "desc"), size=_WIDE)


def _build_quality_panels(build: _PanelBuilder) -> Iterator[Panel]:
    if build.corpus.has_token_index:
        first = "rank:1"  # once per image
        counts = [charts.build_count_agg("Images"), charts.build_histogram_agg("token_count", 40, "Words of an image")]
        state = charts.build_bar_chart(counts, upright=True)
        yield build.build_chart(
            "tokens-per-image", "Quality: how many words images have", state, build.token_pattern, query=first
        )
        yield build.build_table(
            "few-tokens",
            "Quality: images with few words",
            ["token_count", "token", "weight", "uri"],
            ("token_count", "asc"),
            query=first,
        )
        title = "Quality: images that one word dominates"
        columns = ["weight_share", "token", "weight", "token_count", "uri"]
        yield build.build_table("dominated", title, columns, ("weight_share", "desc"), query=first)
    columns = ["thumbnail", "uri"] if build.corpus.thumbnails else ["uri"]
    yield build.build_table(
        "wordless",
        "Quality: images without any word",
        columns,
        ("ingested_at", "desc"),
        query="NOT top_tokens:*",
    )
