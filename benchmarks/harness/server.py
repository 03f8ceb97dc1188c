"""A serving command of stair-es in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


@contextmanager
def start_server(*arguments: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a serving command at a free port; yield the URL that it prints, and its process.

    The process is terminated at the end of the block.

    Args:
        arguments: The command and its options, other than `--port` and `--json`.
        variables: Variables of its environment, in addition to those of this process.
    """
    command = [STAIR_ES, *arguments, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield json.loads(line)["url"], process
        finally:
            process.terminate()
