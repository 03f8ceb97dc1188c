"""Run the command in processes with PyTorch already imported, for tests of models that run it many times.

::

    done = run_warm(["encode", "a.jpg", "--model", "tiny"], os.environ)

Importing PyTorch takes seconds of CPU each time, the test itself a tenth of one. Here the processes are forked from one that has
imported it, and nothing of ours. Arguments, environment, output and exit code are those of the console script; stdin is empty.
Tests of what is imported and of the script itself start the script. PyTorch counts its threads while it is imported: only
processes that are forked here compute the same bits.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_TIMEOUT_S = 240.0
IMPORTED = (
    *("torch", "torch._dynamo", "torch._inductor.test_operators", "torch.distributed.tensor", "torch.utils.tensorboard"),
    *("torchvision.transforms.v2", "scipy.optimize", "sympy"),
)
"""Dependencies of transformers and of trainings; not transformers itself, which reads the environment on import."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(IMPORTED))


@dataclass(frozen=True)
class WarmCommand:
    """A running command."""

    arguments: Sequence[str]
    process: BaseProcess
    files: Sequence[Path]
    """What it writes to stdout and stderr."""

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return what `subprocess.run` with captured text does.

        Raises:
            TimeoutExpired: If it takes more than four minutes.
        """
        self.process.join(_TIMEOUT_S)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(list(self.arguments), _TIMEOUT_S)
        output, errors = (file.read_text(encoding="utf-8") for file in self.files)
        return subprocess.CompletedProcess(["stair-es", *self.arguments], self.process.exitcode, output, errors)


@contextmanager
def start_warm(arguments: Sequence[str], env: Mapping[str, str]) -> Iterator[WarmCommand]:
    """Start the command; its process ends with the context at the latest."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _context.Process(target=_become_command, args=(list(arguments), dict(env), Path.cwd(), files))
        process.start()
        try:
            yield WarmCommand(arguments, process, files)
        finally:
            process.kill()
            process.join()


def run_warm(arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    with start_warm(arguments, env) as command:
        return command.wait()


def _become_command(arguments: list[str], env: Mapping[str, str], cwd: Path, files: Sequence[Path]) -> None:
    """Run the command in this process with the state of a new one."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.stdout, sys.stderr = (file.open("w", encoding="utf-8") for file in files)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        os.dup2(stream.fileno(), number)  # for what writes past Python
    sys.argv = ["stair-es", *arguments]
    from stair_es.cli.main import main

    main()
