"""What is added to every command: groups of options, read by functions or as a dataclass, and errors as JSON with `--json`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import fields
from functools import wraps
from typing import Any, Generic, TypeAlias, TypeVar, get_type_hints

import typer

from stair_es.errors import StairError

from ..output.console import emit_json, translate_os_error

_R = TypeVar("_R")
_T = TypeVar("_T")
GetFacts: TypeAlias = Callable[[], Mapping[str, Any]]
_failure_facts: ContextVar[list[GetFacts]] = ContextVar("failure_facts")


class OptionGroup:
    """A group of options."""

    def __init__(self, options: Mapping[str, tuple[Any, Any]]) -> None:
        """Declare the group.

        Args:
            options: Parameter -> its Typer annotation and its default.
        """
        self._options = options
        self._values: ContextVar[Mapping[str, Any]] = ContextVar("given")

    @property
    def values(self) -> Mapping[str, Any]:
        """Values of the running command; the defaults outside of a command."""
        return self._values.get({name: default for name, (_, default) in self._options.items()})

    def decorate(self, command: Callable[..., _R]) -> Callable[..., _R]:
        """Return the command with these options added; an option that the command declares itself is passed on to it, too."""
        signature = inspect.signature(command, eval_str=True)

        @wraps(command)
        def run_with_options(*args: object, **values: Any) -> _R:  # noqa: ANN401  whatever the command takes
            token = self._values.set({name: values.get(name, default) for name, (_, default) in self._options.items()})
            passed = {name: value for name, value in values.items() if name in signature.parameters or name not in self._options}
            try:
                return command(*args, **passed)
            finally:
                self._values.reset(token)

        keyword_only = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, keyword_only, default=default, annotation=annotation)
            for name, (annotation, default) in self._options.items()
            if name not in signature.parameters
        ]
        parameters = [*signature.parameters.values(), *added]
        run_with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        # The command's own annotations are strings, and Typer would evaluate each twice.
        run_with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run_with_options


class ArgumentGroup(OptionGroup, Generic[_T]):
    """A group of options that are the fields of a dataclass: their annotations are Typer's, and each has a default."""

    def __init__(self, arguments: type[_T]) -> None:
        annotations = get_type_hints(arguments, include_extras=True)
        dataclass_type: Any = arguments
        super().__init__({field.name: (annotations[field.name], field.default) for field in fields(dataclass_type)})
        self._arguments = arguments

    def read(self) -> _T:
        """Return the values of the running command."""
        return self._arguments(**self.values)


def prepare_command(*groups: OptionGroup) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return a decorator for each command: it adds the options of the groups, and reports errors as JSON with `--json`."""

    def decorate(command: Callable[..., _R]) -> Callable[..., _R]:
        for group in groups:
            command = group.decorate(command)
        return with_json_errors(command)

    return decorate


def with_json_errors(command: Callable[..., _R]) -> Callable[..., _R]:
    """Return the command so that with `as_json` it prints an object with its error, remedy and failure facts to stdout.

    Exit code and stderr don't change.
    """

    @wraps(command)
    def run_with_json_errors(*args: object, **values: Any) -> _R:  # noqa: ANN401  whatever the command takes
        facts: list[GetFacts] = []
        token = _failure_facts.set(facts)
        try:
            return command(*args, **values)
        except (typer.Exit, typer.Abort):  # no failure: the command has printed its result
            raise
        except Exception as error:
            if values.get("as_json"):
                _emit_error(error, facts)
            raise
        finally:
            _failure_facts.reset(token)

    return run_with_json_errors


def add_failure_facts(get_facts: GetFacts) -> None:
    """Add the values of `get_facts` to the JSON error if the running command fails; outside of a command do nothing."""
    _failure_facts.get([]).append(get_facts)


def _emit_error(error: Exception, facts: list[GetFacts]) -> None:
    translated = translate_os_error(error) if isinstance(error, OSError) else error
    message = translated.message if isinstance(translated, StairError) else f"{type(translated).__name__}: {translated}"
    emit_json(
        {
            "error": message,
            "remedy": getattr(translated, "remedy", ""),
            **{name: value for get_facts in facts for name, value in get_facts().items()},
        }
    )
