"""What a command says when it is ended from outside: the installed one, waiting for a server that never answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_ends_a_command_with_its_code_and_a_word(tmp_path: Path, number: int, code: int, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        command = [
            str(Path(sys.executable).with_name("stair-es")),
            *("ingest", str(tmp_path / "a.jpg"), "--json", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"),
        ]
        environment = os.environ | {"STAIR_ES_HOME": str(tmp_path / "home"), "STAIR_ES_URL": ""}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
            try:
                asked, _ = server.accept()
                with asked:
                    running.send_signal(number)
                    out, told = running.communicate(timeout=30)
            finally:
                running.kill()
    assert (running.returncode, out) == (code, "")
    assert told.strip().splitlines()[-1] == said
    assert "Traceback" not in told
