"""`stair-es ingest --retry`: the index that dead letters belong to, and the command that takes them up again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from stair_es.errors import UsageError

Context: TypeAlias = Any
"""Typer's of a command, or click's of the group above it; None outside of a command."""

_OF_THE_FIRST_RUN = frozenset(
    {
        *("source_format", "columns", "image_column", "hidden", "follow_links", "retry", "index"),
        *("resync", "dry_run", "swap", "keep", "dead_letters", "as_json", "metrics_file", "metrics_port", "metrics_host"),
    }
)
"""Options that a retry doesn't need: letters hold what they decided, or they are about all images of a source."""

_LOGIN, _VALUE = re.compile(r"//[^/@]*@"), re.compile(r"=[^,]*")


def check_index(letters: Path, index: str, context: Context) -> None:
    """Nothing, if the dead letters came from a run into this index, or the command line names the index.

    Raises:
        UsageError: They belong to another index.
    """
    from stair_es.ingest.dead_letters import read_alias

    theirs = read_alias(letters)
    if theirs is None or theirs == index or _is_typed(context, "index"):
        return
    raise UsageError(
        f"the dead letters in {letters} belong to the index {theirs!r}, and this run would write into {index!r}",
        f"Add --index {theirs}. To write them into the other index after all, add --index {index}.",
    )


def build_retry_command(letters: str, index: str, context: Context) -> str:
    """The command line that takes up the dead letters of a run into `index`, with the options that the run was given."""
    above = _list_typed(context.parent) if context is not None else ()
    return shlex.join(["stair-es", *above, "ingest", "--retry", letters, "--index", index, *_list_typed(context)])


def _list_typed(context: Context) -> Iterator[str]:
    """The options of the command line that a retry needs, as they can be typed again."""
    for parameter in context.command.params if context is not None else ():
        name = parameter.name or ""
        if parameter.param_type_name != "option" or name in _OF_THE_FIRST_RUN or not _is_typed(context, name):
            continue
        value = context.params.get(name)
        if isinstance(value, bool):
            yield (parameter.opts if value else parameter.secondary_opts)[0]
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            yield from (parameter.opts[0], _mask_secrets(name, str(each)))


def _mask_secrets(name: str, value: str) -> str:
    """A login in a URL, and what options of plugins are set to, may be nobody else's business."""
    if name == "ray_address":
        from stair_es.ray_session import mask_address

        return mask_address(value)
    return _VALUE.sub("=...", value) if name in ("sink", "enrich") else _LOGIN.sub("//...@", value)


def _is_typed(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name) if context is not None else None
    return source is not None and source.name == "COMMANDLINE"
