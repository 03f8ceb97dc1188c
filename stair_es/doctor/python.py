"""Python and its installed packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from stair_es import plugins
from stair_es._version import __version__
from stair_es.doctor.finding import Finding, fail, failed, ok, warn
from stair_es.errors import PluginError

_OLDEST = (3, 10)


OF_DEVELOPMENT = {"dev", "docs", "release"}
"""Extras without run-time use: outdated tools of these are not reported."""


def python_here() -> Iterator[Finding]:
    """Check the Python version."""
    said = f"stair-es {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST:
        yield fail("python", said, "Use Python 3.10 or newer: python3 -m venv .venv")
    else:
        yield ok("python", said)


def packages_here() -> Iterator[Finding]:
    """Check the packages that stair-es requires."""
    try:
        asked = [Requirement(text) for text in requires("stair-es") or ()]
        extras = metadata("stair-es").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        yield warn("packages", "stair-es isn't installed as a package, so its requirements are unknown", "pip install stair-es")
        return
    yield from packages(asked, sorted(set(extras) - OF_DEVELOPMENT), _installed)


def packages(asked: Sequence[Requirement], extras: Sequence[str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Evaluate whether each package is installed in a suitable version, and list the installed extras.

    Args:
        asked: Requirements from the package's metadata.
        extras: Extras of the package.
        installed: Returns the installed version of a package, None if it is not installed.
    """
    wrong = dict(_wrong(_for_extra(asked, None), installed, needed=True))
    there = []
    for extra in extras:
        own = [each for each in _for_extra(asked, extra) if each not in _for_extra(asked, None)]
        plain = [each for each in own if each.name != "stair-es"]
        if plain and all(installed(each.name) for each in plain):
            there.append(extra)
        wrong |= dict(_wrong(plain, installed, needed=False))
    if wrong:
        wanted = " ".join(f"'{each}'" for each in wrong.values())
        yield fail("packages", f"missing or unsuitable: {', '.join(wrong)}", f"pip install --upgrade {wanted}")
    else:
        yield ok("packages", f"all fit; extras: {', '.join(there) or 'none'}")


def plugins_here() -> Iterator[Finding]:
    """Check the plugins of other packages."""
    found = [plugin for group in plugins.GROUPS for plugin in plugins.found(group)]
    broken = []
    for plugin in found:
        try:
            plugin.load()
        except PluginError as error:
            broken.append(error)
    yield from (failed("plugins", each) for each in broken)
    theirs = sorted({plugin.distribution for plugin in found if plugin.distribution != plugins.OURS})
    if not broken:
        yield ok("plugins", f"of {', '.join(theirs)}" if theirs else "built-in only")


def _for_extra(asked: Iterable[Requirement], extra: str | None) -> list[Requirement]:
    return [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra or ""})]


def _wrong(asked: Iterable[Requirement], installed: Callable[[str], str | None], *, needed: bool) -> Iterator[tuple[str, str]]:
    """Yield problem -> requirement to install."""
    for each in asked:
        wanted = f"{each.name}{each.specifier}"
        found = installed(each.name)
        if found is None:
            if needed:
                yield f"{each.name} is missing", wanted
        elif not each.specifier.contains(found, prereleases=True):
            yield f"{each.name} {found} (wanted: {each.specifier})", wanted


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
