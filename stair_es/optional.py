"""Optional dependencies: import them by name, or name the extra to install."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

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


def _build_missing_error(module: str, extra: str) -> MissingExtra:
    return MissingExtra(
        f"this needs the package {module!r}, which isn't installed", f"Install it with: pip install 'stair-es[{extra}]'"
    )
