"""What a check found."""

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
    """What was looked at, in a word."""
    state: State
    """`fail` is what keeps a command from working, `warn` what may or costs something."""
    message: str
    remedy: str = ""
    """What to do, a command where there is one; empty if it is ok."""


def ok(check: str, message: str) -> Finding:
    """All well."""
    return Finding(check=check, state="ok", message=message)


def warn(check: str, message: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(check=check, state="warn", message=message, remedy=remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    """It doesn't work."""
    return Finding(check=check, state="fail", message=message, remedy=remedy)


def failed(check: str, error: StairError) -> Finding:
    """What an error says."""
    return fail(check, error.message, error.remedy)


def curl(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
    """A request to the first node of `url`, as a command. A login is for whoever runs it to add: `-u USER`."""
    sent = f" -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}" if body is not None else ""
    return f"curl -X {method} {shlex.quote(url.partition(',')[0].rstrip('/') + path)}{sent}"


def size(bytes_: float) -> str:
    """`1.5 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.1f} {unit}"
    return f"{bytes_ / 1e3:.0f} kB"
