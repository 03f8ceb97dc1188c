"""Output of the commands: results to stdout, notices and errors to stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console

from stair_es.errors import StairError

from .bars import escape_control
from .json_logging import NOTICE_LOGGER, dump_json_line, is_json_logging, set_json_logging


class _StdoutConsole(Console):
    def on_broken_pipe(self) -> None:
        """Exit without an error, as for `| head`."""
        _exit_on_broken_pipe()


class _StderrConsole(Console):
    @property
    def is_terminal(self) -> bool:
        """Whether bars and colors may be shown; never between JSON lines."""
        return super().is_terminal and not is_json_logging()


class _NoticeHandler(logging.Handler):
    """Handler that prints records as notices, unless the handler of the root logger writes them as JSON lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if not is_json_logging():
            _print_stderr(self.format(record), "dim")


stdout = _StdoutConsole(highlight=False, soft_wrap=True)
stderr = _StderrConsole(stderr=True, highlight=False, soft_wrap=True)
_NOTICE_HANDLER = _NoticeHandler()
_MAX_SKIPPED = 5


def set_log_format(form: str) -> None:
    """Set the format of stderr: `json` for one object per line, `text` for people. What stair_es logs is shown there, too."""
    set_json_logging(form == "json")
    logger = logging.getLogger("stair_es")
    logger.setLevel(logging.INFO)
    logger.addHandler(_NOTICE_HANDLER)


def print_notice(text: str, **facts: Any) -> None:  # noqa: ANN401  JSON values
    """Print a notice to stderr; `facts` are added to the JSON line."""
    if is_json_logging():
        NOTICE_LOGGER.info(text, extra={"facts": facts})
    else:
        _print_stderr(text, "dim")


def ask_yes(facts: str, question: str) -> bool:
    """Ask a question on the terminal; without one, or between JSON lines, the answer is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or is_json_logging():
        return False
    _print_stderr(facts, "")
    try:
        return stderr.input(f"{question} [y/N] ", markup=False).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def print_skipped(problems: Sequence[str], kind: str = "entries", options: str = "--json and --out") -> None:
    """Print the problems of the first inputs that were skipped, and how many more there are: `options` show all of them."""
    for problem in problems[:_MAX_SKIPPED]:
        print_notice(f"skipped: {problem}")
    if len(problems) > _MAX_SKIPPED:
        print_notice(f"and {len(problems) - _MAX_SKIPPED} more {kind} (all of them are in {options})")


def emit_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """Print a JSON value on one line of stdout."""
    print_plain(dump_json_line(value))


def translate_os_error(error: OSError) -> Exception:
    """Return the system's message for a file, without its error number."""
    if error.filename is None or not error.strerror:
        return StairError(str(error) or type(error).__name__, code="system-error")
    return StairError(f"{error.filename}: {error.strerror}", "Check the path and its permissions.", code="file-error")


def print_plain(text: str) -> None:
    """Print text to stdout unchanged, for other programs."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _exit_on_broken_pipe()


def _exit_on_broken_pipe() -> NoReturn:
    # Otherwise the interpreter reports an error when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def print_error(error: Exception) -> None:
    """Print an error: its code and message in red, the remedy below it."""
    message, remedy, code = (error.message, error.remedy, error.code) if isinstance(error, StairError) else (str(error), "", "")
    if is_json_logging():
        NOTICE_LOGGER.error(message, extra={"facts": {"remedy": remedy, "error": type(error).__name__, "code": code}})
        return
    _print_stderr(f"error[{code}]: {message}" if code else f"error: {message}", "red")
    if remedy:
        _print_stderr(remedy, "")


def _print_stderr(text: str, style: str) -> None:
    """Print escaped text to stderr: it may hold file names and responses of servers."""
    shown = "\n".join(escape_control(line, stderr.encoding) for line in text.splitlines())
    stderr.print(shown, style=style, markup=False, emoji=False)
