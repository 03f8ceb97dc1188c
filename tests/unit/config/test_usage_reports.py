"""Nothing is reported about who uses the project: the libraries' own reports are off in every process that it starts.

onnxruntime's reports show in its files: with them on, importing it writes an id of the machine below `~/.cache`.
"""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from stair_es import OPT_OUT_VARIABLES, disable_usage_reports
from stair_es.ingest.stages import encode_batch

ROOT = Path(__file__).parents[3]
PHOTO = sorted((ROOT / "examples" / "photos").glob("*.jpg"))[0]
SCRIPT = Path(sys.executable).parent / "stair-es"
REPORTING = sys.platform == "linux" and Version(version("onnxruntime")) >= Version("1.32")
_CI = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID", "BUILDKITE")
"""Where one of these is set, onnxruntime reports nothing."""


def build_environment(folder: Path) -> dict[str, str]:
    """The environment of a user's shell, with empty home, project and temporary folders."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in {*OPT_OUT_VARIABLES, *_CI} and not name.startswith("XDG_")
    }
    folders = {"HOME": folder / "home", "STAIR_ES_HOME": folder / "stair-es", "TMPDIR": folder / "temporary"}
    for path in folders.values():
        path.mkdir()
    return {**environ, **{name: str(path) for name, path in folders.items()}}


def list_files_at_home(folder: Path, *command: str | Path, **variables: str) -> list[str]:
    """Run a command and return the files that it has written into the empty home folder."""
    environment = {**build_environment(folder), **variables}
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    home = Path(environment["HOME"])
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_encoding_an_image_writes_nothing_into_the_home_folder(tmp_path: Path) -> None:
    assert list_files_at_home(tmp_path, SCRIPT, "encode", PHOTO) == []


def test_a_worker_that_unpickles_a_stage_reports_nothing(tmp_path: Path) -> None:
    """As on an existing Ray cluster: the worker has none of the driver's environment."""
    code = f"import pickle\npickle.loads({pickle.dumps(encode_batch)!r})\nimport onnxruntime"
    assert list_files_at_home(tmp_path, sys.executable, "-c", code) == []


@pytest.mark.skipif(not REPORTING, reason="this onnxruntime reports nothing")
def test_reporting_opt_in(tmp_path: Path) -> None:
    """Also checks the method: an onnxruntime that reports writes its files immediately."""
    command = (sys.executable, "-c", "import stair_es, onnxruntime")
    assert any("Microsoft" in name for name in list_files_at_home(tmp_path, *command, ORT_DISABLE_TELEMETRY="0"))


def test_variables_that_the_user_set_are_kept() -> None:
    environ = {"RAY_USAGE_STATS_ENABLED": "1"}
    disable_usage_reports(environ)
    assert environ == {**OPT_OUT_VARIABLES, "RAY_USAGE_STATS_ENABLED": "1"}


@pytest.mark.parametrize("folder", ["scripts", "docs/_ext", "benchmarks", "tests", "examples"])
def test_onnxruntime_is_imported_after_the_package(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        names = [name for node in ast.parse(path.read_text()).body for name in list_imported_packages(node)]
        if "onnxruntime" in names:
            assert "stair_es" in names[: names.index("onnxruntime")], path


def list_imported_packages(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []
