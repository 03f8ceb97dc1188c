"""Take away what Windows lacks, and run the commands that need no cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stair_es.sources.io.uris import to_windows_path

ROOT = Path(__file__).parents[2]
_WITHOUT_POSIX = """
import asyncio, importlib, json, multiprocessing, os, pkgutil, signal, subprocess, sys

NAMES = "anyio filelock fsspec httpx2 onnxruntime opensearchpy platformdirs psutil pyarrow torch transformers uvicorn"
for name in NAMES.split():
    try:
        importlib.import_module(name)  # packages of others have twins for Windows
    except ModuleNotFoundError:
        pass
MISSING = ("fcntl", "grp", "pwd", "resource", "termios")
sys.modules.update(dict.fromkeys(MISSING))
for module, names in (
    (os, "fchmod fork geteuid getpgid getuid killpg register_at_fork sched_getaffinity setsid statvfs sysconf"),
    (os, "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK"),
    (signal, "SIGALRM SIGHUP SIGKILL SIGUSR1 SIGXCPU alarm pthread_sigmask setitimer"),
):
    for name in names.split():
        delattr(module, name)
os.supports_dir_fd = set()

import stair_es.cli
from stair_es.errors import MissingExtra

faults = {}
for package in (stair_es, stair_es.cli):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None):
        try:
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
        except (MissingExtra, ModuleNotFoundError) as error:
            if getattr(error, "name", None) in MISSING:
                faults[found.name] = str(error)
        except Exception as error:
            faults[found.name] = str(error)

from stair_es.cli.main import main

for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    try:
        main()
    except SystemExit as error:
        if error.code:
            faults[" ".join(command)] = error.code
print(json.dumps(faults))
"""


@pytest.mark.nightly("all modules without POSIX; make unit and the workflow on Windows run it for each change")
def test_commands_need_no_posix() -> None:
    commands = [
        ["encode", str(ROOT / "examples" / "photos" / "tabby-cat.jpg")],
        ["encode", "--text", "a cat"],
        ["query", "a cat"],
    ]
    completed = subprocess.run(
        [sys.executable, "-c", _WITHOUT_POSIX, json.dumps(commands)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert completed.returncode == 0, completed.stderr
    *shown, faults = completed.stdout.splitlines()
    assert json.loads(faults) == {}
    assert "cat" in "".join(shown)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [("", "/C:/photos/a b.jpg", "C:/photos/a b.jpg"), ("nas", "/photos/a.jpg", "//nas/photos/a.jpg")],
)
def test_file_uris_become_paths(host: str, path: str, expected: str) -> None:
    assert to_windows_path(host, path) == expected
