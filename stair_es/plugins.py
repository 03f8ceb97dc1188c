"""The door for third parties, and for what is built in: entry points by group.

A package adds a source, an encoder, an enricher or a sink by naming an object in its metadata::

    [project.entry-points."stair_es.enrichers"]
    blur-faces = "my_package.blur:KIND"

The Protocols that the objects satisfy are `sources.item.SourceKind`, `model.encoder.EncoderKind`, `ingest.enrich.EnricherKind`
and `ingest.sink.SinkKind`. `API_VERSION` counts up when one of them changes so that older objects no longer fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias, get_args

from stair_es.errors import PluginError

API_VERSION = 1
OURS = "stair-es"

Group: TypeAlias = Literal["sources", "encoders", "enrichers", "sinks"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One entry point, not loaded yet."""

    group: Group
    name: str
    distribution: str
    """The package that brings it; `stair-es` for what is built in."""
    version: str
    """Of that package."""
    entry_point: EntryPoint

    def load(self) -> Any:  # noqa: ANN401  the group's Protocol
        """The object.

        Raises:
            PluginError: Its module can't be imported, the object isn't there, or it was made for another API version.
        """
        try:
            loaded = self.entry_point.load()
        except (Exception, SystemExit) as error:  # a module that exits on import must not take the command with it
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} {self.version} can't be loaded: {type(error).__name__}: {error}",
                f"Update or uninstall {self.distribution}.",
            ) from error
        wanted = getattr(loaded, "api_version", API_VERSION)
        if wanted != API_VERSION:
            raise PluginError(
                f"plugin {self.name!r} of {self.distribution} {self.version} is made for API version {wanted},"
                f" this is {API_VERSION}",
                f"Update {self.distribution}, or stair-es.",
            )
        return loaded


@lru_cache
def found(group: Group) -> tuple[Plugin, ...]:
    """The plugins of a group: third parties' before our own, each by name, so that a plugin may take over a built-in's job."""
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
    return tuple(sorted(plugins.values(), key=lambda plugin: (plugin.distribution == OURS, plugin.name)))


def names(group: Group) -> tuple[str, ...]:
    """What the plugins of a group are called, in alphabetical order."""
    return tuple(sorted({plugin.name for plugin in found(group)}))


def named(group: Group, name: str) -> Plugin | None:
    """The plugin of a group that is called `name`: a third party's, if it has the name of a built-in."""
    return next((plugin for plugin in found(group) if plugin.name == name), None)
