"""Choose the source kind for a SOURCE argument. Built-in kinds are entry points, as those of plugins are."""

from __future__ import annotations

import logging

from stair_es.errors import PluginError, UsageError
from stair_es.plugins import Plugin, get_plugin, list_plugins
from stair_es.sources.base import Source, SourceKind, SourceOptions

logger = logging.getLogger(__name__)


def open_source(argument: str, options: SourceOptions | None = None) -> Source:
    """Open the source that a SOURCE argument names, by the kind `options.format` or the first kind that accepts it.

    Plugins are asked before the built-in kinds, so a plugin can take over a scheme. A plugin that fails is logged, and
    does not affect the others.

    Raises:
        UsageError: If no kind has that name, or none accepts the argument.
        PluginError: If the requested kind cannot be loaded.
        MissingExtra: If a library that the kind requires is not installed.
    """
    options = options or SourceOptions()
    if options.format is not None:
        plugin = get_plugin("sources", options.format)
        if plugin is None:
            raise UsageError(
                f"no source kind {options.format!r}", f"Available: {_list_kind_names()}.", code="unknown-source-kind"
            )
        kind: SourceKind = plugin.load()
        return kind.open(argument, options)
    problems = list[str]()
    for plugin in list_plugins("sources"):
        try:
            kind = plugin.load()
            accepted = kind.can_open(argument)
        except Exception as error:  # noqa: BLE001  third-party code must not affect the other kinds
            problems.append(_describe_problem(plugin, error))
            logger.warning(problems[-1])
            continue
        if accepted:
            return kind.open(argument, options)
    raise UsageError(
        "; ".join([f"no source kind accepts {argument!r}", *problems]),
        f"Specify its format with --format: {_list_kind_names()}.",
        code="source-not-recognized",
    )


def _describe_problem(plugin: Plugin, error: Exception) -> str:
    if isinstance(error, PluginError):
        return error.message
    return f"source plugin {plugin.name!r} of {plugin.distribution} fails: {type(error).__name__}: {error}"


def _list_kind_names() -> str:
    return ", ".join(dict.fromkeys(plugin.name for plugin in list_plugins("sources"))) or "none; reinstall stair-es"
