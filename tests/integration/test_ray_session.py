"""Private Ray sessions: access and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

_OWNER = """
import json, os, signal, sys
from pathlib import Path
from stair_es.system import ray_session
from stair_es.errors import StairError

def die_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.environ["RAY_USAGE_STATS_ENABLED"]

with ray_session.open_ray_session("ray", None, error_type=StairError, alternative="") as ray:
    [node] = ray.nodes()
    folder = Path(node["ObjectStoreSocketName"]).parents[3]
    answered = ray.get(ray.remote(max_retries=3)(die_once).remote(folder / "died"))
    address = ray.get_runtime_context().gcs_address
    token = os.environ["RAY_AUTH_TOKEN"]
    print(json.dumps({"address": address, "folder": str(folder), "reports": answered, "token": token}), flush=True)
    sys.stdin.read()
"""
_STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).cluster_id)
"""


def _ask_head(address: str, login: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What another process, which has none of our environment, is answered by the head."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", _STRANGER, address],
        env={**kept, **login},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def session_owner() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process with a session of its own, and what it says of it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "RAY_USAGE_STATS_ENABLED": "0"},
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        yield process, json.loads(line)


@pytest.mark.nightly("another session of Ray")
def test_a_session_of_this_machine_is_closed_to_others(session_owner: tuple[subprocess.Popen[str], dict[str, Any]]) -> None:
    process, session = session_owner
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    heard = {each.laddr.ip for one in family for each in one.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert heard
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert Path(session["folder"]).stat().st_mode & 0o077 == 0, "spilled pictures and logs lie there"

    for login in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}):
        assert "InvalidAuthToken" in _ask_head(session["address"], login).stderr
    status = _ask_head(session["address"], {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": session["token"]})
    assert status.returncode == 0, status.stderr

    out, err = process.communicate()
    assert process.returncode == 0, err
    assert (out, err) == ("", ""), "a worker died and was replaced, which is Ray's business"
    assert not Path(session["folder"]).exists()
