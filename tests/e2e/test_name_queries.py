"""A run looks up no host names except those that it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stair_es import OPT_OUT_VARIABLES

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photos" / "tabby-cat.jpg"
WATCHED_S = 12
"""onnxruntime's first report comes after nine seconds. Only waiting shows that it doesn't come."""
_ENCODE = f"""
import time
from stair_es.cli.main import app
app(["encode", {str(PHOTO)!r}], standalone_mode=False)
time.sleep({WATCHED_S})
"""


@pytest.mark.nightly("names that libraries look up")
@pytest.mark.skipif(not (os.environ.get("CI") or shutil.which("unshare")), reason="needs the namespaces of Linux")
def test_encoding_looks_no_name_up(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in {*OPT_OUT_VARIABLES, "CI"}}
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "browser" / "name_queries.py", sys.executable, "-c", _ENCODE],
        env={**environ, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert PHOTO.name in result.stderr
    assert result.stdout.split() == []
