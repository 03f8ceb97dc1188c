"""A Ray session of our own, quiet and closed to others, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from stair_es.errors import StairError, UsageError
from stair_es.extras import need
from stair_es.urls import MASK

_CONNECT_TIMEOUT_S = 10.0
_AUTH_MODE = "RAY_AUTH_MODE"
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""`0` has Ray listen on 127.0.0.1 alone, as it does by itself on the two systems that the variable is named after."""
_LONGEST_FOLDER = 26
"""Characters of the folder for temporary files: the paths of Ray's sockets below it add up to 80, and the system takes 107."""
_ADDRESS = re.compile(r"auto|local|(?:ray://)?[\w.\-\[\]:]+:\d+")
_LOG = logging.getLogger(__name__)


@contextmanager
def session(extra: str, address: str | None, *, error: type[StairError], instead: str) -> Iterator[Any]:
    """A Ray session that ends with the run, unless the caller already had one. Ray's own logs stay out of ours.

    One that is started here can be reached from this machine alone, lets in who knows a token that only this process and those
    that it starts have, and keeps its files in a folder that only this user may read, removed at the end.

    Args:
        extra: Which extra brings Ray.
        address: A running cluster; None starts one on this machine.
        error: What a failure is.
        instead: What to do without Ray.

    Yields:
        The module.

    Raises:
        MissingExtra: Ray isn't installed.
        StairError: Of the kind `error`: Ray can't be started, or reached at the address.
        UsageError: That is no address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    running = sys.modules.get("ray")
    if running is not None and running.is_initialized():
        yield running
        return
    cluster = None if address == "local" else address
    what = f"join the Ray cluster at {mask_address(cluster)}" if cluster else "start Ray on this machine"
    with nullcontext({"address": cluster}) if cluster else _private(error, instead) as options:
        ray = need("ray", extra)
        if cluster:
            knock(cluster, error, instead)
        with _quiet(ray), _connected(ray, options, what, error, instead):
            yield ray


@contextmanager
def _connected(ray: Any, options: dict[str, Any], what: str, error: type[StairError], instead: str) -> Iterator[None]:  # noqa: ANN401
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as failed:
        hint = f"{instead}, or see `ray status`; a cluster with logins wants RAY_AUTH_MODE=token and its token."
        raise error(f"can't {what}: {failed}", hint) from failed
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _private(error: type[StairError], instead: str) -> Iterator[dict[str, Any]]:
    """Options of a session on this machine, closed to others. To be entered before Ray is imported, and reads the variables."""
    asked = os.environ.get("RAY_TMPDIR")
    above = asked or tempfile.gettempdir()
    if len(above) > _LONGEST_FOLDER:
        if asked:
            raise error(
                f"RAY_TMPDIR has {len(above)} characters, and Ray's sockets leave room for {_LONGEST_FOLDER}",
                "Name a shorter folder.",
            )
        above = "/tmp"
    try:
        made = tempfile.TemporaryDirectory(prefix="ray-", dir=above, ignore_cleanup_errors=True)
    except OSError as failed:
        raise error(f"can't start Ray on this machine: {failed}", f"{instead}, or name another folder: RAY_TMPDIR.") from failed
    os.environ.update(_closing(os.environ, imported="ray" in sys.modules))  # for good: see `_token`
    with made as folder:
        yield {"address": "local", "include_dashboard": False, "_temp_dir": f"{folder}/r"}  # Ray opens that one to all


def _closing(environ: Mapping[str, str], *, imported: bool) -> dict[str, str]:
    """The variables that close a session to others, without what the user set.

    Args:
        environ: What is set.
        imported: Whether Ray has been imported, and its settings are fixed: newer ones ask for a token by themselves.
    """
    made = {} if imported else {_LOOPBACK: "0", _AUTH_MODE: "token"}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(environ):
        made["RAY_AUTH_TOKEN"] = _token()
    return {name: value for name, value in made.items() if name not in environ}


@cache
def _token() -> str:
    """One for the process, and its variables stay set: Ray remembers the first token that it reads, for all later sessions."""
    return secrets.token_hex(32)


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Log what Ray would print on stdout about tasks that it repeats: there is a place for results only.

    Ray has no option for that: a thread of it prints what the nodes report, whatever `log_to_driver` says.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    printing = getattr(worker, "print_to_stdstream", None)
    if printing is None:
        yield
        return
    worker.print_to_stdstream = lambda data, *_, **__: _LOG.debug("ray: %s", data.get("lines"))
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def mask_address(address: str) -> str:
    """The address, or `***` if it is none: it may hold a login, or be a secret itself."""
    return address if _ADDRESS.fullmatch(address) else MASK


def knock(address: str, error: type[StairError], instead: str) -> None:
    """See that somebody listens at `host:port` or `ray://host:port`: Ray itself would go on trying for minutes."""
    if address in ("auto", "local"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or not _ADDRESS.fullmatch(address):
        raise UsageError("not a Ray address", "Write it like 10.0.0.1:6379, or auto on a node of the cluster.")
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as failed:
        raise error(
            f"no Ray cluster answers at {address}: {failed.strerror or failed}",
            f"Start one with `ray start --head`, mend --ray-address / RAY_ADDRESS, or: {instead[:1].lower()}{instead[1:]}.",
        ) from failed
