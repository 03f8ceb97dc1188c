"""Which source kind opens a SOURCE argument: the kinds come through the plugin door, the built-in ones too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.errors import PluginError, UsageError
from stair_es.plugins import Plugin, found, named
from stair_es.sources.item import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from stair_es.sources.item import Source, SourceKind


def open_source(argument: str, options: SourceOptions | None = None, say: Callable[[str], None] | None = None) -> Source:
    """The source that a SOURCE argument stands for: of the kind `options.format`, else of the first kind that claims it.

    Plugins are asked before the built-in kinds, so that one can take over a scheme. `say` hears of plugins that fail: they
    stop nothing else.

    Raises:
        UsageError: No kind has that name, or none claims the argument.
        PluginError: The kind that was asked for by name can't be loaded.
        MissingExtra: A library that its kind needs isn't installed.
    """
    options = options or SourceOptions()
    if options.format is not None:
        plugin = named("sources", options.format)
        if plugin is None:
            raise UsageError(f"no source kind {options.format!r}", f"There are: {_names()}.")
        kind: SourceKind = plugin.load()
        return kind.open(argument, options)
    problems = list[str]()
    for plugin in found("sources"):
        try:
            kind = plugin.load()
            claimed = kind.claims(argument)
        except Exception as error:  # noqa: BLE001  a stranger's code must not stop the other kinds
            problems.append(_problem(plugin, error))
            if say:
                say(problems[-1])
            continue
        if claimed:
            return kind.open(argument, options)
    raise UsageError(
        "; ".join([f"can't tell what the source {argument!r} is", *problems]), f"Name its kind with --format: {_names()}."
    )


def _problem(plugin: Plugin, error: Exception) -> str:
    if isinstance(error, PluginError):
        return error.message
    return f"source plugin {plugin.name!r} of {plugin.distribution} fails: {type(error).__name__}: {error}"


def _names() -> str:
    return ", ".join(dict.fromkeys(plugin.name for plugin in found("sources"))) or "none; reinstall stair-es"
