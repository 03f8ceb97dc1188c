"""`stair-es plugins`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...options import shared
from ...output.console import emit_json, stdout

if TYPE_CHECKING:
    from stair_es.plugins import Plugin


@dataclass(frozen=True)
class _Row:
    plugin: Plugin
    description: str
    problem: str

    def to_dict(self) -> dict[str, Any]:
        plugin = self.plugin
        return {
            "group": plugin.group,
            "name": plugin.name,
            "package": plugin.distribution,
            "version": plugin.version,
            "object": plugin.entry_point.value,
            "description": self.description,
            "problem": self.problem or None,
        }


def list_plugins_command(as_json: shared.JsonOption = False) -> None:
    """List the sources, encoders, enrichers and sinks of stair-es and of installed plugin packages.

    **Examples**

    ```text
    stair-es plugins
    stair-es plugins --json | jq '.plugins[] | select(.package != "stair-es")'
    ```

    A package adds a plugin with an entry point in the group `stair_es.sources`, `stair_es.encoders`, `stair_es.enrichers` or
    `stair_es.sinks`. See docs/plugins.md.
    """
    from rich.table import Table

    from stair_es.plugins import API_VERSION, PLUGIN_GROUPS, list_plugins

    rows = [_load_row(plugin) for group in PLUGIN_GROUPS for plugin in list_plugins(group)]
    if as_json:
        emit_json({"api_version": API_VERSION, "plugins": [row.to_dict() for row in rows]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "name", "package", "description"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        plugin = row.plugin
        description = f"[red]{_escape_markup(row.problem)}[/red]" if row.problem else _escape_markup(row.description)
        table.add_row(
            plugin.group, _escape_markup(plugin.name), _escape_markup(f"{plugin.distribution} {plugin.version}"), description
        )
    stdout.print(table)


def _load_row(plugin: Plugin) -> _Row:
    from stair_es.errors import PluginError

    try:
        loaded = plugin.load()
    except PluginError as error:
        return _Row(plugin, "", error.message)
    described = loaded.card if plugin.group == "encoders" else loaded
    return _Row(plugin, str(getattr(described, "description", "")), "")


def _escape_markup(text: str) -> str:
    from rich.markup import escape

    return escape(text)
