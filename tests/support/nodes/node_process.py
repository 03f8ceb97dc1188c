"""The processes of test nodes: one server, or several that form a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stair_es.embedded_node import tether
from stair_es.embedded_node.state import fetch_node_json

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1


class SearchNode:
    """One server process. `start`, `kill` and `stop` in any order: data and URL stay."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        port: int,
        base: Path,
        *,
        environ: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Build it, unstarted.

        Args:
            name: For messages.
            argv: Command line of the server.
            port: Of its HTTP API on loopback.
            base: The node's folder.
            environ: Variables besides path, home and language.
            prefix: Command that runs another one as another user. It comes first, because a change of the user loses the bond
                to this process.
        """
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = base / "node.log"
        self._argv = [str(part) for part in argv]
        self._environ = environ or {}
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running node."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> SearchNode:
        """Start it, from a thread that outlives it, and wait until it answers."""
        if not self.running:
            tethered = [sys.executable, "-I", tether.__file__, str(os.getpid())] if sys.platform == "linux" else []
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._prefix, *tethered, *self._argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.log_file.parent,
                    env={**{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}, **self._environ},
                    start_new_session=True,
                )
        if wait:
            self.wait(lambda health: health["status"] in ("green", "yellow"))
        return self

    def wait(self, enough: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the response of `/_cluster/health` is `enough`."""
        end_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end_s:
            if not self.running:
                raise RuntimeError(f"{self.name} ended while it started:\n{self.log_file.read_text(errors='replace')[-3000:]}")
            health = self.get_health()
            if health is not None and enough(health):
                return
            time.sleep(_POLL_S)
        raise RuntimeError(f"{self.name}: not ready after {_START_TIMEOUT_S:.0f} s, see {self.log_file}")

    def get_health(self) -> dict[str, Any] | None:
        """Return the answer of `/_cluster/health`, if there is one."""
        return fetch_node_json(self.url, "/_cluster/health")

    def kill(self) -> None:
        """Send SIGKILL, like a crash, also to a server that the command started."""
        if self._process is not None and self._process.poll() is None:  # later its id may be another's
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> SearchNode:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.kill()


class Cluster:
    """Several nodes that form one cluster, each a process of its own."""

    def __init__(self, nodes: Sequence[SearchNode]) -> None:
        self.nodes = list(nodes)

    @property
    def url(self) -> str:
        """All nodes, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> Cluster:
        """Start those that don't run, and wait until all have found each other and no shard is missing a copy."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait(lambda health: health["number_of_nodes"] == len(self.nodes) and health["status"] == "green")
        return self

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        for node in self.nodes:
            node.kill()
