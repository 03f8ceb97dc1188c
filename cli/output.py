"""What goes where: results to stdout, everything said to a person on the side to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from .bars import visible

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A remark for people."""
    _say(text, "dim")


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """One JSON value on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def fail(error: Exception) -> None:
    """An error: what was wrong in red, what to do below it."""
    message, remedy = getattr(error, "message", str(error)), getattr(error, "remedy", "")
    _say(f"error: {message}", "red")
    if remedy:
        _say(remedy, "")


def _say(text: str, style: str) -> None:
    """File names and answers of strangers are in what is said: no markup, and nothing that could drive a terminal."""
    shown = "\n".join(visible(line, stderr.encoding) for line in text.splitlines())
    stderr.print(shown, style=style, markup=False, emoji=False)
