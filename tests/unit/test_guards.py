"""Guards of the source tree: layers, imports, packaging."""

import ast
import configparser
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ("config", "system")
"""Subpackages that every layer may import, like the modules next to them; they import no layer."""
ALLOWED = {
    "sources": set[str](),
    "model": set[str](),
    "embedded_node": set[str](),
    "cluster": {"embedded_node"},
    "ingest": {"model", "sources", "cluster"},
    "search": {"model", "sources", "cluster"},
    "inspection": {"model", "sources", "cluster", "search"},
    "dashboards": {"cluster"},
    "eval": {"model", "sources", "cluster", "search"},
    "training": {"model", "sources", "eval"},
    "distill": {"model", "sources", "eval", "training"},
    "web": {"model", "sources", "cluster", "search", "inspection"},
    "telemetry": {"cluster", "ingest", "web"},
    "doctor": {"embedded_node", "model", "cluster", "search"},
    "api": {"model", "sources", "cluster", "ingest"},
}
"""Layer -> layers that it may import, in addition to itself and those in `SHARED`. Lower layers first."""


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    tree = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "stair_es").rglob("__init__.py")}
    commands = {".".join(("stair_es", *path.parent.relative_to(ROOT).parts)) for path in (ROOT / "cli").rglob("__init__.py")}
    assert listed == tree | commands | {"stair_es.mappings", "stair_es.pipelines"}


def test_packages_are_layers() -> None:
    packages = {path.parent.name for path in (ROOT / "stair_es").glob("*/__init__.py")}
    assert packages - {"cli", "mappings", "pipelines"} == {*ALLOWED, *SHARED}


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_go_downward_only(layer: str) -> None:
    below = list(ALLOWED)[: list(ALLOWED).index(layer)]
    assert ALLOWED[layer] <= set(below)
    for path in _files(ROOT / "stair_es" / layer):
        used = {name.split(".")[1] for name in _imports(path) if name.startswith("stair_es.")} & {*ALLOWED, "cli"}
        assert used <= ALLOWED[layer] | {layer}, path


def test_base_imports_no_layer_or_heavy_module() -> None:
    for path in (
        *(ROOT / "stair_es").glob("*.py"),
        *(path for package in SHARED for path in _files(ROOT / "stair_es" / package)),
    ):
        heavy = {name for name in _imports(path) if name.split(".")[0] in {"torch", "ray", "opensearchpy", "PIL", "onnxruntime"}}
        layers = {name for name in _imports(path) if name.startswith("stair_es.") and name.split(".")[1] in ALLOWED}
        assert not heavy | layers, path


def test_architecture_page_names_exist() -> None:
    pytest.importorskip("torch")
    packages = "|".join([*ALLOWED, *SHARED, "cli", "types", "errors", "plugins", "token_policy"])
    names = re.findall(rf"`((?:{packages})(?:\.\w+)*)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(names) > 80
    for name in names:
        parts = f"stair_es.{name}".split(".")
        found, rest = importlib.import_module("stair_es"), parts[1:]
        while rest and (importlib.util.find_spec(f"{found.__name__}.{rest[0]}") if hasattr(found, "__path__") else None):
            found, rest = importlib.import_module(f"{found.__name__}.{rest[0]}"), rest[1:]
        value: object = found
        for part in rest:
            assert hasattr(value, part), name
            value = getattr(value, part)


def test_two_files_import_ray() -> None:
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (*_files(ROOT / "stair_es"), *_files(ROOT / "cli"))
        if any(name.split(".")[0] == "ray" for name in _imports(path)) or 'import_optional("ray"' in path.read_text()
    }
    assert importing == {"stair_es/system/ray_session.py", "stair_es/training/ray_train.py"}


def test_one_file_imports_opensearch_py() -> None:
    using = [path for path in _files(ROOT / "stair_es") if any(n.split(".")[0] == "opensearchpy" for n in _imports(path))]
    assert [path.relative_to(ROOT).as_posix() for path in using] == ["stair_es/cluster/client/opensearch.py"]


def list_loaded(code: str) -> set[str]:
    """Return the modules that a new process has loaded after this code."""
    code += "\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "ray", "opensearchpy", "onnx", "onnxruntime", "numpy", "PIL", "jgo", "starlette", "uvicorn"}
    loaded = list_loaded("import stair_es.cli.main")
    assert "stair_es.cli.main" in loaded
    assert not heavy & loaded


def test_an_ingest_loads_neither_aiohttp_nor_torch() -> None:
    loaded = list_loaded("import stair_es.ingest.executors.ray, stair_es.ingest.stages")
    assert not loaded & {"opensearchpy", "aiohttp", "torch", "ray"}
    loaded = list_loaded("import stair_es.ingest.sinks.cluster")
    assert "opensearchpy" in loaded
    assert not loaded & {"aiohttp", "torch", "ray"}


def test_a_program_may_use_the_asynchronous_client_as_well() -> None:
    pytest.importorskip("aiohttp")
    code = "import stair_es.cluster.client.opensearch\nfrom opensearchpy import AsyncOpenSearch\nassert AsyncOpenSearch"
    assert "aiohttp" in list_loaded(code)


def test_texts_load_no_image_modules() -> None:
    loaded = list_loaded(
        "from stair_es.model import registry\nfrom stair_es.model.base import ModelSpec\n"
        "registry.load_encoder(ModelSpec(name='stair-mini', text_tower='table')).encode_texts(['a kitten'])"
    )
    assert "stair_es.model.stair_mini.encoder" in loaded
    assert not {"onnx", "onnxruntime", "torch"} & loaded


def test_files_that_run_first_exist(pytestconfig: pytest.Config) -> None:
    tests = ROOT / "tests"
    conftest = pytestconfig.pluginmanager.get_plugin(str(tests / "conftest.py"))
    assert conftest is not None
    assert [first for first in conftest.LONGEST_FIRST if not (tests / first).exists()] == []
