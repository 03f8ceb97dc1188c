"""What is added to every command: options as dataclasses, and errors as JSON with `--json`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, wraps
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

import typer

from stair_es.errors import StairError

from ..output.console import emit_json, translate_os_error
from .shared import LAST_PANEL

_R = TypeVar("_R")
GetFacts: TypeAlias = Callable[[], Mapping[str, Any]]
_failure_facts: ContextVar[list[GetFacts]] = ContextVar("failure_facts")


def prepare_command(command: Callable[..., _R]) -> Callable[..., _R]:
    """Return the form of a command that Typer takes.

    A parameter that is annotated with a dataclass becomes one option per field, at the place of the parameter. Fields are
    annotated for Typer, or are such a dataclass themselves. Options in `LAST_PANEL` are listed last.

    With `as_json`, an error is also printed to stdout, as an object with its remedy and the failure facts. Exit code and stderr
    don't change.
    """
    declared = inspect.signature(command, eval_str=True).parameters.values()
    options = sorted(_list_options(declared), key=_is_listed_last)

    @wraps(command)
    def run_command(**values: Any) -> _R:  # noqa: ANN401  whatever the command takes
        facts: list[GetFacts] = []
        token = _failure_facts.set(facts)
        try:
            return command(**_build_arguments(declared, values))
        except (typer.Exit, typer.Abort):  # no failure: the command has printed its result
            raise
        except Exception as error:
            if values.get("as_json"):
                _emit_error(error, facts)
            raise
        finally:
            _failure_facts.reset(token)

    run_command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    # The command's own annotations are strings, and Typer would evaluate each twice.
    run_command.__annotations__ = {option.name: option.annotation for option in options}
    return run_command


def _list_options(parameters: Iterable[inspect.Parameter]) -> Iterator[inspect.Parameter]:
    """Yield the parameters, and in place of a dataclass its fields."""
    for parameter in parameters:
        if _is_group(parameter):
            yield from _list_options(_list_fields(parameter.annotation))
        else:
            is_context = typer.Context in get_args(parameter.annotation)
            annotation = typer.Context if is_context else parameter.annotation  # Typer looks for the class itself
            yield parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY)


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


@cache
def _list_fields(arguments: Any) -> tuple[inspect.Parameter, ...]:  # noqa: ANN401  a dataclass
    hints = get_type_hints(arguments, include_extras=True)
    kind, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return tuple(
        inspect.Parameter(
            field.name, kind, default=required if field.default is MISSING else field.default, annotation=hints[field.name]
        )
        for field in fields(arguments)
    )


def _is_listed_last(option: inspect.Parameter) -> bool:
    return any(getattr(part, "rich_help_panel", None) == LAST_PANEL for part in get_args(option.annotation))


def _build_arguments(parameters: Iterable[inspect.Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a function, given the values of the options."""
    return {
        parameter.name: parameter.annotation(**_build_arguments(_list_fields(parameter.annotation), values))
        if _is_group(parameter)
        else values[parameter.name]
        for parameter in parameters
    }


def add_failure_facts(get_facts: GetFacts) -> None:
    """Add the values of `get_facts`, of the latest call, to the JSON error if the running command fails; else do nothing."""
    _failure_facts.get([])[:] = [get_facts]


def _emit_error(error: Exception, facts: list[GetFacts]) -> None:
    translated = translate_os_error(error) if isinstance(error, OSError) else error
    message = translated.message if isinstance(translated, StairError) else f"{type(translated).__name__}: {translated}"
    emit_json(
        {
            "error": message,
            "code": translated.code if isinstance(translated, StairError) else "",
            "remedy": translated.remedy if isinstance(translated, StairError) else "",
            **{name: value for get_facts in facts for name, value in get_facts().items()},
        }
    )
