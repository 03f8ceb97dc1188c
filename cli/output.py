"""What goes where: results to stdout, everything said to a person on the side to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A remark for people."""
    stderr.print(text, style="dim", markup=False)


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """One JSON value on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def fail(error: Exception) -> None:
    """An error: what was wrong in red, what to do below it."""
    message, remedy = getattr(error, "message", str(error)), getattr(error, "remedy", "")
    stderr.print(f"error: {message}", style="red", markup=False)
    if remedy:
        stderr.print(remedy, markup=False)
