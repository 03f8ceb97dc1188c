"""A sizing plan as readable lines: each number with its origin. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from stair_es.sizing.estimate import (
    BARE_BYTES,
    CORE_SHARE,
    DISK_SHARE,
    HOT_BYTES,
    MAX_SHARDS,
    QUERY_FLOOR_MS,
    THUMBNAIL_BYTES,
    SizingEstimate,
    SizingInputs,
    estimate_resources,
)

HOURS_PER_MONTH = 730
GIVEN = "given"
_MIN_SHOWN = 0.001

DEFAULT_ORIGINS: Mapping[str, str] = {
    "encoder_images_per_s": "measured: stair-mini on two CPU cores, benchmarks/ingest.py",
    "encoders": "assumed",
    "node_docs_per_s": "measured: one node and its client on two cores, benchmarks/sink.py",
    "bytes_per_document": f"measured: {BARE_BYTES} and a thumbnail of {THUMBNAIL_BYTES:,}, benchmarks/query_bytes.py",
    "shard_gb": "assumed; the engines' guides say 10 to 50",
    "shard_images": "assumed, to bound the time of a search",
    "replicas": "assumed: one copy that may be lost",
    "rebuild": "assumed: another model or mapping is a new index next to the old one",
    "node_disk_gb": "assumed",
    "node_memory_gb": "assumed",
    "node_cores": "assumed",
    "queries_per_s": "assumed",
    "query_kind": "assumed",
    "query_ms": "measured: a million images of 20 tokens in a shard, benchmarks/query.py",
}
"""Origin of each default."""


@dataclass(frozen=True)
class SizingFigure:
    """A number and its origin."""

    name: str
    label: str
    value: float
    text: str
    """The value for display, with its unit."""
    origin: str


@dataclass(frozen=True, kw_only=True)
class SizingPlan:
    """Inputs, results and remarks."""

    inputs: tuple[SizingFigure, ...]
    results: tuple[SizingFigure, ...]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON."""

        def serialize_figures(figures: tuple[SizingFigure, ...]) -> dict[str, Any]:
            return {figure.name: {"value": figure.value, "text": figure.text, "origin": figure.origin} for figure in figures}

        return {"inputs": serialize_figures(self.inputs), "plan": serialize_figures(self.results), "remarks": list(self.remarks)}


def make_sizing_plan(inputs: SizingInputs, given_names: Collection[str] = ()) -> SizingPlan:
    """Make the plan. Inputs not in `given_names` are defaults, shown with their origin."""
    estimate = estimate_resources(inputs)
    return SizingPlan(
        inputs=_list_inputs(inputs, given_names), results=_list_results(inputs, estimate), remarks=_list_remarks(inputs, estimate)
    )


_LABELS: Mapping[str, tuple[str, str]] = {
    "images": ("images", ""),
    "encoder_images_per_s": ("encoder throughput", "images/s"),
    "encoders": ("encoders", ""),
    "node_docs_per_s": ("node throughput", "documents/s"),
    "bytes_per_document": ("document size", "bytes"),
    "shard_gb": ("maximum shard size", "GB"),
    "shard_images": ("maximum per shard", "images"),
    "replicas": ("replicas", ""),
    "rebuild": ("room for a second index", ""),
    "node_disk_gb": ("disk per node", "GB"),
    "node_memory_gb": ("memory per node", "GB"),
    "node_cores": ("cores per node", ""),
    "queries_per_s": ("queries", "per second"),
    "query_ms": ("query, 1 million images", "ms of one core"),
    "node_price_per_hour": ("price of a node", "per hour"),
    "encoder_price_per_hour": ("price of an encoder", "per hour"),
}


def _list_inputs(inputs: SizingInputs, given_names: Collection[str]) -> tuple[SizingFigure, ...]:
    listed = []
    for field in fields(inputs):
        value = inputs.core_ms if field.name == "query_ms" else getattr(inputs, field.name)
        if value is None or field.name == "query_kind":  # a price that isn't given; `query_kind` only selects `query_ms`
            continue
        label, unit = _LABELS[field.name]
        text = ("yes" if value else "no") if isinstance(value, bool) else f"{_format_number(value)} {unit}".rstrip()
        origin = GIVEN if field.name in {"images", *given_names} else DEFAULT_ORIGINS[field.name]
        if field.name == "query_ms" and origin != GIVEN:
            origin = f"{origin} ({'a text of 10 tokens' if inputs.query_kind == 'text' else 'an image'})"
        listed.append(SizingFigure(field.name, label, value, text, origin))
    return tuple(listed)


def _list_results(inputs: SizingInputs, estimate: SizingEstimate) -> tuple[SizingFigure, ...]:
    return (*_list_cluster(inputs, estimate), *_list_load(inputs, estimate), *_list_prices(inputs, estimate))


