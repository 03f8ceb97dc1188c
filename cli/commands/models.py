"""`stair-es models` and `stair-es plugins`: what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stair_es.config.defaults import DEFAULT_MODEL

from ..options import shared
from ..output.bars import escape_control
from ..output.console import emit_json, stdout

if TYPE_CHECKING:
    from stair_es.model.registry import ModelEntry
    from stair_es.plugins import Plugin


def list_models_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print the details of one model.", autocompletion=shared.complete_models),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """List the named models with their vocabulary, size, license and quality, and whether they are installed.

    **Examples**

    ```text
    stair-es models
    stair-es models photos
    stair-es models --json | jq -r ".models[] | select(.cached) | .name"
    ```

    `stair-mini` comes with stair-es and is the default. Models of the Hugging Face hub require the extra `models`, and are
    downloaded on first use. `pages` runs Python code from there: stair-es asks first. This command downloads nothing.
    """
    from stair_es.model import registry

    if name is not None:
        entry = registry.find_listed_model(name)
        if as_json:
            emit_json(entry.to_dict())
        else:
            _print_entry(entry)
        return
    entries = registry.list_models()
    if as_json:
        emit_json({"models": [entry.to_dict() for entry in entries]})
        return
    for entry in entries:
        _print_rows(entry, _build_rows(entry))
    stdout.print("Details: stair-es models NAME. To use one: stair-es ingest ... --model NAME", markup=False)


def _build_rows(entry: ModelEntry) -> list[tuple[str, str]]:
    facts = entry.facts
    return [
        *([("description", entry.description)] if entry.description else []),
        ("source", f"the hub: {', '.join(entry.repositories)}" if entry.repositories else f"the package {entry.origin}"),
        ("size", facts.size),
        *(
            [("runs code", f"Python code of {entry.repositories[0]}: stair-es asks before each version")]
            if entry.runs_code
            else []
        ),
        ("license", "; ".join(entry.licenses) or "unknown"),
        ("languages", facts.languages),
        ("vocabulary", f"{facts.vocabulary}; tokens: {_format_token_count(entry)}"),
        ("recall", f"{facts.recall} ({facts.source})"),
        ("verified", facts.verified),
        ("not verified", facts.unverified),
        ("status", _describe_state(entry)),
    ]


def _print_entry(entry: ModelEntry) -> None:
    from stair_es.model.registry import list_missing_steps
    from stair_es.optional import format_install_command

    extra = format_install_command(entry.extra) if entry.extra else "nothing else"
    use = [("use", f"stair-es ingest ~/Pictures --model {entry.name}"), *(("to do", step) for step in list_missing_steps(entry))]
    _print_rows(entry, [*_build_rows(entry), ("needs", extra), *use])


def _print_rows(entry: ModelEntry, rows: list[tuple[str, str]]) -> None:
    from stair_es.model.hub import UNTESTED

    note = " (the default)" if entry.name == DEFAULT_MODEL else "" if entry.tested else f" ({UNTESTED})"
    stdout.print(Text(f"{escape_control(entry.name, stdout.encoding)}{note}", style="bold"))
    for label, value in rows:
        stdout.print(Text.assemble((f"  {label:<13}", "bold"), escape_control(value, stdout.encoding)))


def _format_token_count(entry: ModelEntry) -> str:
    tokens, on_photos = entry.facts.tokens, entry.facts.photo_tokens
    photographs = f"; {on_photos:,} of them can be on photographs, and GET /v1/vocabulary lists those" if on_photos else ""
    return "unknown" if tokens is None else f"{tokens:,}{photographs}"


def _describe_state(entry: ModelEntry) -> str:
    if entry.problem:
        return "broken"
    if entry.extra is None:
        return "installed"
    extra = "" if entry.extra_installed else f"without the extra {entry.extra}, "
    return f"{extra}{'in the cache' if entry.cached else 'not fetched yet'}"


def list_plugins_command(as_json: shared.JsonOption = False) -> None:
    """List the sources, encoders, enrichers, sinks and metric loggers of stair-es and of installed plugin packages.

    **Examples**

    ```text
    stair-es plugins
    stair-es plugins --json | jq '.plugins[] | select(.package != "stair-es")'
    ```

    A package adds a plugin with an entry point in the group `stair_es.sources`, `stair_es.encoders`, `stair_es.enrichers`,
    `stair_es.sinks` or `stair_es.metric_loggers`. See docs/plugins.md.
    """
    from rich.table import Table

    from stair_es.plugins import API_VERSION, PLUGIN_GROUPS, list_plugins

    rows = [_describe_plugin(plugin) for group in PLUGIN_GROUPS for plugin in list_plugins(group)]
    if as_json:
        emit_json({"api_version": API_VERSION, "plugins": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "name", "package", "description"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (row["name"], f"{row['package']} {row['version']}", row["problem"] or row["description"])
        name, package, description = map(_escape_markup, cells)
        table.add_row(row["group"], name, package, f"[red]{description}[/red]" if row["problem"] else description)
    stdout.print(table)


def _describe_plugin(plugin: Plugin) -> dict[str, Any]:
    from stair_es.errors import PluginError

    description, problem = "", None
    try:
        loaded = plugin.load()
        description = str(getattr(loaded.card if plugin.group == "encoders" else loaded, "description", ""))
    except PluginError as error:
        problem = error.message
    return {
        "group": plugin.group,
        "name": plugin.name,
        "package": plugin.distribution,
        "version": plugin.version,
        "object": plugin.entry_point.value,
        "description": description,
        "problem": problem,
    }


def _escape_markup(text: str) -> str:
    from rich.markup import escape

    return escape(text)
