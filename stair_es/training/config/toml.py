"""Convert TOML tables to dataclasses, with errors that name the place, the value and the allowed values; and write TOML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from stair_es.errors import ConfigError, ModelError, UsageError
from stair_es.system.user_files import parse_toml_text

_T = TypeVar("_T")
NOT_IN_FILE = {"in_file": False}
"""Metadata of a field that the program sets, and no file may."""
_NAMES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list"}
"""Type in msgspec's errors -> description."""
_REMEDIES = {
    "batch.size": "A pair requires other pairs as negatives.",
    "data.tag_share": "Give 0 for captions without tags.",
    "data.train": 'Write [[data.train]] and captions = "train.jsonl" below it.',
    "optim.ema": "For example 0.999; 0 for no average.",
    "stages.flops_warmup": "0 for none.",
    "stages.losses": "Omit a loss that isn't needed.",
    "stages.steps": "Leave the stage out, or give it steps.",
}
"""Key -> what to do about a wrong value; tables of arrays without their numbers."""


def parse_training_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        UsageError: If it isn't valid TOML; the message says where.
    """
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise ConfigError(f"{where} isn't TOML: {error}", "See docs/training.md for an example.") from None


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


def convert_table(values: Mapping[str, Any], cls: type[_T], where: str) -> _T:
    """Convert a table to a dataclass, whose fields may be dataclasses and tuples of them.

    Raises:
        UsageError: If a key is unknown or missing, or a value has the wrong type or is out of range.
    """
    for path, table, section in _find_sections(values, cls, ""):
        _check_keys(table, section, where + path)
    try:
        return msgspec.convert(values, cls, strict=True)
    except msgspec.ValidationError as error:
        raise _translate_error(str(error), values, cls, where) from None
    except (UsageError, ModelError) as error:  # of a check between several values
        raise ConfigError(f"{where}: {error.message}", error.remedy) from None


def _find_sections(value: object, hint: Any, path: str) -> Iterator[tuple[str, dict[str, Any], Any]]:  # noqa: ANN401  a type
    """Yield the tables that become dataclasses: path below `value`, table and dataclass. Values of other types are ignored."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from _find_sections(element, hint, f"{path}[{index}]")
    section = _get_section(hint)
    if section is not None and isinstance(value, dict):
        yield path, value, section
        for name, inner in get_type_hints(section).items():
            yield from _find_sections(value.get(name), inner, f"{path}.{name}")


def _check_keys(table: Mapping[str, Any], section: Any, where: str) -> None:  # noqa: ANN401  a dataclass
    known = [field.name for field in fields(section) if field.metadata.get("in_file", True)]
    if unknown := set(table) - set(known):
        nearest = get_close_matches(min(unknown), known, 1)
        suggestion = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise ConfigError(f"{where}: unknown key {min(unknown)!r}", f"{suggestion}Known here: {', '.join(sorted(known))}.")
    for name, value in table.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):  # msgspec accepts these, TOML has them
                raise ConfigError(f"{where}.{name} must be a number, got {value!r}", "See docs/training.md for an example.")


def _translate_error(message: str, values: Mapping[str, Any], cls: type[Any], where: str) -> UsageError:
    """Translate msgspec's message, such as "Expected `int` >= 2 - at `$.batch.size`"."""
    problem, _, place = message.partition(" - at ")
    value: Any = values
    hint, names, path = cls, "", where
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", place.rpartition("$")[2]):
        value = value[int(index) if index else name]
        hint = hint if index else get_type_hints(_get_section(hint))[name]
        names += f".{name}" if name else ""
        path += f"[{index}]" if index else f".{name}"
    key = names.removeprefix(".")
    remedy = _REMEDIES.get(key, "See docs/training.md for an example.")
    if missing := re.fullmatch("Object missing required field `(.*)`", problem):
        return ConfigError(f"{path}: {missing[1]!r} is missing", f"Write {missing[1]} = ... there.")
    if invalid := re.fullmatch("Invalid enum value (.*)", problem):
        choices = re.findall("'(.+?)'", str(hint))  # of `Literal`, possibly in a tuple or a mapping
        return ConfigError(f"{path}: unknown value {invalid[1]}", f"Choose one of: {', '.join(choices)}.")
    if problem.startswith("Expected `object`"):
        name = key or path.rpartition(".")[2]
        return ConfigError(f"{path} must be a table, got {value!r}", f"Write [{name}] and keys below it.")
    # Of "Expected `int` >= 2" and "Expected `int`, got `str`", the type and its bound.
    expected = re.fullmatch(r"Expected `(\w+)[^`]*`([^,]*).*", problem)
    described = f"{_NAMES.get(expected[1], expected[1])}{expected[2]}" if expected else "in range"
    return ConfigError(f"{path} must be {described}, got {value!r}", remedy)


def _get_section(hint: Any) -> Any:  # noqa: ANN401  types
    """Return the dataclass of a field that is a table or an array of tables; None for other fields."""
    return next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
