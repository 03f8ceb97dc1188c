"""Discovery of plugins, third-party and built in: entry points by group.

A package adds a source, an encoder, an enricher, a sink or a metric logger by naming an object in its metadata::

    [project.entry-points."stair_es.enrichers"]
    blur-faces = "my_package.blur:KIND"

The objects implement the Protocols `SourceKind` and `EnricherKind`, or are instances of subclasses of `EncoderPlugin` and
`SinkKind`, all of `stair_es.api`; metric loggers are described in `stair_es.training.metric_loggers`. `API_VERSION` is raised
when one of them changes incompatibly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias, get_args

from stair_es._version import __version__
from stair_es.errors import PluginError

API_VERSION = 1
BUILTIN_DISTRIBUTION = "stair-es"

PluginGroup: TypeAlias = Literal["sources", "encoders", "enrichers", "sinks", "metric_loggers"]
PLUGIN_GROUPS: tuple[PluginGroup, ...] = get_args(PluginGroup)


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """An entry point that is not loaded yet."""

    group: PluginGroup
    name: str
    distribution: str
    """The package that provides it; `stair-es` for built-in plugins."""
    version: str
    """Version of that package."""
    entry_point: EntryPoint

    def load(self, base: type = object) -> Any:  # noqa: ANN401  the group's Protocol
        """Load the plugin's object, an instance of `base`.

        Raises:
            PluginError: If its module can't be imported, the object doesn't exist or isn't an instance of `base`, or it was made
                for another API version.
        """
        try:
            loaded = self.entry_point.load()
        except (Exception, SystemExit) as error:  # a module that exits on import must not take the command with it
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} {self.version} can't be loaded: {type(error).__name__}: {error}",
                f"Update or uninstall {self.distribution}.",
                code="plugin-not-loaded",
            ) from error
        version = getattr(loaded, "api_version", API_VERSION)
        if version != API_VERSION:
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} {self.version} is made for API version {version},"
                f" this is {API_VERSION}",
                f"Update {self.distribution}, or stair-es.",
                code="plugin-of-other-api",
            )
        if not isinstance(loaded, base):
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} {self.version} is not an instance of {base.__name__}",
                f"Update {self.distribution}, or derive its class from stair_es.api.{base.__name__}.",
                code="plugin-not-an-instance",
            )
        return loaded


@lru_cache
def list_plugins(group: PluginGroup) -> tuple[Plugin, ...]:
    """List the plugins of a group, third-party ones first, each sorted by name, so that a plugin can replace a built-in."""
    plugins = {
        (point.name, point.value): Plugin(
            group=group,
            name=point.name,
            distribution=point.dist.name if point.dist else "?",
            version=point.dist.version if point.dist else "?",
            entry_point=point,
        )
        for point in entry_points(group=f"stair_es.{group}")
    }
    return tuple(sorted(plugins.values(), key=lambda plugin: (plugin.distribution == BUILTIN_DISTRIBUTION, plugin.name)))


def list_plugin_names(group: PluginGroup) -> tuple[str, ...]:
    """List the names of a group's plugins in alphabetical order."""
    return tuple(sorted({plugin.name for plugin in list_plugins(group)}))


def list_all_plugins() -> list[Plugin]:
    """List the plugins of all groups."""
    return [plugin for group in PLUGIN_GROUPS for plugin in list_plugins(group)]


def list_package_versions() -> dict[str, str]:
    """Return `{package: version}` of stair-es and of all packages with plugins."""
    return {**{plugin.distribution: plugin.version for plugin in list_all_plugins()}, BUILTIN_DISTRIBUTION: __version__}


def get_plugin(group: PluginGroup, name: str) -> Plugin | None:
    """Return the plugin of a group with this name, or None. A third-party plugin takes precedence over a built-in."""
    return next((plugin for plugin in list_plugins(group) if plugin.name == name), None)
