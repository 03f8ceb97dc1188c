"""Hooks of schemathesis, which `SCHEMATHESIS_HOOKS` names: a schema can't say which base64 is an image."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schemathesis

if TYPE_CHECKING:
    from schemathesis import Case, HookContext

_IMAGE = re.compile(r"data:image/[^,]{0,180};base64,[A-Za-z0-9+/]*={0,2}")
_PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "espresso.jpg"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Replace the data URIs that match the schema by that of a photo."""
    case.body = _replace_images(case.body, "data:image/jpeg;base64," + base64.b64encode(_PHOTO.read_bytes()).decode())


def _replace_images(value: Any, photo: str) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, str):
        return photo if _IMAGE.fullmatch(value) else value
    if isinstance(value, list):
        return [_replace_images(each, photo) for each in value]
    if isinstance(value, dict):
        return {name: _replace_images(each, photo) for name, each in value.items()}
    return value
