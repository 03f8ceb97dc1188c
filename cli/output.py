"""What goes where: results to stdout, everything said to a person on the side to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, NoReturn

from rich.console import Console

from .bars import visible


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """`| head` has seen enough: that is no failure."""
        _leave_pipe()


_CONTROLS = re.compile(r"[\x7f-\x9f]")
"""They drive terminals as those below U+0020 do, which JSON has to escape."""
stdout = _Stdout(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A remark for people."""
    _say(text, "dim")


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """One JSON value on one line of stdout."""
    plain(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False)))


def plain(text: str) -> None:
    """Text for another program to read, as it is."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()


def _leave_pipe() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it closes stdout
    raise SystemExit(0)


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
