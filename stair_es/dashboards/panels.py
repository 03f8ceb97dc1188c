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
    spec: DashboardSpec

    @property
    def image_pattern(self) -> str:
        return self.spec.build_id("images")

    @property
    def token_pattern(self) -> str:
        return self.spec.build_id("tokens")

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
        visualization = build_visualization(self.spec.build_id(kind), self.spec.build_title(title), state, pattern, query=query)
        return Panel(saved_object=visualization, title=title, size=size)

    def build_vega_chart(self, kind: str, title: str, spec: vega.VegaSpec, size: PanelSize = _HALF) -> Panel:
        return self.build_chart(kind, title, vega.build_vega_state(spec), size=size)

    def build_table(
        self, kind: str, title: str, columns: list[str], sort: tuple[str, str], *, query: str = "", size: PanelSize = _HALF
    ) -> Panel:
        """Build a table of the token index if it has the sort field, otherwise of the main index."""
        pattern = self.image_pattern if sort[0] == "ingested_at" else self.token_pattern
        saved_search = build_saved_search(
            self.spec.build_id(kind), self.spec.build_title(title), pattern, columns, sort, query=query
        )
        return Panel(saved_object=saved_search, title=title, size=size)


def build_panels(spec: DashboardSpec, product: Product) -> list[Panel]:
    """Build all panels that can have data."""
    builder = _PanelBuilder(spec=spec)
    panels = [*_build_head_panels(builder, product), *_build_token_panels(builder)]
    if spec.has_token_index:
        panels += _build_weight_panels(builder)
    panels += _build_image_panels(builder)
    return panels + list(_build_quality_panels(builder))


def build_about_text(spec: DashboardSpec) -> str:
    """Return the text at the top of the dashboard, in Markdown."""
    lines = [
        f"### The words of `{spec.name}`",
        "Each image has a few dozen weighted words; these are the heaviest of each. Select a word, an image or a source in the "
        "controls, or click a bar, to filter all panels.",
    ]
    if not spec.has_token_index:
        lines.append(
            f"Weights are missing: run `stair-es ingest ... --index {spec.name} --token-index` to create the index "
            f"`{spec.token_index_name}`, then publish again."
        )
    elif spec.token_field != "top_tokens":
        lines.append("Filtering by a word empties the panels about weights: in the token index that field has another name.")
    return "\n\n".join(lines)


def _build_head_panels(builder: _PanelBuilder, product: Product) -> Iterator[Panel]:
    aggs = [charts.build_count_agg("Images"), charts.build_metric_agg("cardinality", "top_tokens", "Different words", "2")]
    if product == "kibana":  # its controls are above the panels
        yield builder.build_chart("about", "About", charts.build_markdown_text(build_about_text(builder.spec)), size=(30, 7))
        yield builder.build_chart("numbers", "In numbers", charts.build_metric_numbers(aggs), builder.image_pattern, size=(18, 7))
        return
    yield builder.build_chart("about", "About", charts.build_markdown_text(build_about_text(builder.spec)), size=(16, 11))
    controls = build_control_panel(
        builder.spec.build_id("controls"),
        builder.spec.build_title("Choose"),
        list_controls(builder.spec),
        pattern=builder.image_pattern,
    )
    yield Panel(saved_object=controls, title="Choose", size=(20, 11))
    yield builder.build_chart("numbers", "In numbers", charts.build_metric_numbers(aggs), builder.image_pattern, size=(12, 11))


