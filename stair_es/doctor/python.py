"""Python and its installed packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from stair_es import plugins
from stair_es._version import __version__
from stair_es.doctor.result import CheckResult
from stair_es.errors import PluginError
from stair_es.optional import format_install_command

_MIN_PYTHON = (3, 10)


DEVELOPMENT_EXTRAS = {"dev", "docs", "release", "unit"}
"""Extras without run-time use: outdated tools of these are not reported."""


def check_python() -> Iterator[CheckResult]:
    """Check the Python version."""
    message = f"stair-es {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < _MIN_PYTHON:
        yield CheckResult.fail("python", message, "Use Python 3.10 or newer: python3 -m venv .venv")
    else:
        yield CheckResult.ok("python", message)


def check_packages() -> Iterator[CheckResult]:
    """Check the packages that stair-es requires."""
    try:
        requirements = [Requirement(text) for text in requires("stair-es") or ()]
        extras = metadata("stair-es").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        message = "stair-es isn't installed as a package, so its requirements are unknown"
        yield CheckResult.warn("packages", message, format_install_command())
        return
    yield from evaluate_packages(requirements, sorted(set(extras) - DEVELOPMENT_EXTRAS), _get_installed_version)


def evaluate_packages(
    requirements: Sequence[Requirement], extras: Sequence[str], installed: Callable[[str], str | None]
) -> Iterator[CheckResult]:
    """Evaluate whether each package is installed in a suitable version, and list the installed extras.

    `installed` returns the version of a package, or None.
    """
    required = _select_extra(requirements, None)
    wrong = dict(_find_wrong_packages(required, installed, required=True))
    complete_extras = []
    for extra in extras:
        others = [other for other in _select_extra(requirements, extra) if other not in required and other.name != "stair-es"]
        if others and all(installed(other.name) for other in others):
            complete_extras.append(extra)
        wrong |= dict(_find_wrong_packages(others, installed, required=False))
    if wrong:
        specifiers = " ".join(f"'{specifier}'" for specifier in wrong.values())
        yield CheckResult.fail("packages", f"missing or unsuitable: {', '.join(wrong)}", f"pip install --upgrade {specifiers}")
    else:
        yield CheckResult.ok("packages", f"all requirements are met; extras: {', '.join(complete_extras) or 'none'}")


def check_plugins() -> Iterator[CheckResult]:
    """Check the plugins of other packages."""
    found = [plugin for group in plugins.PLUGIN_GROUPS for plugin in plugins.list_plugins(group)]
    broken = []
    for plugin in found:
        try:
            plugin.load()
        except PluginError as error:
            broken.append(error)
    yield from (CheckResult.from_error("plugins", error) for error in broken)
    distributions = sorted({plugin.distribution for plugin in found if plugin.distribution != plugins.BUILTIN_DISTRIBUTION})
    if not broken:
        yield CheckResult.ok("plugins", f"of {', '.join(distributions)}" if distributions else "built-in only")


def _select_extra(requirements: Iterable[Requirement], extra: str | None) -> list[Requirement]:
    environment = {"extra": extra or ""}
    return [package for package in requirements if package.marker is None or package.marker.evaluate(environment)]


def _find_wrong_packages(
    requirements: Iterable[Requirement], installed: Callable[[str], str | None], *, required: bool
) -> Iterator[tuple[str, str]]:
    """Yield problem -> requirement to install."""
    for package in requirements:
        requirement = f"{package.name}{package.specifier}"
        found = installed(package.name)
        if found is None:
            if required:
                yield f"{package.name} is missing", requirement
        elif not package.specifier.contains(found, prereleases=True):
            yield f"{package.name} {found} (wanted: {package.specifier})", requirement


def _get_installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
