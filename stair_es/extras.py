"""Optional dependencies: import them by name, or say which extra to install."""

from importlib import import_module
from types import ModuleType

from stair_es.errors import MissingExtra


def need(module: str, extra: str) -> ModuleType:
    """The imported module.

    Raises:
        MissingExtra: It isn't installed; the remedy names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtra(
            f"this needs the package {error.name!r}, which isn't installed",
            f"Install it with: pip install 'stair-es[{extra}]'",
        ) from None
