"""`stair_es.api` and `stair_es.search` export every documented name."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from stair_es import api, search


@pytest.mark.parametrize("package", [api, search], ids=["api", "search"])
def test_names_match_the_type_checker(package: ModuleType) -> None:
    body = ast.parse(Path(str(package.__file__)).read_text()).body
    guarded = [statement for node in body if isinstance(node, ast.If) for statement in node.body]
    imports = [
        node for node in (*body, *guarded) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("stair_es.")
    ]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert sorted(homes) == sorted(package.__all__)
    for name, home in homes.items():
        assert getattr(package, name) is getattr(import_module(home), name), name
    with pytest.raises(AttributeError, match="'nothing'"):
        package.nothing  # noqa: B018
