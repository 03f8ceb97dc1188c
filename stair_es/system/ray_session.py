"""A private and quiet Ray session, with errors that say what to do."""

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
from typing import Any, cast
from urllib.parse import urlsplit

from stair_es.errors import StairError, UsageError
from stair_es.optional import import_optional
from stair_es.urls import MASK

_CONNECT_TIMEOUT_S = 10.0
_AUTH_MODE = "RAY_AUTH_MODE"
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""`0` makes Ray listen on 127.0.0.1 only, which is its default on the two systems that the variable is named after."""
_MAX_FOLDER_CHARS = 26
"""Maximum length of the temporary folder: Ray's socket paths below it add up to 80 characters, and the system's limit is 107."""
_ADDRESS = re.compile(r"auto|local|(?:ray://)?[\w.\-\[\]:]+:\d+")
START_TIMEOUTS: Mapping[str, str] = {
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
}
"""How long Ray's processes may take to start, where Ray lets one choose. Its own limits are exceeded on a busy machine.

Two limits of Ray 2.60 are fixed: `ray.init` waits 30 s for the raylet, and the raylet 15 s for the port of each of its agents,
which have to import Python modules first. The next try finds these in memory.
"""
_FIXED_TIMEOUT = "timed out during startup"
logger = logging.getLogger(__name__)


@contextmanager
def open_ray_session(extra: str, address: str | None, *, error_type: type[StairError], alternative: str) -> Iterator[Any]:
    """Open a Ray session for a run, or use the caller's open one. Ray's own logs are suppressed.

    A session that is started here listens on this machine only, requires a token that only this process and its children know,
    and keeps its files in a folder that only this user can read, which is removed at the end.

    Args:
        extra: Extra that installs Ray.
        address: Address of a running cluster; None starts one on this machine.
        error_type: Class of the error to raise.
        alternative: What to do without Ray, for the remedy.

    Yields:
        The module.

    Raises:
        MissingExtra: If Ray isn't installed.
        StairError: Of the class `error_type`, if Ray can't be started, or reached at the address.
        UsageError: If the address is invalid.
    """
    with set_missing_variables({"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", **START_TIMEOUTS}):
        yield from _open_session(extra, address, error_type, alternative)


def pickle_by_value(value: object) -> bytes:
    """Pickle a value in a worker, with the classes that only the driver's script has."""
    return cast("bytes", import_optional("ray.cloudpickle", "ray").dumps(value))


def is_local_address(address: str | None) -> bool:
    """Check whether an address means that Ray is started on this machine."""
    return address in (None, "", "local")


@contextmanager
def set_missing_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set those environment variables that the user didn't, until the context ends.

    Ray takes some settings from nowhere else, in this process and in those that it starts.
    """
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _open_session(extra: str, address: str | None, error_type: type[StairError], alternative: str) -> Iterator[Any]:
    running = sys.modules.get("ray")
    if running is not None and running.is_initialized():
        yield running
        return
    cluster = None if is_local_address(address) else address
    action = f"join the Ray cluster at {mask_ray_address(cluster)}" if cluster else "start Ray on this machine"
    with nullcontext({"address": cluster}) if cluster else _prepare_local_options(error_type, alternative) as options:
        ray = import_optional("ray", extra)
        if cluster:
            check_ray_address(cluster, error_type, alternative)
        with _redirect_ray_output(ray), _connect_ray(ray, options, action, error_type, alternative):
            yield ray


@contextmanager
def _connect_ray(
    ray: Any,  # noqa: ANN401
    options: dict[str, Any],
    action: str,
    error_type: type[StairError],
    alternative: str,
) -> Iterator[None]:
    try:
        _init_ray(ray, options)
    except Exception as error:
        remedy = f"{alternative}, or see `ray status`; a cluster with authentication requires RAY_AUTH_MODE=token and its token."
        raise error_type(f"can't {action}: {error}", remedy, code="ray-not-started") from error
    try:
        yield
    finally:
        ray.shutdown()


def _init_ray(ray: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Start or join Ray. A start that exceeds a fixed limit of Ray is tried once more."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(**options, **quiet)
    except Exception as error:
        if _FIXED_TIMEOUT not in str(error):
            raise
        logger.warning("Ray didn't start in its time: trying once more")
        ray.shutdown()
        ray.init(**options, **quiet)


@contextmanager
def _prepare_local_options(error_type: type[StairError], alternative: str) -> Iterator[dict[str, Any]]:
    """Yield the options of a private session on this machine. Enter it before Ray is imported, which reads the variables."""
    requested = os.environ.get("RAY_TMPDIR")
    parent = requested or tempfile.gettempdir()
    if len(parent) > _MAX_FOLDER_CHARS:
        if requested:
            raise error_type(
                f"RAY_TMPDIR has {len(parent)} characters, and Ray's sockets leave room for {_MAX_FOLDER_CHARS}",
                "Specify a shorter folder.",
                code="ray-folder-too-long",
            )
        parent = "/tmp"
    try:
        temporary = tempfile.TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise error_type(
            f"can't start Ray on this machine: {error}",
            f"{alternative}, or use another folder: RAY_TMPDIR.",
            code="ray-not-started",
        ) from error
    os.environ.update(_build_auth_variables(os.environ, imported="ray" in sys.modules))  # permanently: see `_get_auth_token`
    with temporary as folder:
        # Ray opens the innermost folder to all users, so it gets a separate folder.
        yield {"address": "local", "include_dashboard": False, "_temp_dir": f"{folder}/r"}


def _build_auth_variables(environ: Mapping[str, str], *, imported: bool) -> dict[str, str]:
    """Return the variables that make a session private, without those that the user set.

    If Ray is `imported`, its settings are fixed; newer versions then require a token by default.
    """
    variables = {} if imported else {_LOOPBACK: "0", _AUTH_MODE: "token"}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(environ):
        variables["RAY_AUTH_TOKEN"] = _get_auth_token()
    return {name: value for name, value in variables.items() if name not in environ}


@cache
def _get_auth_token() -> str:
    """Return the token of this process. Its variables stay set: Ray keeps the first token that it reads."""
    return secrets.token_hex(32)


@contextmanager
def _redirect_ray_output(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Log what Ray would print to stdout about retried tasks: stdout is for results only.

    Ray has no option for this: one of its threads prints what the nodes report, regardless of `log_to_driver`.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    original = getattr(worker, "print_to_stdstream", None)
    if original is None:
        yield
        return
    worker.print_to_stdstream = lambda data, *_, **__: logger.debug("ray: %s", data.get("lines"))
    try:
        yield
    finally:
        worker.print_to_stdstream = original


def mask_ray_address(address: str) -> str:
    """Return the address, or `***` if it is invalid: it may contain a login, or be a secret itself."""
    return address if _ADDRESS.fullmatch(address) else MASK


def check_ray_address(address: str, error_type: type[StairError], alternative: str) -> None:
    """Check that something listens at `host:port` or `ray://host:port`: Ray itself would keep trying for minutes.

    `alternative` says in the remedy what to do without Ray.

    Raises:
        StairError: Of the class `error_type`, if nothing listens there.
        UsageError: If the address is invalid.
    """
    if address in ("auto", "local"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or not _ADDRESS.fullmatch(address):
        raise UsageError(
            "not a Ray address", "Write it like 10.0.0.1:6379, or auto on a node of the cluster.", code="not-a-ray-address"
        )
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise error_type(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            f"Start one with `ray start --head`, fix --ray-address / RAY_ADDRESS,"
            f" or: {alternative[:1].lower()}{alternative[1:]}.",
            code="ray-unreachable",
        ) from error
