"""The nodes of a test run: each starts once, for all requests, and ends with the process that owns them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Client
from pathlib import Path

import psutil
import pytest
from support.nodes.shared_nodes import request_node

_OWNER = """
import sys
from contextlib import contextmanager
sys.path.insert(0, sys.argv[1])
from support.nodes.node_process import SearchNode
from support.nodes.shared_nodes import SharedNodes

@contextmanager
def start(kind, folder):
    if kind == "missing":
        raise LookupError("no JDK")
    node = SearchNode(kind, ["/bin/sleep", "600"], 1, folder).start(wait=False)
    yield str(node.pid)
    node.kill()

nodes = SharedNodes(start)
print(nodes.serve(), flush=True)
sys.stdin.read()
nodes.close()
"""


@contextmanager
def start_owner() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that owns nodes, which only sleep; yield it and its address."""
    command: list[str | Path] = [sys.executable, "-c", _OWNER, Path(__file__).parents[1]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        yield owner, owner.stdout.readline().strip()
        owner.kill()


def test_a_node_starts_once_for_all_requests(tmp_path: Path) -> None:
    with start_owner() as (_, address), ThreadPoolExecutor(4) as pool:
        kinds = ["one", "two", "one", "two", "one", "one"]
        pids = list(pool.map(lambda kind: request_node(address, kind, tmp_path / kind), kinds))
        assert len(set(zip(kinds, pids, strict=True))) == len(set(pids)) == 2
        assert all(psutil.Process(int(pid)).is_running() for pid in pids)


def test_all_requests_get_the_reason_of_a_failed_start(tmp_path: Path) -> None:
    with start_owner() as (_, address):
        for _ in range(2):
            with pytest.raises(LookupError, match="no JDK"):
                request_node(address, "missing", tmp_path)


def test_a_worker_that_disconnects_disturbs_no_other(tmp_path: Path) -> None:
    with start_owner() as (_, address):
        Client(address).close()
        assert psutil.Process(int(request_node(address, "one", tmp_path))).is_running()


@pytest.mark.parametrize(
    "killed", [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG"))]
)
def test_nodes_end_with_their_owner(killed: bool, tmp_path: Path) -> None:
    with start_owner() as (owner, address):
        node = psutil.Process(int(request_node(address, "one", tmp_path)))
        if killed:
            owner.kill()
        owner.communicate()
        node.wait(30)
