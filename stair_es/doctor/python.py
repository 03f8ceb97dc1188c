"""Python and its installed packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from stair_es import plugins
from stair_es._version import __version__
from stair_es.doctor.result import CheckResult, report_error, report_failure, report_ok, report_warning
from stair_es.errors import PluginError

_OLDEST = (3, 10)


DEVELOPMENT_EXTRAS = {"dev", "docs", "release"}
"""Extras without run-time use: outdated tools of these are not reported."""


def check_python() -> Iterator[CheckResult]:
    """Check the Python version."""
    said = f"stair-es {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST:
        yield report_failure("python", said, "Use Python 3.10 or newer: python3 -m venv .venv")
    else:
        yield report_ok("python", said)


def check_packages() -> Iterator[CheckResult]:
    """Check the packages that stair-es requires."""
    try:
        asked = [Requirement(text) for text in requires("stair-es") or ()]
        extras = metadata("stair-es").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        yield report_warning(
            "packages", "stair-es isn't installed as a package, so its requirements are unknown", "pip install stair-es"
        )
        return
    yield from evaluate_packages(asked, sorted(set(extras) - DEVELOPMENT_EXTRAS), _get_installed_version)


def evaluate_packages(
    asked: Sequence[Requirement], extras: Sequence[str], installed: Callable[[str], str | None]
) -> Iterator[CheckResult]:
    """Evaluate whether each package is installed in a suitable version, and list the installed extras.

    Args:
        asked: Requirements from the package's metadata.
        extras: Extras of the package.
        installed: Returns the installed version of a package, None if it is not installed.
    """
    wrong = dict(_find_wrong_packages(_select_extra(asked, None), installed, needed=True))
    there = []
    for extra in extras:
        own = [each for each in _select_extra(asked, extra) if each not in _select_extra(asked, None)]
        plain = [each for each in own if each.name != "stair-es"]
        if plain and all(installed(each.name) for each in plain):
            there.append(extra)
        wrong |= dict(_find_wrong_packages(plain, installed, needed=False))
    if wrong:
        wanted = " ".join(f"'{each}'" for each in wrong.values())
        yield report_failure("packages", f"missing or unsuitable: {', '.join(wrong)}", f"pip install --upgrade {wanted}")
    else:
        yield report_ok("packages", f"all requirements are met; extras: {', '.join(there) or 'none'}")


def check_plugins() -> Iterator[CheckResult]:
    """Check the plugins of other packages."""
    found = [plugin for group in plugins.PLUGIN_GROUPS for plugin in plugins.list_plugins(group)]
    broken = []
    for plugin in found:
        try:
            plugin.load()
        except PluginError as error:
            broken.append(error)
    yield from (report_error("plugins", each) for each in broken)
    theirs = sorted({plugin.distribution for plugin in found if plugin.distribution != plugins.BUILTIN_DISTRIBUTION})
    if not broken:
        yield report_ok("plugins", f"of {', '.join(theirs)}" if theirs else "built-in only")


def _select_extra(asked: Iterable[Requirement], extra: str | None) -> list[Requirement]:
    return [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra or ""})]


def _find_wrong_packages(
    asked: Iterable[Requirement], installed: Callable[[str], str | None], *, needed: bool
) -> Iterator[tuple[str, str]]:
    """Yield problem -> requirement to install."""
    for each in asked:
        wanted = f"{each.name}{each.specifier}"
        found = installed(each.name)
        if found is None:
            if needed:
                yield f"{each.name} is missing", wanted
        elif not each.specifier.contains(found, prereleases=True):
            yield f"{each.name} {found} (wanted: {each.specifier})", wanted


def _get_installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
