"""Optional dependencies: import them by name, or name the extra to install."""

from __future__ import annotations

import json
import shlex
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from stair_es.errors import MissingExtra


def import_optional(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Returns:
        The module.

    Raises:
        MissingExtra: If it isn't installed; the remedy names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise _build_missing_error(error.name, extra) from None


def is_installed(*modules: str) -> bool:
    """Return whether all of these modules can be imported. None of them is imported."""
    return all(find_spec(module) is not None for module in modules)


def check_installed(*modules: str, extra: str) -> None:
    """Raise MissingExtra if one of these modules isn't installed, naming the extra that provides it. None is imported."""
    for module in modules:
        if not is_installed(module):
            raise _build_missing_error(module, extra)


def format_install_command(extra: str | None = None) -> str:
    """Return the command that installs stair-es with an extra, from where this installation came.

    A copy from a package index is extended from there. A clone, a wheel file or a repository is named again, as pip recorded it
    (`direct_url.json`, PEP 610), so the command also works for versions that no index has.
    """
    extras = f"[{extra}]" if extra else ""
    origin = _read_origin()
    if origin is None:
        requirement = [f"stair-es{extras}"]
    elif "dir_info" in origin:
        folder = unquote(urlsplit(origin["url"]).path)
        requirement = [*(["-e"] if origin["dir_info"].get("editable") else []), f"{folder}{extras}"]
    else:
        requirement = [f"stair-es{extras} @ {origin['url']}"]
    return shlex.join(["pip", "install", *requirement])


def _read_origin() -> dict[str, Any] | None:
    """Return what pip recorded about a direct URL; None if stair-es came from a package index, or its folder or file is gone."""
    try:
        installed = distribution("stair-es")
    except PackageNotFoundError:
        installed = None
    if installed is None or installed.read_text("METADATA") is None:  # a source tree, with or without its egg-info
        return {"url": Path(__file__).resolve().parents[1].as_uri(), "dir_info": {"editable": True}}
    text = installed.read_text("direct_url.json")
    if not text:
        return None
    origin: dict[str, Any] = json.loads(text)
    if vcs := origin.get("vcs_info"):
        origin["url"] = f"{vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    url = urlsplit(origin["url"])
    is_gone = url.scheme == "file" and not Path(unquote(url.path)).exists()  # such as the wheel of the container image
    return None if is_gone else origin


def _build_missing_error(module: str, extra: str) -> MissingExtra:
    return MissingExtra(
        f"this needs the package {module!r}, which isn't installed", f"Install it with: {format_install_command(extra)}"
    )
