"""A Ray session of our own, quiet, with errors that say what to do. Whoever uses it imports ray, and hands it over."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from stair_es.errors import StairError, UsageError

_CONNECT_TIMEOUT_S = 10.0


@contextmanager
def session(ray: Any, address: str | None, *, error: type[StairError], instead: str) -> Iterator[None]:  # noqa: ANN401  no types
    """A Ray session that ends with the run, unless the caller already had one. Ray's own logs stay out of ours.

    Args:
        ray: The module.
        address: A running cluster; None starts one on this machine.
        error: What a failure is.
        instead: What to do without Ray.

    Raises:
        StairError: Of the kind `error`: Ray can't be started, or reached at the address.
        UsageError: That is no address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side writes to our stderr, whatever log_to_driver says
    ours = not ray.is_initialized()
    if ours:
        if address:
            knock(address, error, instead)
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as failed:
            where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
            hint = f"{instead}, or see `ray status`; a cluster with logins wants RAY_AUTH_MODE=token and its token."
            raise error(f"can't {where}: {failed}", hint) from failed
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def knock(address: str, error: type[StairError], instead: str) -> None:
    """See that somebody listens at `host:port` or `ray://host:port`: Ray itself would go on trying for minutes."""
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise UsageError(f"not a Ray address: {address!r}", "Write it like 10.0.0.1:6379, or auto on a node of the cluster.")
    try:
        socket.create_connection((parts.hostname, port), _CONNECT_TIMEOUT_S).close()
    except OSError as failed:
        raise error(
            f"no Ray cluster answers at {address}: {failed.strerror or failed}",
            f"Start one with `ray start --head`, mend --ray-address / RAY_ADDRESS, or: {instead[:1].lower()}{instead[1:]}.",
        ) from failed