def _list_cluster(inputs: SizingInputs, estimate: SizingEstimate) -> Iterator[SizingFigure]:
    def make_figure(name: str, label: str, value: float, unit: str, origin: str) -> SizingFigure:
        return SizingFigure(name, label, value, f"{_format_number(value)} {unit}".rstrip(), origin)

    copies, indices = 1 + inputs.replicas, 1 + inputs.rebuild
    gb_each, images_each = estimate.primary_gb / estimate.shards, math.ceil(inputs.images / estimate.shards)
    disk_origin = f"{copies} {'copies' if copies > 1 else 'copy'} x {indices} {'indices' if indices > 1 else 'index'}"
    cache_origin = f"{HOT_BYTES} bytes of postings and terms per document and copy: measured, benchmarks/query_bytes.py"
    query_origin = f"grows with the images of the shard: an upper bound; at least {QUERY_FLOOR_MS} ms"
    cores_origin = f"queries per second x shards x ms per shard, cores {CORE_SHARE:.0%} busy"
    demands = (
        f"disk {estimate.nodes_by_disk:,}, memory {estimate.nodes_by_memory:,}, cores {estimate.nodes_by_cores:,},"
        f" copies {copies:,}"
    )
    yield make_figure("primary_gb", "documents", estimate.primary_gb, "GB", "images x bytes per document")
    spread_note = "; at least one per node" if estimate.shards > estimate.shards_by_size else ""
    yield make_figure(
        "shards", "primary shards", estimate.shards, "", f"{_format_number(gb_each)} GB, {images_each:,} images each{spread_note}"
    )
    yield make_figure("stored_gb", "total disk", estimate.stored_gb, "GB", f"documents x {disk_origin}")
    yield make_figure("hot_gb", "total page cache", estimate.hot_gb, "GB", cache_origin)
    yield make_figure(
        "heap_gb", "heap per node", estimate.heap_gb, "GB", "half of the memory, at most 31 GB: the engines' guides"
    )
    yield make_figure("shard_ms", "query in one shard", estimate.shard_ms, "ms", query_origin)
    yield make_figure("cores", "cores for queries", estimate.cores, "", cores_origin)
    yield make_figure("nodes", "nodes", estimate.nodes, "", f"the maximum of {demands}; disks {DISK_SHARE:.0%} full")


def _list_load(inputs: SizingInputs, estimate: SizingEstimate) -> Iterator[SizingFigure]:
    hours = max(estimate.encode_h, estimate.write_h)
    encoders = max(1, math.ceil(inputs.images / inputs.encoder_images_per_s / 86_400))
    encoders_origin = "images / 86,400 s / images/s per encoder"
    write_origin = "images x copies / throughput of all nodes, if it scales linearly; concurrent with encoding"
    yield SizingFigure(
        "encode_hours", "encoding", estimate.encode_h, _format_hours(estimate.encode_h), "images / images/s of all encoders"
    )
    yield SizingFigure("encoders_a_day", "encoders for one day", encoders, _format_number(encoders), encoders_origin)
    yield SizingFigure("write_hours", "writing", estimate.write_h, _format_hours(estimate.write_h), write_origin)
    yield SizingFigure("load_hours", "first load", hours, _format_hours(hours), "the longer of the two")


def _list_prices(inputs: SizingInputs, estimate: SizingEstimate) -> Iterator[SizingFigure]:
    if inputs.encoder_price_per_hour is not None:
        cost = estimate.encode_h * inputs.encoders * inputs.encoder_price_per_hour
        yield SizingFigure("encode_cost", "price of encoding", cost, _format_number(cost), "hours x encoders x the given price")
    if inputs.node_price_per_hour is not None:
        cost = estimate.nodes * inputs.node_price_per_hour * HOURS_PER_MONTH
        yield SizingFigure(
            "month_cost", "price per month", cost, _format_number(cost), f"nodes x {HOURS_PER_MONTH} hours x the given price"
        )


def _list_remarks(inputs: SizingInputs, estimate: SizingEstimate) -> tuple[str, ...]:
    remarks = []
    if estimate.shards > MAX_SHARDS:
        remarks.append(
            f"an index can have at most {MAX_SHARDS:,} shards by default: split the images across several, or use larger shards"
        )
    if inputs.replicas == 0:
        remarks.append("without replicas, the loss of any node loses images: set --replicas 1")
    if estimate.nodes < 3:
        remarks.append("a cluster survives the loss of a node only if it has at least three, and a replica of each shard")
    if estimate.write_h > estimate.encode_h > 0:
        remarks.append(
            "writing takes longer than encoding: set the replicas to 0 for the first load (--no-replicas-while-building)"
        )
    return tuple(remarks)


def _format_number(value: float) -> str:
    """Format a number with three significant digits, without needless decimals."""
    if value == round(value):
        return f"{round(value):,}"
    if value < _MIN_SHOWN:
        return f"under {_MIN_SHOWN}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _format_hours(hours: float) -> str:
    if hours < 1:
        return f"{_format_number(60 * hours)} min"
    return f"{_format_number(hours)} h" if hours < 100 else f"{_format_number(hours)} h ({_format_number(hours / 24)} days)"
