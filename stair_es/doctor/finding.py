"""The result of a check, and its formatting."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_es.errors import StairError

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    check: str
    """What was checked, in one or two words."""
    state: State
    """`fail` prevents a command from working; `warn` may do so, or costs something."""
    message: str
    remedy: str = ""
    """What to do, as a command if there is one; empty if the state is `ok`."""


def ok(check: str, message: str) -> Finding:
    """Return a passed check."""
    return Finding(check=check, state="ok", message=message)


def warn(check: str, message: str, remedy: str) -> Finding:
    """Return a warning."""
    return Finding(check=check, state="warn", message=message, remedy=remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    """Return a failed check."""
    return Finding(check=check, state="fail", message=message, remedy=remedy)


def failed(check: str, error: StairError) -> Finding:
    """Return a failed check from an error."""
    return fail(check, error.message, error.remedy)


def curl(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
    """Format a request to the first node of `url` as a curl command. The user adds credentials: `-u USER`.

    Args:
        url: URLs of the nodes, separated by commas.
        method: Of the request.
        path: Of the request.
        body: JSON to send.
    """
    sent = f" -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}" if body is not None else ""
    return f"curl -X {method} {shlex.quote(url.partition(',')[0].rstrip('/') + path)}{sent}"


def size(bytes_: float) -> str:
    """Format a number of bytes, such as `1.5 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.1f} {unit}"
    return f"{bytes_ / 1e3:.0f} kB"
