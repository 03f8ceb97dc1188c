"""Resource estimates for an index of a given number of images: shards, disk, nodes, hours, each with its origin. Pure.

See `docs/sizing.md`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from stair_es.errors import UsageError

TOKENS_PER_IMAGE, TOKENS_PER_TEXT = 38, 36
"""What stair-mini-3 gives a photograph and a text: docs/sizing.md names the commands that count them."""
POSTINGS: Mapping[str, float] = {"text": 0.0015, "image": 0.0020}
"""Postings of a query, for each image, token of the query and token of an image: `benchmarks/query.py` with 37 per image."""
QUERY_BASE_MS, QUERY_POSTING_MS = 1.6, 3.2
"""CPU time of a query in a shard of a million images, in ms of one core, and that of each posting per image: the line through the
times of 3, 10 and 24 tokens and of images that `benchmarks/query.py` measured with 20 tokens per image. More tokens are scaled.
"""
QUERY_FLOOR_MS = 0.7
"""Minimum CPU time of a request to a shard, in ms of one core."""
BARE_BYTES, TOKEN_BYTES, THUMBNAIL_BYTES = 669, 15.2, 10_873
"""Bytes of a document, of each token and of the thumbnail: `benchmarks/query_bytes.py`, with 20 and 37 tokens per image."""
HOT_BYTES, HOT_TOKEN_BYTES = 156, 2.9
"""Bytes per image that searches read, postings and terms, and what each token adds: the same, by file."""
DISK_SHARE, CORE_SHARE, HEAP_SHARE, MAX_HEAP_GB = 0.85, 0.5, 0.5, 31.0
MAX_SHARD_IMAGES, MAX_SHARDS = 2_147_483_519, 1024
"""Limits of Lucene per shard, and of the engines per index by default."""


@dataclass(frozen=True, kw_only=True)
class SizingInputs:
    """Inputs of an estimate.

    Raises:
        UsageError: On construction, if a number is out of range.
    """

    images: int
    tokens_per_image: float = TOKENS_PER_IMAGE
    encoder_images_per_s: float = 35.3
    encoders: int = 1
    node_docs_per_s: float = 9910
    bytes_per_document: float | None = None
    """None to calculate it from the tokens, with a thumbnail."""
    shard_gb: float = 30
    shard_images: int = 10_000_000
    replicas: int = 1
    rebuild: bool = True
    """Whether there is room for a second index next to the one in use, while it is rebuilt."""
    node_disk_gb: float = 500
    node_memory_gb: float = 32
    node_cores: int = 8
    queries_per_s: float = 10
    query_kind: Literal["text", "image"] = "text"
    tokens_per_query: float | None = None
    """None for those of a text, or of an image."""
    query_ms: float | None = None
    """CPU time of a query in a shard of a million images, in ms of one core; None to calculate it from the tokens."""
    node_price_per_hour: float | None = None
    encoder_price_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None or isinstance(value, str):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
                bound = "0 or more" if name in _MAY_BE_ZERO else "more than 0"
                raise UsageError(
                    f"--{name.replace('_', '-')} can't be {value:g}",
                    f"Give a number that is {bound}.",
                    code="invalid-sizing-input",
                )
        if self.shard_images > MAX_SHARD_IMAGES:
            raise UsageError(
                f"--shard-images can't be {self.shard_images:,}",
                f"A shard can hold at most {MAX_SHARD_IMAGES:,} documents (Lucene).",
                code="shard-too-large",
            )

    @property
    def document_bytes(self) -> float:
        """Bytes on disk per document."""
        if self.bytes_per_document is not None:
            return self.bytes_per_document
        return round(BARE_BYTES + TOKEN_BYTES * self.tokens_per_image + THUMBNAIL_BYTES)

    @property
    def hot_bytes(self) -> float:
        """Bytes per document that searches read."""
        return round(HOT_BYTES + HOT_TOKEN_BYTES * self.tokens_per_image)

    @property
    def query_tokens(self) -> float:
        """Tokens of a query."""
        if self.tokens_per_query is not None:
            return self.tokens_per_query
        return TOKENS_PER_TEXT if self.query_kind == "text" else self.tokens_per_image

    @property
    def core_ms(self) -> float:
        """CPU time of a query in a shard of a million images, in ms of one core."""
        if self.query_ms is not None:
            return self.query_ms
        postings = POSTINGS[self.query_kind] * self.query_tokens * self.tokens_per_image
        return round(QUERY_BASE_MS + QUERY_POSTING_MS * postings, 1)


_MAY_BE_ZERO = frozenset({"images", "replicas", "rebuild", "queries_per_s", "node_price_per_hour", "encoder_price_per_hour"})


@dataclass(frozen=True, kw_only=True)
class SizingEstimate:
    """The numbers of a plan."""

    primary_gb: float
    """One copy of all documents."""
    shards_by_size: int
    """Number of shards within the size limit."""
    shards: int
    """At least `shards_by_size`, and enough for one copy of a shard on each node."""
    stored_gb: float
    """All copies, and those of a second index if there is to be room for one."""
    hot_gb: float
    """Data that should stay in the page cache, for all copies."""
    heap_gb: float
    shard_ms: float
    """CPU time of one query in one shard, in ms of one core."""
    cores: float
    """Cores for all queries, at the utilization `CORE_SHARE`."""
    nodes_by_disk: int
    nodes_by_memory: int
    nodes_by_cores: int
    nodes: int
    """The largest of these, and at least one node per copy."""
    encode_h: float
    write_h: float


def estimate_resources(inputs: SizingInputs) -> SizingEstimate:
    """Estimate the resources for the images.

    A node is only used if it holds a shard, so there are at least as many shard copies as nodes. The disks, the memory and the
    work on the images don't depend on the number of shards; only the minimum time of a request to a shard does.

    Raises:
        UsageError: If the queries need more nodes than there can be copies of shards, with any number of shards.
    """
    copies = 1 + inputs.replicas
    primary_gb = inputs.images * inputs.document_bytes / 1e9
    stored_gb = primary_gb * copies * (1 + inputs.rebuild)
    hot_gb = inputs.images * inputs.hot_bytes * copies / 1e9
    heap_gb = min(inputs.node_memory_gb * HEAP_SHARE, MAX_HEAP_GB)
    by_disk = math.ceil(stored_gb / (inputs.node_disk_gb * DISK_SHARE))
    by_memory = math.ceil(hot_gb / (inputs.node_memory_gb - heap_gb))
    work_ms = inputs.core_ms * inputs.images / 1e6
    by_work = math.ceil(_count_cores(inputs, work_ms) / inputs.node_cores)
    by_size = max(1, math.ceil(primary_gb / inputs.shard_gb), math.ceil(inputs.images / inputs.shard_images))
    shards = max(by_size, math.ceil(max(by_disk, by_memory, by_work) / copies))
    cores = _count_cores(inputs, max(work_ms, QUERY_FLOOR_MS * shards))
    by_cores = math.ceil(cores / inputs.node_cores)
    nodes = max(copies, by_disk, by_memory, by_cores)
    if nodes > copies * shards:
        raise _build_query_load_error(inputs)
    return SizingEstimate(
        primary_gb=primary_gb,
        shards_by_size=by_size,
        shards=shards,
        stored_gb=stored_gb,
        hot_gb=hot_gb,
        heap_gb=heap_gb,
        shard_ms=max(QUERY_FLOOR_MS, work_ms / shards),
        cores=cores,
        nodes_by_disk=by_disk,
        nodes_by_memory=by_memory,
        nodes_by_cores=by_cores,
        nodes=nodes,
        encode_h=inputs.images / inputs.encoder_images_per_s / inputs.encoders / 3600,
        write_h=inputs.images * copies / inputs.node_docs_per_s / nodes / 3600,
    )


def _count_cores(inputs: SizingInputs, query_ms: float) -> float:
    """Return the cores for all queries, if each takes `query_ms` of one core over all shards."""
    return inputs.queries_per_s * query_ms / 1000 / CORE_SHARE


def _build_query_load_error(inputs: SizingInputs) -> UsageError:
    copies = math.ceil(_count_cores(inputs, QUERY_FLOOR_MS) / inputs.node_cores)
    return UsageError(
        f"--replicas {inputs.replicas} can't answer {inputs.queries_per_s:,.0f} queries per second: a query takes at least "
        f"{QUERY_FLOOR_MS} ms in each shard, so more shards don't help",
        f"Give --replicas {copies - 1}, or more --node-cores.",
        code="replicas-too-few",
    )


HOURS_PER_MONTH = 730
GIVEN = "given"
_MIN_SHOWN = 0.001


@dataclass(frozen=True)
class SizingFigure:
    """A number and its origin."""

    name: str
    label: str
    value: float
    text: str
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
    results = (*_list_cluster(inputs, estimate), *_list_load(inputs, estimate), *_list_prices(inputs, estimate))
    return SizingPlan(inputs=_list_inputs(inputs, given_names), results=results, remarks=_list_remarks(inputs, estimate))


INPUT_TEXTS: Mapping[str, tuple[str, str, str]] = {
    "images": ("images", "", ""),
    "tokens_per_image": ("tokens of an image", "", "measured: photographs with stair-mini-3, stair-es words"),
    "encoder_images_per_s": ("encoder throughput", "images/s", "measured: stair-mini on two CPU cores, benchmarks/ingest.py"),
    "encoders": ("encoders", "", "assumed"),
    "node_docs_per_s": ("node throughput", "documents/s", "measured: one node and its client on two cores, benchmarks/sink.py"),
    "bytes_per_document": (
        "document size",
        "bytes",
        f"measured: {BARE_BYTES}, {TOKEN_BYTES} per token, and a thumbnail of {THUMBNAIL_BYTES:,}, benchmarks/query_bytes.py",
    ),
    "shard_gb": ("maximum shard size", "GB", "assumed; the engines' guides say 10 to 50"),
    "shard_images": ("maximum per shard", "images", "assumed, to bound the time of a search"),
    "replicas": ("replicas", "", "assumed: one copy that may be lost"),
    "rebuild": ("room for a second index", "", "assumed: another model or mapping is a new index next to the old one"),
    "node_disk_gb": ("disk per node", "GB", "assumed"),
    "node_memory_gb": ("memory per node", "GB", "assumed"),
    "node_cores": ("cores per node", "", "assumed"),
    "queries_per_s": ("queries", "per second", "assumed"),
    "tokens_per_query": ("tokens of a query", "", "measured: texts with stair-mini-3, benchmarks/model_quality.py"),
    "query_ms": (
        "query, 1 million images",
        "ms of one core",
        "scaled by the tokens: measured with 20 per image, benchmarks/query.py",
    ),
    "node_price_per_hour": ("price of a node", "per hour", ""),
    "encoder_price_per_hour": ("price of an encoder", "per hour", ""),
}
"""Label, unit, and the origin of the default; empty for an input without a default."""


def _list_inputs(inputs: SizingInputs, given_names: Collection[str]) -> tuple[SizingFigure, ...]:
    listed = []
    calculated = {
        "bytes_per_document": inputs.document_bytes,
        "tokens_per_query": inputs.query_tokens,
        "query_ms": inputs.core_ms,
    }
    for field in fields(inputs):
        value = calculated.get(field.name, getattr(inputs, field.name))
        if value is None or field.name == "query_kind":  # a price that isn't given; `query_kind` only selects the tokens
            continue
        label, unit, default_origin = INPUT_TEXTS[field.name]
        text = ("yes" if value else "no") if isinstance(value, bool) else f"{_format_number(value)} {unit}".rstrip()
        origin = GIVEN if field.name in {"images", *given_names} else default_origin
        if field.name == "tokens_per_query" and origin != GIVEN and inputs.query_kind == "image":
            origin = "those of an image"
        listed.append(SizingFigure(field.name, label, value, text, origin))
    return tuple(listed)


def _list_cluster(inputs: SizingInputs, estimate: SizingEstimate) -> Iterator[SizingFigure]:
    def make_figure(name: str, label: str, value: float, unit: str, origin: str) -> SizingFigure:
        return SizingFigure(name, label, value, f"{_format_number(value)} {unit}".rstrip(), origin)

    copies, indices = 1 + inputs.replicas, 1 + inputs.rebuild
    gb_each, images_each = estimate.primary_gb / estimate.shards, math.ceil(inputs.images / estimate.shards)
    disk_origin = f"{copies} {'copies' if copies > 1 else 'copy'} x {indices} {'indices' if indices > 1 else 'index'}"
    cache_origin = f"{inputs.hot_bytes} bytes of postings and terms per document and copy: measured, benchmarks/query_bytes.py"
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
