"""`stair-es ingest --retry-failed`: the index of the dead letters, and the command that retries them."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, get_args

from stair_es.errors import UsageError

from .arguments import FirstRunOnly

Context: TypeAlias = Any
"""Typer context of a command, or click context of its group; None outside of a command."""

_LOGIN, _VALUE = re.compile(r"//[^/@]*@"), re.compile(r"=[^,]*")


def check_retry_index(dead_letters: Path, index: str, context: Context) -> None:
    """Check that the dead letters belong to the index, or that the command line names another one explicitly.

    Raises:
        UsageError: If they belong to another index.
    """
    from stair_es.ingest.accounting.dead_letters import read_alias

    alias = read_alias(dead_letters)
    if alias is None or alias == index or _is_typed(context, "index"):
        return
    raise UsageError(
        f"the dead letters in {dead_letters} belong to the index {alias!r}, and this run would write into {index!r}",
        f"Add --index {alias}. To write them into the other index, add --index {index}.",
    )


def build_retry_command(dead_letters: str, index: str, context: Context) -> str:
    """Build the command line that retries the dead letters of a run, with the options of that run."""
    root_options = _list_typed(context.parent) if context is not None else ()
    return shlex.join(
        ["stair-es", *root_options, "ingest", "--retry-failed", dead_letters, "--index", index, *_list_typed(context)]
    )


def _list_typed(context: Context) -> Iterator[str]:
    """Yield the options of the command line that a retry needs, quoted as typed."""
    for parameter in context.command.params if context is not None else ():
        name = parameter.name or ""
        if parameter.param_type_name != "option" or not _is_typed(context, name) or _is_first_run_only(context, name):
            continue
        value = context.params.get(name)
        if isinstance(value, bool):
            yield (parameter.opts if value else parameter.secondary_opts)[0]
            continue
        for element in value if isinstance(value, (list, tuple)) else [value]:
            yield from (parameter.opts[0], _mask_secrets(name, str(element)))


def _mask_secrets(name: str, value: str) -> str:
    """Mask logins in URLs, and the values of plugin options."""
    if name == "ray_address":
        from stair_es.system.ray_session import mask_ray_address

        return mask_ray_address(value)
    return _VALUE.sub("=...", value) if name in ("sink", "enrich") else _LOGIN.sub("//...@", value)


def _is_first_run_only(context: Context, name: str) -> bool:
    declared = inspect.signature(context.command.callback).parameters.get(name)
    return declared is not None and FirstRunOnly in get_args(declared.annotation)


def _is_typed(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name) if context is not None else None
    return source is not None and source.name == "COMMANDLINE"
