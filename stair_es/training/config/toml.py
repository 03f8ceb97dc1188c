"""Read TOML tables into dataclasses, with errors that name the place, the value and the allowed values."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from stair_es.config.file import parse_toml as parse_toml
from stair_es.errors import ModelError, UsageError

_T = TypeVar("_T")


def parse_training_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        UsageError: If it isn't valid TOML; the message says where.
    """
    return parse_toml(text, where, "See docs/training.md for an example.")


def dump_toml(values: Mapping[str, Any]) -> str:
    """Return values as TOML; `parse_training_toml` returns the same values."""
    return "\n".join(_format_lines(values, ())) + "\n"


def _format_lines(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield plain values first: everything after the header of a table belongs to it."""
    yield from (f"{_format_key(name)} = {_format_value(value)}" for name, value in values.items() if not _is_table(value))
    for name, value in values.items():
        if not _is_table(value):
            continue
        inner = (*path, _format_key(name))
        for element in value if isinstance(value, list) else [value]:
            yield ("[[{}]]" if isinstance(value, list) else "[{}]").format(".".join(inner))
            yield from _format_lines(element, inner)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value))


def _format_value(value: Any) -> str:  # noqa: ANN401  whatever TOML has
    if isinstance(value, list):
        return f"[{', '.join(map(_format_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_format_key(name)} = {_format_value(element)}" for name, element in value.items()) + "}"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def _format_key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    return name if plain else _format_value(name)


class TableReader:
    """A TOML table, with its name for error messages."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def build_dataclass(self, cls: type[_T], skip: Collection[str] = (), **overrides: Any) -> _T:  # noqa: ANN401  values of its fields
        """Build a dataclass from the values of this table.

        Args:
            cls: The dataclass; errors of its own checks are prefixed with the place.
            skip: Keys of the table that aren't fields, or are read separately.
            overrides: Fields that don't come from the table.

        Raises:
            UsageError: If a key is unknown or missing, or a value has the wrong type or is out of range.
        """
        hints = get_type_hints(cls)
        init_fields = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
        unknown = set(self.values) - set(init_fields) - set(skip)
        if unknown:
            names = sorted((set(init_fields) | set(skip)) - set(overrides))
            raise UsageError(f"{self.where}: unknown key {min(unknown)!r}", f"Known here: {', '.join(names)}.")
        values = {
            name: self._get_typed(name, hints[name])
            for name in init_fields
            if name in self.values and name not in {*skip, *overrides}
        }
        for name, field in init_fields.items():
            if name not in {*values, *overrides, *skip} and field.default is MISSING and field.default_factory is MISSING:
                raise UsageError(f"{self.where}: {name!r} is missing", f"Write {name} = ... there.")
        try:
            return cls(**values, **overrides)
        except (UsageError, ModelError) as error:
            raise UsageError(f"{self.where}: {error.message}", error.remedy) from None

    def get_table(self, name: str) -> TableReader:
        """Return the table of this name; an empty one if it is missing.

        Raises:
            UsageError: If it isn't a table.
        """
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise UsageError(f"{self.where}.{name} must be a table, got {value!r}", f"Write [{name}] and keys below it.")
        return TableReader(value, f"{self.where}.{name}")

    def get_tables(self, name: str) -> list[TableReader]:
        """Return the tables of an array; none if it is missing.

        Raises:
            UsageError: If it isn't an array of tables.
        """
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
            raise UsageError(f"{self.where}.{name} must be an array of tables", f"Write [[{name}]] for each.")
        return [TableReader(element, f"{self.where}.{name}[{index}]") for index, element in enumerate(value)]

    def get_number(self, name: str) -> float:
        """Return the number of this name.

        Raises:
            UsageError: If it isn't a number.
        """
        value: float = self._get_typed(name, float)
        return value

    def check_choice(self, what: str, value: str, choices: tuple[Any, ...]) -> Any:  # noqa: ANN401  the value
        """Check that a value is one of the known ones, and return it.

        Raises:
            UsageError: If it isn't.
        """
        if value not in choices:
            raise UsageError(f"{self.where}: unknown {what} {value!r}", f"Choose one of: {', '.join(map(str, choices))}.")
        return value

    def _get_typed(self, name: str, hint: Any) -> Any:  # noqa: ANN401
        value = self.values[name]
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(value, int) and not isinstance(value, bool) and hint is float:
            value = float(value)
        if not _is_of_type(value, hint):
            got = list(value) if isinstance(value, tuple) else value
            raise UsageError(
                f"{self.where}.{name} must be {_describe_type(hint)}, got {got!r}", "See docs/training.md for an example."
            )
        return value


def _is_of_type(value: object, hint: Any) -> bool:  # noqa: ANN401
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        length = None if inner[-1] is Ellipsis else len(inner)
        return (
            isinstance(value, tuple)
            and len(value) == (length or len(value))
            and all(_is_of_type(element, inner[0]) for element in value)
        )
    if origin is not None and inner and isinstance(inner[0], str):  # a Literal
        return value in inner
    if origin is not None and type(None) in inner:
        return any(_is_of_type(value, each) for each in inner if each is not type(None))
    if hint in (int, float):
        number = isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
        return number and math.isfinite(value)  # type: ignore[arg-type]  # a number, by now
    if isinstance(origin or hint, type):
        return isinstance(value, Mapping if origin is not None else hint)
    return True


def _describe_type(hint: Any) -> str:  # noqa: ANN401
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if hint in names:
        return names[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return "a list" if inner[-1] is Ellipsis else f"a list of {len(inner)} numbers"
    if origin is not None and inner and isinstance(inner[0], str):
        return f"one of {', '.join(inner)}"
    members = [member for member in inner if member is not type(None)]
    return _describe_type(members[0]) if members else str(hint)
