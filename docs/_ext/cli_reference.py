"""Command-line reference as Markdown, built from the Typer application: every command, option, variable and default."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

import typer
from typer.utils import get_params_from_function

from stair_es.cli.main import app

_MAIN_PANEL = "Options"
_NOTE = re.compile(r" *\[(default|env var): ([^\]]+)\]")
"""Defaults and variables that a help text names itself."""
_LABELS = {"default": "Default", "env var": "Environment"}


def list_commands() -> Iterator[tuple[str, Any]]:
    """Yield `(command line, command)` of the application and all its commands in the order of `--help`, without hidden ones."""
    yield from _walk("stair-es", typer.main.get_command(app))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  Typer's classes move between its versions
    if not command.hidden:
        yield path, command
        for name, child in _list_children(command).items():
            yield from _walk(f"{path} {name}", child)


def build_reference(*, directives: bool = True) -> str:
    """Return the page.

    Args:
        directives: Whether to use Sphinx's directives for programs and options, so that each can be linked. Without them the
            page is plain Markdown, and options that several commands share are described once, at the end.
    """
    commands = dict(list_commands())
    shared = {} if directives else _find_shared_panels(commands.values())
    lines = [*_write_contents(commands, [*shared])]
    for path, command in commands.items():
        lines += _write_command(path, command, shared, directives=directives)
    for panel, text in shared.items():
        lines += [f"## {panel}\n", f"Options of {_list_users(panel, commands)}.\n", f"{text}\n"]
    return "\n".join(lines).rstrip()


def _write_contents(commands: dict[str, Any], panels: list[str]) -> Iterator[str]:
    yield from ("| command | |", "|---|---|")
    for path, command in commands.items():
        yield f"| [`{path}`](#{_make_anchor(path)}) | {_get_summary(command)} |"
    yield ""
    if panels:
        yield f"Options of several commands: {_link(panels)}.\n"


def _write_command(path: str, command: Any, shared: dict[str, str], *, directives: bool) -> Iterator[str]:  # noqa: ANN401
    yield f"## {path}\n"
    if directives:
        yield f"```{{program}} {path}\n```\n"
    yield f"{command.help}\n"
    children = [f"[`{name}`](#{_make_anchor(f'{path} {name}')})" for name in _list_children(command)]
    if children and " " in path:
        yield f"**Commands**: {', '.join(children)}\n"
    infos = _get_infos(command)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    if arguments:
        yield "**Arguments**\n"
        yield from (f"- `{_name_argument(param)}`: {_describe(param, infos)}" for param in arguments)
        yield ""
    panels = _group_options(command)
    for panel, params in panels.items():
        if panel in shared:
            continue
        yield f"**{panel}**\n"
        if directives:
            yield from (f"```{{option}} {_list_names(param, infos)}\n{_describe(param, infos)}\n```\n" for param in params)
        else:
            yield f"{_write_options(params, infos)}\n"
    if also := [panel for panel in panels if panel in shared]:
        yield f"Also the options of {_link(also)}.\n"


def _group_options(command: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Return the options of each panel of a command's help."""
    panels = defaultdict[str, list[Any]](list)
    for param in command.params:
        if param.param_type_name == "option" and not getattr(param, "hidden", False):
            panels[getattr(param, "rich_help_panel", None) or _MAIN_PANEL].append(param)
    return panels


def _find_shared_panels(commands: Iterable[Any]) -> dict[str, str]:
    """Return the panels that are the same in several commands, with their options."""
    texts = defaultdict[str, list[str]](list)
    for command in commands:
        infos = _get_infos(command)
        for panel, params in _group_options(command).items():
            texts[panel].append(_write_options(params, infos))
    return {panel: found[0] for panel, found in texts.items() if len(found) > 1 and len(set(found)) == 1}


def _write_options(params: list[Any], infos: dict[str, Any]) -> str:
    return "\n".join(f"- `{_join_names(param, infos)}`: {_describe(param, infos)}" for param in params)


def _list_users(panel: str, commands: dict[str, Any]) -> str:
    names = [f"`{path.removeprefix('stair-es ')}`" for path, command in commands.items() if panel in _group_options(command)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _get_infos(command: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the declarations of a command's parameters; a group may have none."""
    return get_params_from_function(command.callback) if command.callback else {}


def _list_children(command: Any) -> dict[str, Any]:  # noqa: ANN401
    return {name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden}


def _get_summary(command: Any) -> str:  # noqa: ANN401
    return str(command.help).partition("\n\n")[0].replace("\n", " ")


def _make_anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _link(headings: list[str]) -> str:
    return ", ".join(f"[{heading}](#{_make_anchor(heading)})" for heading in headings)


def _name_argument(param: Any) -> str:  # noqa: ANN401
    name = f"{param.metavar or param.name}{'...' if param.nargs == -1 else ''}"
    return name if param.required else f"[{name}]"


def _join_names(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    """Return the names as help prints them: `--index, -i ALIAS`."""
    return f"{', '.join((*param.opts, *param.secondary_opts))}{_name_value(param, infos)}"


def _list_names(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    """Return the names as Sphinx requires them: `--index ALIAS, -i ALIAS`."""
    return ", ".join(f"{name}{_name_value(param, infos)}" for name in (*param.opts, *param.secondary_opts))


def _name_value(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    return "" if param.is_flag else f" {param.metavar or _list_choices(param, infos)}"


def _list_choices(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    kind = infos[param.name].annotation
    while get_origin(kind) is not Literal:
        kind = next(part for part in get_args(kind) if part is not type(None))
    return "|".join(get_args(kind))


def _describe(param: Any, infos: dict[str, Any]) -> str:  # noqa: ANN401
    info = infos[param.name].default if param.name in infos else None
    text = (param.help or "").strip()
    parts = [_NOTE.sub("", text)]
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None and high is not None:
        parts.append(f"From {low:,} to {high:,}.")
    elif low is not None:
        parts.append(f"At least {low:,}.")
    if param.required and param.param_type_name == "option":
        parts.append("Required.")
    if (default := _format_default(param)) is not None:
        parts.append(f"Default: {default}.")
    parts += [f"{_LABELS[name]}: {f'`{value}`' if name == 'env var' else value}." for name, value in _NOTE.findall(text)]
    if param.envvar:
        parts.append(f"Environment: `{param.envvar}`.")
    return " ".join(parts)


def _format_default(param: Any) -> str | None:  # noqa: ANN401
    """Return the default as it would be typed; None if there is none to show."""
    shown, value = getattr(param, "show_default", True), param.default
    if isinstance(shown, str):
        return f"`{shown}`"
    if not shown or value in (None, False, "", [], ()):
        return None
    return f"`{param.opts[0] if value is True else value}`"
