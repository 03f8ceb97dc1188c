"""A Ray cluster for all rounds of a testbed, because starting one takes most of the time of a short run."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_CODE = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
_TRIES = 3
"""Number of attempts: on a busy machine, Ray gives up its start after 30 seconds."""
_WORKER = "ray::RayWorker"


@dataclass(frozen=True)
class RayCluster:
    """A running Ray cluster."""

    pid: int
    """PID of the root process."""
    environment: Mapping[str, str]
    """Environment of a command that joins the cluster."""

    def list_workers(self) -> list[psutil.Process]:
        """Return the processes that run the stages of an ingest. Ray names a process after its actor."""
        found = []
        for child in psutil.Process(self.pid).children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(_WORKER):
                found.append(child)
        return found


@contextmanager
def start_ray_cluster(environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """Start a Ray cluster with a separate token.

    Raises:
        RuntimeError: If several attempts failed.
    """
    login = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for _ in range(_TRIES):
        with subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment, **login},
        ) as process:
            if process.stdout is None:
                raise RuntimeError("no pipe")
            address = next((line.split()[1] for line in process.stdout if line.startswith("address")), None)
            if address is None:
                continue
            try:
                yield RayCluster(process.pid, {**login, "RAY_ADDRESS": address})
            finally:
                process.communicate("")
            return
    raise RuntimeError(f"Ray didn't start, {_TRIES} times")
