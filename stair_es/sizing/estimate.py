"""Resource estimates for an index of a given number of images: shards, disk, nodes, hours. Pure; see `docs/sizing.md`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from stair_es.errors import UsageError

QUERY_MS: Mapping[str, float] = {"text": 3.1, "image": 4.7}
"""CPU time of a query in a shard of a million images, in ms of one core: a text of 10 tokens, an image."""
QUERY_FLOOR_MS = 0.7
"""Minimum CPU time of a request to a shard, in ms of one core."""
HOT_BYTES = 205
"""Bytes per image that searches read: postings 98, terms 107."""
THUMBNAIL_BYTES, BARE_BYTES = 10_873, 957
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
    encoder_images_per_s: float = 35.3
    encoders: int = 1
    node_docs_per_s: float = 9910
    bytes_per_document: float = BARE_BYTES + THUMBNAIL_BYTES
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
    query_ms: float | None = None
    """CPU time of a query in a shard of a million images, in ms of one core; None for the measured figure of `query_kind`."""
    node_price_per_hour: float | None = None
    encoder_price_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None or isinstance(value, str):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
                bound = "0 or more" if name in _MAY_BE_ZERO else "more than 0"
                raise UsageError(f"--{name.replace('_', '-')} can't be {value:g}", f"Give a number that is {bound}.")
        if self.shard_images > MAX_SHARD_IMAGES:
            raise UsageError(
                f"--shard-images can't be {self.shard_images:,}",
                f"A shard can hold at most {MAX_SHARD_IMAGES:,} documents (Lucene).",
            )

    @property
    def core_ms(self) -> float:
        """CPU time of a query in a shard of a million images, in ms of one core."""
        return QUERY_MS[self.query_kind] if self.query_ms is None else self.query_ms


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
    """Heap of one node."""
    shard_ms: float
    """CPU time of one query in one shard, in ms of one core."""
    cores: float
    """Cores for all queries, at the utilization `CORE_SHARE`."""
    nodes_by_disk: int
    """Number of nodes that have enough disk."""
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
    primary_gb = inputs.images * inputs.bytes_per_document / 1e9
    stored_gb = primary_gb * copies * (1 + inputs.rebuild)
    hot_gb = inputs.images * HOT_BYTES * copies / 1e9
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
    )
