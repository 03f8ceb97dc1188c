"""Retries of calls of the client: which errors are temporary."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stair_es.cluster.client import tls
from stair_es.cluster.client.opensearch import exceptions
from stair_es.retry import BUSY_STATUSES, RetryPolicy, parse_retry_after, sleep_unless_cancelled

if TYPE_CHECKING:
    from stair_es.cluster.client.connection import Connection

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


INTERACTIVE_RETRY = RetryPolicy(attempts=4, max_retry_after_s=2.0)
"""Patience of interactive commands: a few seconds."""
NO_RETRY = RetryPolicy(attempts=1)
"""For requests that a user waits for, or that can't be repeated: one attempt."""


def is_retryable_error(error: exceptions.TransportError) -> bool:
    """Return whether the same request may succeed later: the cluster is busy, restarting, or unreachable."""
    if isinstance(error, exceptions.ConnectionError):
        return not tls.is_permanent_tls_error(error)
    return is_busy_error(error)


def is_busy_error(error: exceptions.TransportError) -> bool:
    """Return whether a cluster, or a proxy in front of it, reports that it is temporarily unavailable.

    Unlike `is_retryable_error`, not if nothing answers: before the first response this is more often a wrong URL than a restart.
    """
    return error.status_code in BUSY_STATUSES


def get_retry_after_s(error: object | None) -> float | None:
    """Get the delay in the server's `Retry-After` header; None without a valid one."""
    return parse_retry_after(str(getattr(error, "retry_after", None) or ""))


def log_retry(connection: Connection, cause: object, attempt: int) -> None:
    """Log once per call that it is being retried: an unavailable cluster must not look like a hang."""
    if attempt == 2:
        logger.warning("%s failed (%.200s): retrying", connection.safe_url, connection.redact(str(cause)))


def retry_call(
    call: Callable[[], _T],
    connection: Connection,
    policy: RetryPolicy,
    sleep: Callable[[float], None] = sleep_unless_cancelled,
    should_retry: Callable[[exceptions.TransportError], bool] = is_retryable_error,
) -> _T:
    """Call, retry while `should_retry` returns True for the error, and return the result. The last error is the client's own."""
    for attempt in range(1, policy.attempts):
        try:
            return call()
        except exceptions.TransportError as error:
            if not should_retry(error):
                raise
            log_retry(connection, error, attempt)
            sleep(policy.compute_delay_s(attempt, get_retry_after_s(error)))
    return call()
