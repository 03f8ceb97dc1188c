"""The retry information of an HTTP response: its status and its `Retry-After` header."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

BUSY_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses with which a server, or a proxy in front of it, reports that it is temporarily unavailable."""


def parse_retry_after(retry_after: str) -> float | None:
    """Parse a `Retry-After` header (seconds or a date) into seconds from now; None if it is invalid."""
    value = retry_after.strip()
    if value.isascii() and value.isdigit():
        return float(value)  # infinite for hundreds of digits; callers limit it
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # `-0000`, and RFC 850's GMT on some versions: HTTP dates are always GMT
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
