"""Which URLs may be fetched, and how much of a stranger's server may be used. A value: it travels to the workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UrlPolicy:
    """Limits of fetching images by URL."""

    schemes: tuple[str, ...] = ("https", "http")
    allow_private: bool = False
    """Fetch from loopback, private and link-local addresses too: off, so that a list can't make us call inside services."""
    timeout_s: float = 30.0
    """For a whole fetch with its redirects, not only between two bytes."""
    max_redirects: int = 5
    per_host: int = 4
    """Fetches from one host at a time and process."""
    attempts: int = 3
    """For what passes by itself: 429, 5xx, lost connections."""
