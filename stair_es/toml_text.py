"""TOML, on any Python."""

from __future__ import annotations

import sys
from typing import Any

from stair_es.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse(text: str, where: str, remedy: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        UsageError: It isn't TOML; says where it stops being it.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} isn't TOML: {error}", remedy) from None
