"""Retries: which errors are temporary, and how long to wait."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from opensearchpy import exceptions

from stair_es.cluster.client import tls
from stair_es.cluster.client.cancellation import sleep_unless_cancelled
from stair_es.retry_after import BUSY_STATUSES, parse_retry_after

if TYPE_CHECKING:
    from stair_es.cluster.client.connection import Connection

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Number of attempts and back-off: by default for about a minute."""

    attempts: int = 8
    backoff_s: float = 0.5
    """Delay before the second attempt; doubles up to `max_backoff_s`, each time with jitter (half to full)."""
    max_backoff_s: float = 15.0
    max_retry_after_s: float = 60.0
    """Maximum delay that a server may request by `Retry-After`."""


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


def compute_retry_delay_s(attempt: int, policy: RetryPolicy, error: object | None = None) -> float:
    """Compute the delay after attempt number `attempt` (from 1) failed with `error`, in seconds.

    A delay that the server requests by `Retry-After` is a minimum, with jitter so that clients don't all return at the same
    moment.
    """
    delay_s = compute_backoff_s(attempt, policy)
    requested_s = get_retry_after_s(error)
    if requested_s is None:
        return delay_s
    return max(delay_s, min(requested_s, policy.max_retry_after_s) + random.uniform(0.0, policy.backoff_s))


def get_retry_after_s(error: object | None) -> float | None:
    """Get the delay in the server's `Retry-After` header; None without a valid one."""
    return parse_retry_after(str(getattr(error, "retry_after", None) or ""))


def compute_backoff_s(attempt: int, policy: RetryPolicy) -> float:
    """Compute the delay as `compute_retry_delay_s` does, without the server's `Retry-After`."""
    full: float = min(policy.max_backoff_s, policy.backoff_s * 2 ** (attempt - 1))
    return full * random.uniform(0.5, 1.0)


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
    """Call, retry while it fails with an error for which `should_retry` returns True, and return the result.

    Raises:
        TransportError: The client's own, if the last attempt fails.
    """
    for attempt in range(1, policy.attempts):
        try:
            return call()
        except exceptions.TransportError as error:
            if not should_retry(error):
                raise
            log_retry(connection, error, attempt)
            sleep(compute_retry_delay_s(attempt, policy, error))
    return call()
