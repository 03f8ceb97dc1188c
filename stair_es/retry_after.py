"""`Retry-After`: what a server that is busy says of when to ask again."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_MOST_DIGITS = 9
"""Thirty years; of a number that is much longer a float would be infinite."""


def seconds_of(retry_after: str) -> float | None:
    """Such a header, which has seconds or a date, in seconds from now; None where it makes no sense."""
    value = retry_after.strip()
    if value.isascii() and value.isdigit():
        return float(value[:_MOST_DIGITS])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # `-0000`, and RFC 850's GMT on some versions: HTTP knows no other zone
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
