"""The panels of the dashboard, in reading order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from stair_es.dashboards import charts, vega
from stair_es.dashboards.controls import build_control_panel, list_controls
from stair_es.dashboards.index_info import DashboardSpec, Product, list_constant_panels
from stair_es.dashboards.saved_objects import SavedObject, build_saved_search, build_visualization

PanelSize: TypeAlias = "tuple[int, int]"

GRID_COLUMNS = 48
"""Columns of the grid."""
_HALF: PanelSize = (24, 15)
_TALL: PanelSize = (24, 20)
_WIDE: PanelSize = (48, 15)
_ABOUT: PanelSize = (36, 12)
_NUMBERS: PanelSize = (12, 12)
_CONTROLS: PanelSize = (48, 8)
"""A separate row: each control is at least 250 pixels wide, so four fit in a row of a screen with 1280, and two rows are high
enough."""
_COLORS: PanelSize = (16, 15)
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
        pattern, id_field = (self.image_pattern, "_id") if sort[0] == "ingested_at" else (self.token_pattern, "image_id")
        if self.spec.page_url is not None:
            columns = [*columns, id_field]  # which is shown as a link
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
        "Each image has a few dozen weighted words; these are the heaviest of each (`top_tokens` in tables). Select a word, an "
        "image or a source in the controls, or click a bar, to filter all panels. The time picker has no effect here.",
        "Charts leave out pieces of words, like `##ing`, and single letters; tables have them.",
    ]
    lines += (f"No panel *{title}*: {reason}." for title, reason in list_constant_panels(spec))
    if not spec.has_token_index:
        lines.append(
            f"Weights are missing: run `stair-es ingest ... --index {spec.name} --token-index` to create the index "
            f"`{spec.token_index_name}`, then publish again."
        )
    elif spec.token_field == "top_tokens":
        lines.append(
            "With a word chosen, panels about weights show only this word of each image. A click on a bar of *Weight "
            "distribution* or *how many words images have* filters these panels, and empties those about images."
        )
    else:
        lines.append("Filtering by a word empties the panels about weights: in the token index that field has another name.")
    return "\n\n".join(lines)


def _build_head_panels(builder: _PanelBuilder, product: Product) -> Iterator[Panel]:
    aggs = [charts.build_count_agg("Images"), charts.build_metric_agg("cardinality", "top_tokens", "Different words", "2")]
    yield builder.build_chart("about", "About", charts.build_markdown_text(build_about_text(builder.spec)), size=_ABOUT)
    yield builder.build_chart("numbers", "In numbers", charts.build_metric_numbers(aggs), builder.image_pattern, size=_NUMBERS)
    if product == "kibana":  # its controls are above the panels
        return
    controls = build_control_panel(
        builder.spec.build_id("controls"),
        builder.spec.build_title("Choose"),
        list_controls(builder.spec),
        pattern=builder.image_pattern,
    )
    yield Panel(saved_object=controls, title="Choose", size=_CONTROLS)


def _build_token_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec, pattern = builder.spec, builder.image_pattern
    images = charts.build_count_agg("Images")
    yield builder.build_chart(
        "cloud",
        "Most frequent words",
        charts.build_tag_cloud([images, charts.build_terms_agg("top_tokens", 40, "Word", "segment", vega.PIECES)]),
        pattern,
    )
    yield builder.build_chart(
        "bars",
        "Most frequent words, counted",
        charts.build_bar_chart([images, charts.build_terms_agg("top_tokens", 20, "Word", "segment", vega.PIECES)]),
        pattern,
    )
    yield builder.build_vega_chart("together", "Words that occur together", vega.build_cooccurrence_chart(spec), size=_TALL)
    yield builder.build_vega_chart("by-source", "Words by source", vega.build_source_heatmap(spec), size=_TALL)
    if spec.interval is not None:
        label = _TIME_LABELS[spec.time_field]
        first_words = charts.build_terms_agg("top_tokens", 8, "Word", "group", vega.PIECES)
        over_time = charts.build_bar_chart(
            [images, first_words, charts.build_date_agg(spec.time_field, spec.interval, label, "3")], upright=True, stacked=True
        )
        colors_width = _COLORS[0] if spec.colors else 0
        size = (GRID_COLUMNS - colors_width, _WIDE[1])
        yield builder.build_chart("over-time", f"Words over time ({label})", over_time, pattern, size=size)
    if spec.colors:
        colors = charts.build_bar_chart([images, charts.build_terms_agg("colors", 12, "Color", "segment")])
        yield builder.build_chart("colors", "Colors of the images", colors, pattern, size=_COLORS)


def _build_weight_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec, pattern = builder.spec, builder.token_pattern
    images = charts.build_count_agg("Images")
    yield builder.build_vega_chart("average-weight", "Average weight by word", vega.build_average_weight_chart(spec), size=_TALL)
    numbers = [
        images,
        charts.build_metric_agg("avg", "weight", "Mean weight", "3"),
        charts.build_metric_agg("max", "weight", "Max weight", "4"),
        charts.build_metric_agg("avg", "weight_share", "Mean share", "5"),
        charts.build_terms_agg(spec.token_field, 100, "Word", "bucket"),
    ]
    yield builder.build_chart("in-numbers", "Words in numbers", charts.build_data_table(numbers, 15), pattern, size=_TALL)
    weights = [charts.build_count_agg("Words of images"), charts.build_range_agg("weight", spec.largest_weight, "Weight")]
    yield builder.build_chart("distribution", "Weight distribution", charts.build_bar_chart(weights, upright=True), pattern)
    yield builder.build_vega_chart(
        "one-image", "Weights of one image (choose it under Image, and no word)", vega.build_image_chart(spec)
    )


def _build_image_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec = builder.spec
    optional_columns = (["thumbnail"] if spec.thumbnails else [], ["caption"] if spec.captions else [])
    names = list(dict.fromkeys([spec.name_field, "uri"]))
    columns = [*optional_columns[0], *names[:-1], "top_tokens", *optional_columns[1], names[-1]]
    yield builder.build_table(
        "found", "Images that the chosen words find", columns, ("ingested_at", "desc"), size=(GRID_COLUMNS, 22)
    )
    if spec.has_token_index:
        columns = ["token", "weight", "weight_share", "rank", spec.name_field]
        hint = "choose it under Word" if spec.token_field == "top_tokens" else "filter by `token`"
        title = f"Images by the weight of a word ({hint})"
        yield builder.build_table("by-weight", title, columns, ("weight", "desc"), size=_WIDE)


def _build_quality_panels(builder: _PanelBuilder) -> Iterator[Panel]:
    spec = builder.spec
    if spec.has_token_index:
        if spec.token_counts[0] < spec.token_counts[1]:
            # Counts images rather than documents of rank 1, which a filter by another of an image's words would exclude.
            counts = [
                charts.build_metric_agg("cardinality", "image_id", "Images", "1"),
                charts.build_histogram_agg("token_count", spec.token_counts[1], "Words of an image"),
            ]
            state = charts.build_bar_chart(counts, upright=True)
            yield builder.build_chart("tokens-per-image", "Quality: how many words images have", state, builder.token_pattern)
        query, hint = "rank:1", "with a word chosen: where it is the heaviest"  # once per image
        yield builder.build_table(
            "few-tokens",
            f"Quality: images with few words ({hint})",
            ["token_count", "token", "weight", spec.name_field],
            ("token_count", "asc"),
            query=query,
        )
        title = f"Quality: images that one word dominates ({hint})"
        columns = ["weight_share", "token", "weight", "token_count", spec.name_field]
        yield builder.build_table("dominated", title, columns, ("weight_share", "desc"), query=query)
    columns = [*(["thumbnail"] if spec.thumbnails else []), spec.name_field]
    yield builder.build_table(
        "wordless", "Quality: images without any word", columns, ("ingested_at", "desc"), query="NOT top_tokens:*"
    )
