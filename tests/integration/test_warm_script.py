"""The console script and the `python` that tests run many times do what the installed ones do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("program", "arguments", "code"),
    [
        ("stair-es", ["--version"], 0),
        ("stair-es", ["encode", "examples/photos/espresso.jpg"], 0),
        ("stair-es", ["nonsense"], 2),
        ("stair-es", ["search", "a cat", "--url", "http://127.0.0.1:9"], 1),
        ("python", ["-c", "import sys; print(__name__, sys.argv, repr(sys.path[0])); sys.exit('over')", "a"], 1),
        ("python", ["-c", "import atexit; atexit.register(print, 'last'); print('first')"], 0),
        ("python", ["examples/products/search.py", "--help"], 0),
        ("python", ["-m", "no_such_module"], 1),
    ],
)
def test_output_and_exit_code_are_those_of_the_real_program(
    warm_script: Path, program: str, arguments: list[str], code: int
) -> None:
    environment = {**os.environ, "COLUMNS": "60"}
    warm, installed = (
        subprocess.run([script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        for script in (warm_script.with_name(program), PROGRAMS / program)
    )
    assert (warm.returncode, warm.stdout, warm.stderr) == (installed.returncode, installed.stdout, installed.stderr)
    assert warm.returncode == code


def test_stdin_and_environment_are_those_of_the_caller(warm_script: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STAIR_ES_URL": "http://127.0.0.1:9", "STAIR_ES_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [warm_script, "ingest-texts", "-", "--text-tower", "table"],
        input="a brown dog\n",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr
