"""`stair_es.api`: every name is there, is the thing itself, and costs only its own module."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from stair_es import api


def test_every_name_is_the_one_that_the_type_checker_sees() -> None:
    guarded = [node for node in ast.parse(Path(api.__file__).read_text()).body if isinstance(node, ast.If)]
    [imports] = [[each for each in node.body if isinstance(each, ast.ImportFrom)] for node in guarded]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert sorted(homes) == sorted(api.__all__)
    for name, home in homes.items():
        assert getattr(api, name) is getattr(import_module(home), name), name


def test_a_kind_can_be_written_without_loading_anything_heavy() -> None:
    code = (
        "import sys\nfrom stair_es.api import Item, Source, SourceOptions, ReadError, ModelCard, ImageSpec, Enrichment\n"
        "print(sorted({'torch', 'ray', 'opensearchpy', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
