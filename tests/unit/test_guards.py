"""What must stay true of the source tree itself."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    "embedded_node",
    "model",
    "sources",
    "cluster",
    "ingest",
    "search",
    "eval",
    "training",
    "inspection",
    "dashboards",
    "web",
    "telemetry",
    "api",
    "doctor",
]
"""Subpackages, lowest first where one builds on another; a file may import from its own layer and those in `ALLOWED`."""
ALLOWED = {
    "embedded_node": set[str](),
    "model": {"sources"},
    "sources": set[str](),
    "cluster": set[str](),
    "ingest": {"model", "sources", "cluster"},
    "search": {"model", "sources", "cluster"},
    "eval": {"model", "sources", "cluster", "ingest", "search"},
    "training": {"model", "sources", "eval"},
    "inspection": {"model", "sources", "cluster", "search"},
    "dashboards": {"cluster"},
    "web": {"model", "sources", "cluster", "search", "inspection"},
    "telemetry": {"cluster", "ingest", "web"},
    "api": {"model", "sources", "cluster", "ingest", "eval"},
    "doctor": {"embedded_node", "model", "cluster", "search"},
}


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


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_downward_only(layer: str) -> None:
    for path in _files(ROOT / "stair_es" / layer):
        used = {name.split(".")[1] for name in _imports(path) if name.startswith("stair_es.")} & set(LAYERS)
        assert used <= ALLOWED[layer] | {layer}, path


def test_the_base_imports_no_layer_and_nothing_heavy() -> None:
    for path in (ROOT / "stair_es").glob("*.py"):
        heavy = {name for name in _imports(path) if name.split(".")[0] in {"torch", "ray", "opensearchpy", "PIL", "onnxruntime"}}
        layers = {name for name in _imports(path) if name.startswith("stair_es.") and name.split(".")[1] in LAYERS}
        assert not heavy | layers, path


def test_two_files_import_ray() -> None:
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (*_files(ROOT / "stair_es"), *_files(ROOT / "cli"))
        if any(name.split(".")[0] == "ray" for name in _imports(path)) or 'import_optional("ray"' in path.read_text()
    }
    assert importing == {"stair_es/system/ray_session.py", "stair_es/training/ray_train.py"}


def list_loaded(code: str) -> set[str]:
    """Return the modules that a new process has loaded after this code."""
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "ray", "opensearchpy", "onnx", "onnxruntime", "numpy", "PIL", "jgo", "starlette", "uvicorn"}
    loaded = list_loaded("import stair_es.cli.main")
    assert "stair_es.cli.main" in loaded
    assert not heavy & loaded


def test_texts_load_nothing_that_images_need() -> None:
    loaded = list_loaded(
        "from stair_es.model import registry\nfrom stair_es.model.base import ModelSpec\n"
        "registry.load_encoder(ModelSpec(name='stair-mini', text_tower='table')).encode_texts(['a kitten'])"
    )
    assert "stair_es.model.stair_mini.encoder" in loaded
    assert not {"onnx", "onnxruntime", "torch"} & loaded
