"""JSON bodies from `mappings/` and `pipelines/`, or a custom file in their place."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from stair_es.errors import ResourceError
from stair_es.system.user_files import read_json_file


def load_json_resource(kind: Literal["mappings", "pipelines"], name: str, override: Path | None = None) -> dict[str, Any]:
    """Load a packaged JSON body, or a custom file in its place.

    Args:
        kind: Package of the body.
        name: Name of the body.
        override: Path of the custom file.

    Raises:
        ResourceError: If the body doesn't exist, or isn't a JSON object.
    """
    source = override or files(f"stair_es.{kind}") / f"{name}.json"
    try:
        body = read_json_file(source) if isinstance(source, Path) else json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResourceError(f"{kind} body {name!r}: can't read {source}: {error}", code="resource-unreadable") from error
    if not isinstance(body, dict):
        raise ResourceError(f"{kind} body {name!r}: {source} is not a JSON object", code="resource-not-an-object")
    return body
