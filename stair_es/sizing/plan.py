"""A sizing plan as readable lines: each number with its origin. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

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
_LEAST = 0.001

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


@dataclass(frozen=True, kw_only=True)
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
            return {each.name: {"value": each.value, "text": each.text, "origin": each.origin} for each in figures}

        return {"inputs": serialize_figures(self.inputs), "plan": serialize_figures(self.results), "remarks": list(self.remarks)}


def make_sizing_plan(given: SizingInputs, named: Collection[str] = ()) -> SizingPlan:
    """Make the plan for the images.

    Args:
        given: All inputs.
        named: Names of the inputs that the user gave; the others are defaults, shown with their origin.
    """
    needs = estimate_resources(given)
    return SizingPlan(inputs=_list_inputs(given, named), results=_list_results(given, needs), remarks=_list_remarks(given, needs))


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


def _list_inputs(given: SizingInputs, named: Collection[str]) -> tuple[SizingFigure, ...]:
    listed = []
    for each in fields(given):
        value = given.core_ms if each.name == "query_ms" else getattr(given, each.name)
        if value is None or each.name == "query_kind":  # a price that isn't given; `query_kind` only selects `query_ms`
            continue
        label, unit = _LABELS[each.name]
        text = ("yes" if value else "no") if isinstance(value, bool) else f"{_format_number(value)} {unit}".rstrip()
        origin = GIVEN if each.name in {"images", *named} else DEFAULT_ORIGINS[each.name]
        if each.name == "query_ms" and origin != GIVEN:
            origin = f"{origin} ({'a text of 10 tokens' if given.query_kind == 'text' else 'an image'})"
        listed.append(SizingFigure(name=each.name, label=label, value=value, text=text, origin=origin))
    return tuple(listed)


_Row: TypeAlias = tuple[str, str, float, str, str]
"""Arguments of a `SizingFigure`."""


def _list_results(given: SizingInputs, needs: SizingEstimate) -> tuple[SizingFigure, ...]:
    rows = (*_list_cluster(given, needs), *_list_load(given, needs), *_list_prices(given, needs))
    return tuple(
        SizingFigure(name=name, label=label, value=value, text=text, origin=origin) for name, label, value, text, origin in rows
    )


def _list_cluster(given: SizingInputs, needs: SizingEstimate) -> Iterator[_Row]:
    def make_row(name: str, label: str, value: float, unit: str, origin: str) -> _Row:
        return name, label, value, f"{_format_number(value)} {unit}".rstrip(), origin

    copies, indices = 1 + given.replicas, 1 + given.rebuild
    gb_each, images_each = needs.primary_gb / needs.shards, math.ceil(given.images / needs.shards)
    stored_as = f"{copies} {'copies' if copies > 1 else 'copy'} x {indices} {'indices' if indices > 1 else 'index'}"
    read = f"{HOT_BYTES} bytes of postings and terms per document and copy: measured, benchmarks/query_bytes.py"
    bound = f"grows with the images of the shard: an upper bound; at least {QUERY_FLOOR_MS} ms"
    busy = f"queries per second x shards x ms per shard, cores {CORE_SHARE:.0%} busy"
    decisive = {"disk": needs.nodes_by_disk, "memory": needs.nodes_by_memory, "cores": needs.nodes_by_cores, "copies": copies}
    most = ", ".join(f"{name} {count:,}" for name, count in decisive.items())
    yield make_row("primary_gb", "documents", needs.primary_gb, "GB", "images x bytes per document")
    spread = "; at least one per node" if needs.shards > needs.shards_by_size else ""
    yield make_row(
        "shards", "primary shards", needs.shards, "", f"{_format_number(gb_each)} GB, {images_each:,} images each{spread}"
    )
    yield make_row("stored_gb", "total disk", needs.stored_gb, "GB", f"documents x {stored_as}")
    yield make_row("hot_gb", "total page cache", needs.hot_gb, "GB", read)
    yield make_row("heap_gb", "heap per node", needs.heap_gb, "GB", "half of the memory, at most 31 GB: the engines' guides")
    yield make_row("shard_ms", "query in one shard", needs.shard_ms, "ms", bound)
    yield make_row("cores", "cores for queries", needs.cores, "", busy)
    yield make_row("nodes", "nodes", needs.nodes, "", f"the maximum of {most}; disks {DISK_SHARE:.0%} full")


def _list_load(given: SizingInputs, needs: SizingEstimate) -> Iterator[_Row]:
    hours = max(needs.encode_h, needs.write_h)
    in_a_day = max(1, math.ceil(given.images / given.encoder_images_per_s / 86_400))
    per_day = "images / 86,400 s / images/s per encoder"
    written = "images x copies / throughput of all nodes, if it scales linearly; concurrent with encoding"
    yield "encode_hours", "encoding", needs.encode_h, _format_hours(needs.encode_h), "images / images/s of all encoders"
    yield "encoders_a_day", "encoders for one day", in_a_day, _format_number(in_a_day), per_day
    yield "write_hours", "writing", needs.write_h, _format_hours(needs.write_h), written
    yield "load_hours", "first load", hours, _format_hours(hours), "the longer of the two"


def _list_prices(given: SizingInputs, needs: SizingEstimate) -> Iterator[_Row]:
    if given.encoder_price_per_hour is not None:
        cost = needs.encode_h * given.encoders * given.encoder_price_per_hour
        yield "encode_cost", "price of encoding", cost, _format_number(cost), "hours x encoders x the given price"
    if given.node_price_per_hour is not None:
        cost = needs.nodes * given.node_price_per_hour * HOURS_PER_MONTH
        yield "month_cost", "price per month", cost, _format_number(cost), f"nodes x {HOURS_PER_MONTH} hours x the given price"


def _list_remarks(given: SizingInputs, needs: SizingEstimate) -> tuple[str, ...]:
    remarks = []
    if needs.shards > MAX_SHARDS:
        remarks.append(
            f"an index can have at most {MAX_SHARDS:,} shards by default: split the images across several, or use larger shards"
        )
    if given.replicas == 0:
        remarks.append("without replicas, the loss of any node loses images: set --replicas 1")
    if needs.nodes < 3:
        remarks.append("a cluster survives the loss of a node only if it has at least three, and a replica of each shard")
    if needs.write_h > needs.encode_h > 0:
        remarks.append(
            "writing takes longer than encoding: set the replicas to 0 for the first load (--no-replicas-while-building)"
        )
    return tuple(remarks)


def _format_number(value: float) -> str:
    """Format a number with three significant digits, without needless decimals."""
    if value == round(value):
        return f"{round(value):,}"
    if value < _LEAST:
        return f"under {_LEAST}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _format_hours(hours: float) -> str:
    if hours < 1:
        return f"{_format_number(60 * hours)} min"
    return f"{_format_number(hours)} h" if hours < 100 else f"{_format_number(hours)} h ({_format_number(hours / 24)} days)"
