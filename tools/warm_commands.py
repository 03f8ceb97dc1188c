"""The command in processes that begin with PyTorch imported: for tests of models that run it many times.

::

    done = run_warm(["encode", "a.jpg", "--model", "tiny"], env=os.environ)

Importing PyTorch takes seconds of CPU each time, the test itself a tenth of one. Here the processes are forked from one that has
imported it, and nothing of ours: arguments, environment, working folder, output and exit code are those of the console script.
Tests of signals, of what is imported, of the very bits (PyTorch counts its threads while it is imported) and of the script itself
start the script.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_TIMEOUT_S = 240.0
_IMPORTED = ("torch", "torch._dynamo", "torch._inductor.test_operators", "torch.distributed.tensor", "scipy.optimize", "sympy")
"""What transformers imports of others. Not transformers itself: it reads the environment while it is imported."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(_IMPORTED))


def run_warm(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as `subprocess.run` with captured text does.

    Raises:
        TimeoutExpired: It takes more than four minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        files[0].write_text(input, encoding="utf-8")
        process = _context.Process(target=_command, args=(list(arguments), dict(env), str(cwd or Path.cwd()), files))
        process.start()
        process.join(_TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), _TIMEOUT_S)
        said, problems = (file.read_text(encoding="utf-8") for file in files[1:])
        return subprocess.CompletedProcess(["stair-es", *arguments], process.exitcode, said, problems)


def _command(arguments: list[str], env: Mapping[str, str], cwd: str, files: Sequence[Path]) -> None:
    """Become the command: what a new process would find, this one finds."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for stream, file in zip(("stdin", "stdout", "stderr"), files, strict=True):
        setattr(sys, stream, file.open("r" if stream == "stdin" else "w", encoding="utf-8"))
    for number, opened in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        os.dup2(opened.fileno(), number)  # for what writes past Python
    sys.argv = ["stair-es", *arguments]
    from stair_es.cli.main import main

    main()