def _build_token_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec, pattern = builder.spec, builder.image_pattern
    images = charts.build_count_agg("Images")
    yield builder.build_chart(
        "cloud",
        "Most frequent words",
        charts.build_tag_cloud([images, charts.build_terms_agg("top_tokens", 40, "Word", "segment")]),
        pattern,
    )
    yield builder.build_chart(
        "bars",
        "Most frequent words, counted",
        charts.build_bar_chart([images, charts.build_terms_agg("top_tokens", 20, "Word", "segment")]),
        pattern,
    )
    yield builder.build_vega_chart("together", "Words that occur together", vega.build_cooccurrence_chart(spec), size=_TALL)
    yield builder.build_vega_chart("by-source", "Words by source", vega.build_source_heatmap(spec), size=_TALL)
    label = _TIME_LABELS[spec.time_field]
    first_words = charts.build_terms_agg("top_tokens", 8, "Word", "group")
    over_time = charts.build_bar_chart(
        [images, first_words, charts.build_date_agg(spec.time_field, spec.interval, label, "3")], upright=True, stacked=True
    )
    colours_width = _COLOURS[0] if spec.colours else 0
    size = (GRID_COLUMNS - colours_width, _WIDE[1])
    yield builder.build_chart("over-time", f"Words over time ({label})", over_time, pattern, size=size)
    if spec.colours:
        colours = charts.build_bar_chart([images, charts.build_terms_agg("colours", 12, "Colour", "segment")])
        yield builder.build_chart("colours", "Colours of the images", colours, pattern, size=_COLOURS)


def _build_weight_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec, pattern = builder.spec, builder.token_pattern
    images = charts.build_count_agg("Images")
    yield builder.build_vega_chart("average-weight", "Average weight by word", vega.build_average_weight_chart(spec), size=_TALL)
    numbers = [
        images,
        charts.build_metric_agg("avg", "weight", "Average weight", "3"),
        charts.build_metric_agg("max", "weight", "Largest weight", "4"),
        charts.build_metric_agg("avg", "weight_share", "Average share of an image", "5"),
        charts.build_terms_agg(spec.token_field, 100, "Word", "bucket"),
    ]
    yield builder.build_chart("in-numbers", "Words in numbers", charts.build_data_table(numbers, 15), pattern, size=_TALL)
    weights = [charts.build_count_agg("Words of images"), charts.build_histogram_agg("weight", 40, "Weight")]
    yield builder.build_chart("distribution", "Weight distribution", charts.build_bar_chart(weights, upright=True), pattern)
    yield builder.build_vega_chart("one-image", "Weights of one image (choose it under Image)", vega.build_image_chart(spec))


def _build_image_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec = builder.spec
    optional_columns = (["thumbnail"] if spec.thumbnails else [], ["caption"] if spec.captions else [])
    columns = [*optional_columns[0], "top_tokens", *optional_columns[1], "uri"]
    yield builder.build_table(
        "found", "Images that the chosen words find", columns, ("ingested_at", "desc"), size=(GRID_COLUMNS, 22)
    )
    if spec.has_token_index:
        columns = ["token", "weight", "weight_share", "rank", "uri"]
        hint = "choose it under Word" if spec.token_field == "top_tokens" else "filter by `token`"
        title = f"Images by the weight of a word ({hint})"
        yield builder.build_table("by-weight", title, columns, ("weight", "desc"), size=_WIDE)


def _build_quality_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    if builder.spec.has_token_index:
        query = "rank:1"  # once per image
        counts = [charts.build_count_agg("Images"), charts.build_histogram_agg("token_count", 40, "Words of an image")]
        state = charts.build_bar_chart(counts, upright=True)
        yield builder.build_chart(
            "tokens-per-image", "Quality: how many words images have", state, builder.token_pattern, query=query
        )
        yield builder.build_table(
            "few-tokens",
            "Quality: images with few words",
            ["token_count", "token", "weight", "uri"],
            ("token_count", "asc"),
            query=query,
        )
        title = "Quality: images that one word dominates"
        columns = ["weight_share", "token", "weight", "token_count", "uri"]
        yield builder.build_table("dominated", title, columns, ("weight_share", "desc"), query=query)
    columns = ["thumbnail", "uri"] if builder.spec.thumbnails else ["uri"]
    yield builder.build_table(
        "wordless", "Quality: images without any word", columns, ("ingested_at", "desc"), query="NOT top_tokens:*"
    )
