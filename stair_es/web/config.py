"""The configuration of the servers, and the limits above which they reject requests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from starlette.routing import Route

from stair_es.config.defaults import DEFAULT_PRICE_FIELD
from stair_es.model.base import Encoder
from stair_es.search.index_info import IndexInfo
from stair_es.sources.image.decode import DecodeLimits
from stair_es.web.coverage import CoverageReport
from stair_es.web.hooks import ServerHooks
from stair_es.web.originals import AllowedRoots

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """The limits above which requests are rejected."""

    upload_bytes: int = 20 * MIB
    """Maximum size of an uploaded image."""
    body_bytes: int = 256 * 1024
    """Maximum size of a JSON body."""
    upload_s: float = 60.0
    """Timeout for reading a body, in seconds."""
    max_held_bytes: int = 160 * MIB
    """Maximum total size of all bodies that are being processed."""
    decode_limits: DecodeLimits = field(default_factory=lambda: DecodeLimits(max_pixels=64_000_000))
    """Limits for decoding originals; `upload_limits` are those for uploaded images."""
    original_bytes: int = 128 * MIB
    """Maximum size of a file below an allowed root."""
    cache_bytes: int = 64 * MIB
    """Maximum size of the image cache."""
    max_concurrent: int = 2
    """Number of images and texts that are encoded, or originals that are rendered, concurrently."""
    max_waiting: int = 12
    """Number of further requests that may wait; others are rejected with 429."""
    wait_s: float = 20.0
    """Maximum waiting time, in seconds."""

    @property
    def upload_limits(self) -> DecodeLimits:
        """Limits for decoding uploaded images: none of a format whose decoder has a record of holes."""
        return replace(self.decode_limits, is_isolated_allowed=False)


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """Limits of the batches of a kind of inputs, and of their queue."""

    max_batch: int = 32
    """Maximum number of inputs that are encoded together."""
    max_batch_s: float = math.inf
    """Maximum time that a batch of several inputs may be expected to take."""
    max_waiting: int = 256
    """Number of inputs that may wait; requests with more are rejected with 429."""
    timeout_s: float = 30.0
    """Maximum time for a request, from its last byte on; then it gets 503. One that can't be done in it gets 413."""


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """What the configurations of both applications have."""

    limits: ServerLimits = field(default_factory=ServerLimits)
    batch_limits: BatchLimits = field(default_factory=BatchLimits)
    root_path: str = ""
    """The path of the server's root behind a proxy, as `parse_root_path` returns it."""
    hooks: ServerHooks = field(default_factory=ServerHooks)
    extra_routes: tuple[Route, ...] = ()
    """Additional routes, under the same access policy."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig(AppConfig):
    """The configuration of the server."""

    index: str
    load_encoder: Callable[[IndexInfo], Encoder]
    """Loads the encoder for an index, given its info: see `search.index_encoder`."""
    roots: AllowedRoots = field(default_factory=AllowedRoots)
    """Folders whose images may be shown in full size."""
    title: str = ""
    """Shown instead of the name of the index."""
    price_field: str = DEFAULT_PRICE_FIELD
    """The field for prices in a query, such as `under 40`."""
    coverage: CoverageReport | None = None
    """What share of the searches of a log have a match, as `stair-es coverage` has measured it."""
    teach: bool = False
    """Whether the page may teach the index words, which changes it for everybody."""
