"""The console script that tests run many times does what the installed one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAIR_ES = Path(sys.executable).parent / "stair-es"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["encode", "examples/photos/espresso.jpg"], 0),
        (["nonsense"], 2),
        (["search", "a cat", "--url", "http://127.0.0.1:9"], 1),
    ],
)
def test_output_and_exit_code_are_those_of_the_console_script(warm_script: Path, arguments: list[str], code: int) -> None:
    environment = {**os.environ, "COLUMNS": "60"}
    warm, installed = (
        subprocess.run([script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        for script in (warm_script, STAIR_ES)
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
