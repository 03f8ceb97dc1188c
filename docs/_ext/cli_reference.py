"""Command-line reference as MyST text, built from the Typer application: every command, option, variable and default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.utils import get_params_from_function

from stair_es.cli.main import app

_NAMES = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_LONE_EXAMPLES = re.compile(r"(?:^`[^`\n]+`(?:\n+|\Z))+", re.MULTILINE)
_MAIN_PANEL = "Options"


def list_commands() -> Iterator[tuple[str, Any]]:
    """Yield `(command line, command)` of the application and all its commands in the order of `--help`, without hidden ones."""
    yield from _walk("stair-es", typer.main.get_command(app))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  Typer's classes move between its versions
    if not command.hidden:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from _walk(f"{path} {name}", child)


def build_reference(*, directives: bool = True) -> str:
    """Return the page.

    Args:
        directives: Whether to use Sphinx's directives for programs and options, so that each can be linked. Without them the
            page is plain Markdown, and examples are marked as text, because the tests run all shell blocks of the repository.
    """
    page = "\n".join(line for path, command in list_commands() for line in _write_command(path, command, directives=directives))
    return page if directives else page.replace("```sh\n", "```text\n")


def _write_command(path: str, command: Any, *, directives: bool) -> Iterator[str]:  # noqa: ANN401
    children = {name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden}
    yield f"## {path}\n"
    if directives:
        yield f"```{{program}} {path}\n```\n"
    yield _join_examples(command.help or "") + "\n"
    if children:
        links = [f"[`{name}`](#{f'{path} {name}'.replace(' ', '-')})" for name in children]
        yield f"Commands: {', '.join(links)}\n"
    infos = get_params_from_function(command.callback) if command.callback else {}
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        if param.param_type_name == "argument":
            name = f"`{param.metavar or param.name}`{'' if param.required else ' (optional)'}"
            yield f"{name}\n: {_describe(param, infos)}\n" if directives else f"- {name}: {_describe(param, infos)}\n"
        elif not getattr(param, "hidden", False):
            panels.setdefault(getattr(param, "rich_help_panel", None) or _MAIN_PANEL, []).append(param)
    for panel, params in panels.items():
        yield f"**{panel}**\n"
        if directives:
            yield from (f"```{{option}} {_join_names(param, infos)}\n{_describe(param, infos)}\n```\n" for param in params)
        else:
            yield from (f"- `{_join_names(param, infos)}`: {_describe(param, infos)}" for param in params)
            yield ""


def _join_examples(text: str) -> str:
    """Return a docstring with consecutive examples joined into one block."""
    return _LONE_EXAMPLES.sub(_build_block, text)


def _build_block(found: re.Match[str]) -> str:
    lines = [line.strip("`") for line in found[0].splitlines() if line]
    return "```sh\n" + "\n".join(lines) + "\n```\n\n"


def _join_names(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    value = "" if param.is_flag else f" {param.metavar or _format_type(_get_value_type(param, infos))}"
    return ", ".join(f"{name}{value}" for name in (*param.opts, *param.secondary_opts))


def _get_value_type(param: Any, infos: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the type of one value: `Path` for `list[Path] | None`."""
    kind = infos[param.name].annotation
    while inner := [part for part in get_args(kind) if part is not type(None)]:
        if get_origin(kind) is Literal:
            break
        kind = inner[0]
    return kind


def _format_type(kind: Any) -> str:  # noqa: ANN401
    return "|".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _NAMES[kind]


def _describe(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    info = infos[param.name].default if param.name in infos else None
    parts = [(param.help or "").strip()]
    if getattr(param, "multiple", False) and "several times" not in parts[0]:
        parts.append("May be given several times.")
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None or high is not None:
        limits = [f"from {low:,}" if low is not None else "", f"up to {high:,}" if high is not None else ""]
        parts.append(f"{' '.join(filter(None, limits)).capitalize()}.")
    if param.required:
        parts.append("Required.")
    if (default := _format_default(param)) is not None:
        parts.append(f"Default: `{default}`.")
    if param.envvar:
        names = [param.envvar] if isinstance(param.envvar, str) else param.envvar
        parts.append(f"Environment: {', '.join(f'`{name}`' for name in names)}.")
    return " ".join(parts)


def _format_default(param: Any) -> str | None:  # noqa: ANN401
    """Return the default as it would be typed; None if there is none to show."""
    shown = getattr(param, "show_default", True)
    if isinstance(shown, str):
        return shown
    value = param.default
    if not shown or value in (None, False, "", [], ()):
        return None
    if value is True:
        return str(param.opts[0])
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
