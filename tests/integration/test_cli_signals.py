"""Signals: how the installed command ends while it waits for a server that never responds."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = str(Path(sys.executable).with_name("stair-es"))


@pytest.fixture(autouse=True)
def reset_sighup() -> Iterator[None]:
    """Commands inherit what is ignored, and a suite that runs under nohup has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def run_waiting_ingest(
    tmp_path: Path, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE, *, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run an ingest that waits for the answer of its cluster."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [*before, SCRIPT, "ingest", str(tmp_path / "a.jpg"), "--json", "--url", url]
        environment = os.environ | {"STAIR_ES_HOME": str(tmp_path / "home"), "STAIR_ES_URL": ""}
        stdin = stdout if stdout > 0 else subprocess.DEVNULL
        with subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, text=True, env=environment) as running:
            try:
                request, _ = server.accept()
                with request:
                    yield running
                    running.wait(120)
            finally:
                running.kill()


@pytest.mark.parametrize(
    ("number", "exit_code", "message"),
    [
        (signal.SIGHUP, 129, "terminated by SIGHUP"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated by SIGTERM"),
    ],
)
def test_signals_end_commands_with_code_and_message(tmp_path: Path, number: int, exit_code: int, message: str) -> None:
    with run_waiting_ingest(tmp_path) as running:
        running.send_signal(number)
        out, errors = running.communicate(timeout=120)
    assert (running.returncode, out) == (exit_code, "")
    assert errors.strip().splitlines()[-1] == message
    assert "Traceback" not in errors


def test_under_nohup_a_command_continues(tmp_path: Path) -> None:
    with run_waiting_ingest(tmp_path, before=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")) as running:
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    assert running.returncode == 143


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid (util-linux) makes the terminal the command's own")
def test_closed_terminals_clean_up(tmp_path: Path) -> None:
    parent_end, terminal = pty.openpty()
    with run_waiting_ingest(tmp_path, terminal, terminal, before=("setsid", "--ctty")) as running:
        os.close(terminal)
        os.close(parent_end)
    assert running.returncode == 129  # and not that of an error while it wrote to a terminal that isn't there
