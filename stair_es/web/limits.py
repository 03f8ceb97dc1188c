"""How much one visitor may ask for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from stair_es.sources.decode import DecodeLimits

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused beyond."""

    upload_bytes: int = 20 * MIB
    """Of a dropped image."""
    body_bytes: int = 256 * 1024
    """Of a question as JSON."""
    upload_s: float = 60.0
    """How long a body may take to arrive."""
    held_bytes: int = 160 * MIB
    """What all bodies that are being worked on may take."""
    decode: DecodeLimits = field(default_factory=lambda: DecodeLimits(max_pixels=64_000_000))
    """Of a dropped image and of an original."""
    original_bytes: int = 128 * MIB
    """Of a file below an allowed root."""
    cache_bytes: int = 64 * MIB
    """What the thumbnails that lie ready may take."""
    at_once: int = 2
    """How many images and texts are encoded, or originals drawn, at the same time."""
    waiting: int = 12
    """How many more may wait for it; others are told to come again."""
    wait_s: float = 20.0
    """How long they wait."""
