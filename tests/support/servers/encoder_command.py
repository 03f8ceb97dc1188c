"""The installed `stair-es encoder`, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_encoder(*arguments: str | Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command on a free port, and yield its process and its URL.

    Raises:
        RuntimeError: If it doesn't start.
    """
    command = [Path(sys.executable).with_name("stair-es"), "encoder", "--port", "0", "--json", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError(f"`stair-es encoder` ended with {process.wait()}: {process.stderr and process.stderr.read()}")
            yield process, str(json.loads(line)["url"])
        finally:
            process.kill()
