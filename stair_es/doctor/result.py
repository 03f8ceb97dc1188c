"""The result of a check, and its formatting."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_es.errors import StairError

CheckState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One line of the report."""

    check: str
    """What was checked, in one or two words."""
    state: CheckState
    """`fail` prevents a command from working; `warn` may do so, or costs something."""
    message: str
    remedy: str = ""
    """What to do, as a command if there is one; empty if the state is `ok`."""
    code: str = ""
    """That of the error that failed the check, see `StairError`; empty if there was none."""

    @classmethod
    def ok(cls, check: str, message: str) -> CheckResult:
        """Return a passed check."""
        return cls(check=check, state="ok", message=message)

    @classmethod
    def warn(cls, check: str, message: str, remedy: str) -> CheckResult:
        """Return a warning."""
        return cls(check=check, state="warn", message=message, remedy=remedy)

    @classmethod
    def fail(cls, check: str, message: str, remedy: str) -> CheckResult:
        """Return a failed check."""
        return cls(check=check, state="fail", message=message, remedy=remedy)

    @classmethod
    def from_error(cls, check: str, error: StairError) -> CheckResult:
        """Return a failed check from an error."""
        return cls(check=check, state="fail", message=error.message, remedy=error.remedy, code=error.code)


def format_curl(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
    """Format a request to the first node of `url` as a curl command. The user adds credentials: `-u USER`."""
    data = f" -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}" if body is not None else ""
    return f"curl -X {method} {shlex.quote(url.partition(',')[0].rstrip('/') + path)}{data}"
