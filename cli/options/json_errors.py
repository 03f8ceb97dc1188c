"""Errors of commands as JSON: with `--json` a failed command prints one object with `error` and `remedy` to stdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import typer

from stair_es.errors import StairError

from ..output.console import emit_json, translate_os_error

_R = TypeVar("_R")
GetFacts = Callable[[], Mapping[str, Any]]
_failure_facts: ContextVar[list[GetFacts]] = ContextVar("failure_facts")


def with_json_errors(command: Callable[..., _R]) -> Callable[..., _R]:
    """Return the command so that with `as_json` it prints an object with its error, remedy and failure facts to stdout.

    Exit code and stderr don't change.
    """

    @wraps(command)
    def run_with_json_errors(*args: object, **given: Any) -> _R:  # noqa: ANN401  whatever the command takes
        facts: list[GetFacts] = []
        token = _failure_facts.set(facts)
        try:
            return command(*args, **given)
        except (typer.Exit, typer.Abort):  # no failure: the command has printed its result
            raise
        except Exception as error:
            if given.get("as_json"):
                _emit_error(error, facts)
            raise
        finally:
            _failure_facts.reset(token)

    return run_with_json_errors


def add_failure_facts(get_facts: GetFacts) -> None:
    """Add values to the JSON error of the running command; outside of one they are ignored.

    Args:
        get_facts: Function that returns them; called if the command fails.
    """
    _failure_facts.get([]).append(get_facts)


def _emit_error(error: Exception, facts: list[GetFacts]) -> None:
    told = translate_os_error(error) if isinstance(error, OSError) else error
    message = told.message if isinstance(told, StairError) else f"{type(told).__name__}: {told}"
    emit_json(
        {
            "error": message,
            "remedy": getattr(told, "remedy", ""),
            **{name: value for get_facts in facts for name, value in get_facts().items()},
        }
    )
