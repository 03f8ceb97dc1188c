"""Output of the commands: results to stdout, notices and errors to stderr."""

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
        """Exit without an error, as for `| head`."""
        _leave_pipe()


class _Stderr(Console):
    @property
    def is_terminal(self) -> bool:
        """Whether bars and colours may be shown; never between JSON lines."""
        return super().is_terminal and not lines_are_json()


stdout = _Stdout(highlight=False, soft_wrap=True)
stderr = _Stderr(stderr=True, highlight=False, soft_wrap=True)


def log_as(form: str) -> None:
    """Set the format of stderr: `json` for one object per line, `text` for people."""
    to_json_lines(form == "json")


def note(text: str, **facts: Any) -> None:  # noqa: ANN401  JSON values
    """Print a notice to stderr; `facts` are added to the JSON line."""
    if lines_are_json():
        LOG.info(text, extra={"facts": facts})
    else:
        _say(text, "dim")


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """Print a JSON value on one line of stdout."""
    plain(json_text(value))


@contextmanager
def tell_failure_as_json(wanted: bool, known: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Print an object with `error`, `remedy` and `known` to stdout if the command fails.

    Args:
        wanted: Whether to print it.
        known: Further values, read at the time of the failure.
    """
    try:
        yield
    except Exception as error:
        if wanted:
            told = of_file(error) if isinstance(error, OSError) else error
            message = told.message if isinstance(told, StairError) else f"{type(told).__name__}: {told}"
            emit_json({"error": message, "remedy": getattr(told, "remedy", ""), **(known or {})})
        raise


def of_file(error: OSError) -> Exception:
    """Return the system's message for a file, without its error number."""
    if error.filename is None or not error.strerror:
        return error
    return StairError(f"{error.filename}: {error.strerror}", "Check the path and its permissions.")


def plain(text: str) -> None:
    """Print text to stdout unchanged, for other programs."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()


def _leave_pipe() -> NoReturn:
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # otherwise the interpreter reports an error when it closes stdout
    raise SystemExit(0)


def fail(error: Exception) -> None:
    """Print an error: the message in red, the remedy below it."""
    message, remedy = getattr(error, "message", str(error)), getattr(error, "remedy", "")
    if lines_are_json():
        LOG.error(message, extra={"facts": {"remedy": remedy, "error": type(error).__name__}})
        return
    _say(f"error: {message}", "red")
    if remedy:
        _say(remedy, "")


def _say(text: str, style: str) -> None:
    """Print escaped text to stderr: it may hold file names and responses of servers."""
    shown = "\n".join(visible(line, stderr.encoding) for line in text.splitlines())
    stderr.print(shown, style=style, markup=False, emoji=False)
