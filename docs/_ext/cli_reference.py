"""The reference of the command line as MyST text, from the Typer application: every command, option, variable and default."""

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


def commands() -> Iterator[tuple[str, Any]]:
    """`(words as they are typed, command)` of the application and all below it, as `--help` lists them; hidden ones left out."""
    yield from _below("stair-es", typer.main.get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  Typer's classes move between its versions
    if not command.hidden:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from _below(f"{path} {name}", child)


def reference(*, directives: bool = True) -> str:
    """The page.

    Args:
        directives: With Sphinx's for programs and options, so that each can be linked; without them it is plain Markdown, with
            examples that only show (the tests run the blocks of a shell in the repository's pages).
    """
    page = "\n".join(line for path, command in commands() for line in _command(path, command, directives=directives))
    return page if directives else page.replace("```sh\n", "```text\n")


def _command(path: str, command: Any, *, directives: bool) -> Iterator[str]:  # noqa: ANN401
    children = {name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden}
    yield f"## {path}\n"
    if directives:
        yield f"```{{program}} {path}\n```\n"
    yield _prose(command.help or "") + "\n"
    if children:
        links = [f"[`{name}`](#{f'{path} {name}'.replace(' ', '-')})" for name in children]
        yield f"Commands: {', '.join(links)}\n"
    metas = get_params_from_function(command.callback) if command.callback else {}
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        if param.param_type_name == "argument":
            name = f"`{param.metavar or param.name}`{'' if param.required else ' (optional)'}"
            yield f"{name}\n: {_about(param, metas)}\n" if directives else f"- {name}: {_about(param, metas)}\n"
        elif not getattr(param, "hidden", False):
            panels.setdefault(getattr(param, "rich_help_panel", None) or _MAIN_PANEL, []).append(param)
    for panel, params in panels.items():
        yield f"**{panel}**\n"
        if directives:
            yield from (f"```{{option}} {_signature(param, metas)}\n{_about(param, metas)}\n```\n" for param in params)
        else:
            yield from (f"- `{_signature(param, metas)}`: {_about(param, metas)}" for param in params)
            yield ""


def _prose(text: str) -> str:
    """A docstring, with the examples that follow each other in one block."""
    return _LONE_EXAMPLES.sub(_block, text)


def _block(found: re.Match[str]) -> str:
    lines = [line.strip("`") for line in found[0].splitlines() if line]
    return "```sh\n" + "\n".join(lines) + "\n```\n\n"


def _signature(param: Any, metas: dict[str, Any]) -> str:  # noqa: ANN401
    value = "" if param.is_flag else f" {param.metavar or _type_name(_annotation(param, metas))}"
    return ", ".join(f"{name}{value}" for name in (*param.opts, *param.secondary_opts))


def _annotation(param: Any, metas: dict[str, Any]) -> Any:  # noqa: ANN401
    """What one value is: `Path` of `list[Path] | None`."""
    kind = metas[param.name].annotation
    while inner := [part for part in get_args(kind) if part is not type(None)]:
        if get_origin(kind) is Literal:
            break
        kind = inner[0]
    return kind


def _type_name(kind: Any) -> str:  # noqa: ANN401
    return "|".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _NAMES[kind]


def _about(param: Any, metas: dict[str, Any]) -> str:  # noqa: ANN401
    info = metas[param.name].default if param.name in metas else None
    parts = [(param.help or "").strip()]
    if getattr(param, "multiple", False) and "several times" not in parts[0]:
        parts.append("May be given several times.")
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None or high is not None:
        limits = [f"from {low:,}" if low is not None else "", f"up to {high:,}" if high is not None else ""]
        parts.append(f"{' '.join(filter(None, limits)).capitalize()}.")
    if param.required:
        parts.append("Required.")
    if (default := _default(param)) is not None:
        parts.append(f"Default: `{default}`.")
    if param.envvar:
        names = [param.envvar] if isinstance(param.envvar, str) else param.envvar
        parts.append(f"Environment: {', '.join(f'`{name}`' for name in names)}.")
    return " ".join(parts)


def _default(param: Any) -> str | None:  # noqa: ANN401
    """As it would be typed; None where there is nothing to say."""
    shown = getattr(param, "show_default", True)
    if isinstance(shown, str):
        return shown
    value = param.default
    if not shown or value in (None, False, "", [], ()):
        return None
    if value is True:
        return str(param.opts[0])
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
