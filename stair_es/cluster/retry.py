"""What passes by itself, and how long to wait for it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from opensearchpy import exceptions

from stair_es.cluster import tls
from stair_es.cluster.failures import BUSY, translated
from stair_es.cluster.stop import pause
from stair_es.retry_after import seconds_of

if TYPE_CHECKING:
    from stair_es.cluster.connect import Connection

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How hard to try: by default for about a minute."""

    attempts: int = 8
    backoff_s: float = 0.5
    """Before the second attempt; doubles up to `max_backoff_s`, each time with jitter (half to full)."""
    max_backoff_s: float = 15.0
    max_retry_after_s: float = 60.0
    """How long at most a server may make us wait by `Retry-After`."""


FIRST_LOOK = RetryPolicy(attempts=4, max_retry_after_s=2.0)
"""For commands that somebody waits for: a few seconds."""


def passes(error: exceptions.TransportError) -> bool:
    """Whether the same request may succeed later: the cluster is busy, restarting, or out of reach."""
    if isinstance(error, exceptions.ConnectionError):
        return not tls.lasting(error)
    return is_busy(error)


def is_busy(error: exceptions.TransportError) -> bool:
    """Return whether a cluster, or what stands before it, answers that it can't at the moment.

    Unlike `passes`, not where nothing answers: before the first answer that is a wrong URL more often than a restart.
    """
    return error.status_code in BUSY


def wait_s(attempt: int, policy: RetryPolicy, error: object | None = None) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed with `error`.

    A server that says when to come back (`Retry-After`) is not asked earlier, and not by all at the same moment.
    """
    own_s = backoff_s(attempt, policy)
    asked_s = retry_after_s(error)
    if asked_s is None:
        return own_s
    return max(own_s, min(asked_s, policy.max_retry_after_s) + random.uniform(0.0, policy.backoff_s))


def retry_after_s(error: object | None) -> float | None:
    """What the server's `Retry-After` asks for; None without one that makes sense."""
    return seconds_of(str(getattr(error, "retry_after", None) or ""))


def backoff_s(attempt: int, policy: RetryPolicy) -> float:
    """Like `wait_s`, whatever the server asks for."""
    full: float = min(policy.max_backoff_s, policy.backoff_s * 2 ** (attempt - 1))
    return full * random.uniform(0.5, 1.0)


def tell(connection: Connection, cause: object, attempt: int) -> None:
    """Say once a call, on the log, that it is being repeated: a cluster that is away must not look like a hang."""
    if attempt == 2:
        _LOG.warning("%s fails (%.200s): trying again", connection.safe_url, connection.redact(str(cause)))


def persistently(
    call: Callable[[], _T],
    connection: Connection,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = pause,
) -> _T:
    """The answer of `call`, which is repeated while it fails with what passes.

    Raises:
        ClusterError: It failed to the last attempt, or with what doesn't pass.
    """
    with translated(connection):
        return repeated(call, connection, policy or RetryPolicy(), sleep)


def repeated(
    call: Callable[[], _T],
    connection: Connection,
    policy: RetryPolicy,
    sleep: Callable[[float], None] = pause,
    on: Callable[[exceptions.TransportError], bool] = passes,
) -> _T:
    """Return the answer of `call`, repeated while it fails with an error that `on` holds for.

    Raises:
        TransportError: As the client raises it, of the last attempt.
    """
    for attempt in range(1, policy.attempts):
        try:
            return call()
        except exceptions.TransportError as error:
            if not on(error):
                raise
            tell(connection, error, attempt)
            sleep(wait_s(attempt, policy, error))
    return call()
