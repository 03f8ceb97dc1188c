"""Rules for fetching URLs: which ones are allowed, and limits per server. A value that is sent to the workers."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class UrlPolicy:
    """Limits on fetching images by URL.

    Raises:
        UsageError: If a limit is out of range.
    """

    schemes: tuple[str, ...] = ("https", "http")
    allow_private: bool = False
    """Allow loopback, private and link-local addresses. Off, so that a list cannot make requests to internal services."""
    timeout_s: float = 30.0
    """Timeout of a whole fetch with its redirects, not per read. Waiting for a slot of a busy host does not count."""
    max_redirects: int = 5
    per_host: int = 4
    """Concurrent fetches per host and process."""
    attempts: int = 3
    """Attempts on temporary errors: 429, 5xx, lost connections."""
    patience_s: float = 600.0
    """Total time an ingest waits for a host that asks to wait (Retry-After), while it continues with other hosts."""

    def __post_init__(self) -> None:
        if not self.schemes or not set(self.schemes) <= {"http", "https"}:
            raise UsageError(
                f"the URL schemes can't be {', '.join(self.schemes) or 'an empty list'}", "Allow https, http or both."
            )
        if not 0 < self.timeout_s <= 86400:
            raise UsageError(f"the URL timeout can't be {self.timeout_s:g} s", "Give more than 0 s, and at most 86400 s (a day).")
        if not 0 <= self.patience_s <= 86400:
            raise UsageError(f"the URL patience can't be {self.patience_s:g} s", "Give 0 s to 86400 s (a day).")
        if self.max_redirects < 0 or self.per_host < 1 or self.attempts < 1:
            raise UsageError(
                f"URL limits: max_redirects {self.max_redirects}, per_host {self.per_host}, attempts {self.attempts}",
                "max_redirects must be 0 or more, the others 1 or more.",
            )
