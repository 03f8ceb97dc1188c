"""The environment of a measurement: machine, versions and commit."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stair_es.doctor.machine import get_memory_bytes, list_gpus

PACKAGES = ("stair-es", "numpy", "onnxruntime", "tokenizers", "pillow", "opensearch-py", "ray", "torch", "ray-elasticsearch")
_MEASURED = ("stair_es", "cli", "setup.cfg")
_LOCKS = {
    "OpenSearch": "stair_es/embedded_node/lock.json",
    "OpenSearch with k-NN and neural-search": "tests/support/nodes/opensearch-3.6.0.lock.json",
}


def read_machine(root: Path) -> dict[str, Any]:
    """Return the facts for the table of the page."""
    return {
        "processor": _read_processor(Path("/proc/cpuinfo")),
        "cores": os.cpu_count() or 1,
        "memory": _read_memory(),
        "accelerator": ", ".join(list_gpus()) or "none",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "versions": {"Python": platform.python_version(), **_read_engines(root), **_list_packages()},
        "commit": _read_commit(root),
    }


def read_load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def wait_until_idle(cores: int, timeout_s: float = 180) -> None:
    """Wait until the load average, which includes the last minute, is at most half of the cores, or until the timeout."""
    deadline = time.monotonic() + timeout_s
    while read_load() > cores / 2 and time.monotonic() < deadline:
        time.sleep(5)


def _read_processor(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _read_memory() -> str:
    found = get_memory_bytes()
    return "unknown" if found is None else f"{found / 2**30:.0f} GiB"


def _read_engines(root: Path) -> Mapping[str, str]:
    return {name: json.loads((root / file).read_text(encoding="utf-8"))["opensearch"] for name, file in _LOCKS.items()}


def _list_packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _read_commit(root: Path) -> str:
    """Return the last commit that changed the package: a run isn't older for a change of the documentation."""

    def run_git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout.strip()

    if not shutil.which("git") or (commit := run_git("log", "-1", "--format=%h", "--", *_MEASURED)) is None:
        return "unknown"
    return f"{commit} with changes" if run_git("status", "--porcelain", "--untracked-files=no", "--", *_MEASURED) else commit
