"""One bash and one Python a page: what a command exports, and what a block defines, is there for the next."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_POLL_S = 0.05

# Commands come ended by NUL, so that they may have lines; what they print goes into a file, so that what stays in the background
# holds up nobody. The trap sees a command that fails in the middle of several; conditions and `||` are no failures.
_LOOP = r"""
set -o pipefail -E
exec 8>&1 9<&0
shopt -s expand_aliases
while IFS= read -r -d '' __file <&9 && IFS= read -r -d '' __command <&9; do
  __failed=0
  trap '__failed=$?' ERR
  { eval "$__command"; } </dev/null >"$__file" 2>&1 8>&- 9<&-
  trap - ERR
  printf '%d\n' "$__failed" >&8
done
"""

# Each block is a line of JSON, and so is the answer.
_PYTHON = r"""
import contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
names = {"__name__": "__main__"}
for line in sys.stdin:
    block, printed, wrong = json.loads(line), io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block["line"] - 1) + block["text"], block["page"], "exec"), names)
    except BaseException:
        wrong = traceback.format_exc()
    print(json.dumps({"printed": printed.getvalue(), "wrong": wrong}), file=answers, flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """How a command ended."""

    code: int
    printed: str


class CommandTimeout(Exception):
    """A command that did not end or print the expected line in time."""


class Shell:
    """A bash in a process group of its own; all that it started ends with it."""

    def __init__(self, cwd: Path, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs, self._count = logs, 0
        self._python: subprocess.Popen[str] | None = None
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-c", _LOOP],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, command: str, timeout_s: float) -> CommandResult:
        """Run a command to its end.

        Raises:
            CommandTimeout: If it takes longer.
        """
        file = self._send_command(command)
        answer = self._read_answer(self._process.stdout, timeout_s)
        printed = file.read_text(encoding="utf-8", errors="replace")
        if answer is None:
            raise CommandTimeout(f"not done after {timeout_s:.0f} s, or it ended the shell:\n{printed}")
        return CommandResult(code=int(answer), printed=printed)

    def start_background(self, command: str, ready: str, timeout_s: float) -> CommandResult:
        """Start a command that goes on until the page ends; wait until it has printed something like `ready`.

        Raises:
            CommandTimeout: If it ended, or printed nothing of the kind.
        """
        file = self._logs / f"{self._count}.kept"
        started = self.run(f"{{ {command.rstrip().removesuffix('&')}\n}} >{shlex.quote(str(file))} 2>&1 & echo $!", timeout_s)
        process, end_s = int(started.printed), time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            printed = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            if re.search(ready, printed, re.MULTILINE):
                return CommandResult(code=0, printed=printed)
            if not _is_alive(process):
                break
            time.sleep(_POLL_S)
        raise CommandTimeout(
            f"no line with {ready!r} in {timeout_s:.0f} s:\n{file.read_text(encoding='utf-8', errors='replace')}"
        )

    def run_python(self, text: str, page: str, line: int, timeout_s: float) -> CommandResult:
        """Run a block of Python, after the blocks before it, with what the shell has exported when the first came.

        Raises:
            CommandTimeout: If it takes longer.
        """
        if self._python is None:
            variables = self.run("env -0", timeout_s).printed.split("\0")
            environment = dict(each.split("=", 1) for each in variables if each)
            self._python = subprocess.Popen(
                ["python", "-c", _PYTHON],
                cwd=environment["PWD"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        assert self._python.stdin is not None
        self._python.stdin.write(json.dumps({"text": text, "page": page, "line": line}) + "\n")
        self._python.stdin.flush()
        answer = self._read_answer(self._python.stdout, timeout_s)
        if answer is None:
            raise CommandTimeout(f"not done after {timeout_s:.0f} s, or it ended the interpreter")
        reply = json.loads(answer)
        return CommandResult(code=1 if reply["wrong"] else 0, printed=reply["printed"] + reply["wrong"])

    def _send_command(self, command: str) -> Path:
        self._count += 1
        file = self._logs / f"{self._count}.out"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{file}\0{command}\0".encode())
        self._process.stdin.flush()
        return file

    @staticmethod
    def _read_answer(stream: IO[Any] | None, timeout_s: float) -> str | bytes | None:
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], timeout_s)
        return (stream.readline() or None) if ready else None

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in (self._python, self._process):
            if process is not None:
                _end_process(process)


def _is_alive(process: int) -> bool:
    with suppress(OSError):
        os.kill(process, 0)
        return True
    return False


def _end_process(process: subprocess.Popen[Any]) -> None:
    """SIGTERM to its group, then SIGKILL to what is left of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
