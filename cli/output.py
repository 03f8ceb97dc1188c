"""What goes where: results to stdout, everything said to a person on the side to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console

from stair_es.errors import StairError

from .bars import visible
from .json_log import LOG, json_text, lines_are_json, to_json_lines


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """`| head` has seen enough: that is no failure."""
        _leave_pipe()


class _Stderr(Console):
    @property
    def is_terminal(self) -> bool:
        """Whether bars and colours may go there: never between JSON lines."""
        return super().is_terminal and not lines_are_json()


stdout = _Stdout(highlight=False, soft_wrap=True)
stderr = _Stderr(stderr=True, highlight=False, soft_wrap=True)


def log_as(form: str) -> None:
    """`json`: from now on all that goes to stderr is one JSON object a line; `text`: it is for people."""
    to_json_lines(form == "json")


def note(text: str, **facts: Any) -> None:  # noqa: ANN401  JSON values
    """A remark for people; `facts` are what it says in numbers, for whoever reads the JSON lines."""
    if lines_are_json():
        LOG.info(text, extra={"facts": facts})
    else:
        _say(text, "dim")


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """One JSON value on one line of stdout."""
    plain(json_text(value))


@contextmanager
def tell_failure_as_json(wanted: bool, known: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Around a command: if it fails, stdout has an object with `error`, `remedy` and what is `known` by then, if `wanted`."""
    try:
        yield
    except Exception as error:
        if wanted:
            told = of_file(error) if isinstance(error, OSError) else error
            message = told.message if isinstance(told, StairError) else f"{type(told).__name__}: {told}"
            emit_json({"error": message, "remedy": getattr(told, "remedy", ""), **(known or {})})
        raise


def of_file(error: OSError) -> Exception:
    """The system's words for a file, without its number."""
    if error.filename is None or not error.strerror:
        return error
    return StairError(f"{error.filename}: {error.strerror}", "Check the path, and whether you may use it so.")


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
    if lines_are_json():
        LOG.error(message, extra={"facts": {"remedy": remedy, "error": type(error).__name__}})
        return
    _say(f"error: {message}", "red")
    if remedy:
        _say(remedy, "")


def _say(text: str, style: str) -> None:
    """File names and answers of strangers are in what is said: no markup, and nothing that could drive a terminal."""
    shown = "\n".join(visible(line, stderr.encoding) for line in text.splitlines())
    stderr.print(shown, style=style, markup=False, emoji=False)
