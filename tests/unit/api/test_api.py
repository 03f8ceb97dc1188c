"""`stair_es.api` and `stair_es.search` export every documented name, and load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_a_kind_can_be_written_without_loading_anything_heavy() -> None:
    code = (
        "import sys\nfrom stair_es.api import SourceItem, Source, SourceOptions, ReadError, ModelCard, ImageSpec, Enrichment\n"
        "print(sorted({'torch', 'ray', 'opensearchpy', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_search_package_loads_no_heavy_module() -> None:
    code = (
        "import sys, stair_es.search\n"
        "print(sorted({'torch', 'ray', 'opensearchpy', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
