"""The specification of a node: its files and how it runs. No I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stair_es.config.defaults import DataDir
from stair_es.errors import UsageError

ENV_PORT = "STAIR_ES_NODE_PORT"
ENV_HEAP = "STAIR_ES_NODE_HEAP"
DEFAULT_HEAP = "512m"

_HEAP = re.compile(r"(\d+)([mMgG])")
_MIN_HEAP_MB = 128


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One embedded node.

    Raises:
        UsageError: On construction, if the port or the heap size is invalid.
    """

    dist: Path
    """Unpacked distributions and the jar cache. Nodes may share it."""
    base: Path
    """The node's own folder: data, settings, logs, state. One per node."""
    port: int | None = None
    """HTTP port on the loopback interface; 0 for any free port, None for the one drawn for this folder."""
    heap: str = DEFAULT_HEAP
    """Java heap, such as `512m` or `2g`."""
    jit: Literal["quick", "full"] = "quick"
    """`quick` compiles with C1 only: half the start time; `full` pays off after minutes of load (see docs/adr/0002)."""
    die_with_parent: bool = False
    """Whether the node stops when the thread that started it ends for any reason (Linux only). For tests."""
    start_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise UsageError(
                f"node port: {self.port} is not a port", "Give 1 to 65535, or 0 for a free one.", code="invalid-port"
            )
        _check_heap(self.heap)

    @classmethod
    def from_home(
        cls,
        home: DataDir | None = None,
        *,
        port: int | None = None,
        heap: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> NodeSpec:
        """Return the node of a data folder. Values not given come from the environment, then from the defaults."""
        home = home or DataDir.from_env(environ)
        return cls(
            dist=home.dist,
            base=home.node,
            port=_read_port_from_env(environ) if port is None else port,
            heap=heap or environ.get(ENV_HEAP) or DEFAULT_HEAP,
        )

    @property
    def config(self) -> Path:
        """Return the folder of settings."""
        return self.base / "config"

    @property
    def data(self) -> Path:
        """Return the folder of indices."""
        return self.base / "data"

    @property
    def logs(self) -> Path:
        """Return the folder of logs and of the file with the bound port."""
        return self.base / "logs"

    @property
    def log_file(self) -> Path:
        """Return the file with the node's output."""
        return self.logs / "node.log"

    @property
    def ports_file(self) -> Path:
        """Return the file that the server writes once its HTTP port is bound."""
        return self.logs / "http.ports"

    @property
    def tmp(self) -> Path:
        """Return the JVM's temporary folder."""
        return self.base / "tmp"

    @property
    def state_file(self) -> Path:
        """Return the file that records the running process."""
        return self.base / "state.json"

    @property
    def port_file(self) -> Path:
        """Return the file with the port drawn for the node; `node down` keeps it."""
        return self.base / "port"

    @property
    def lock_file(self) -> Path:
        """Return the lock file held while the node is started or stopped."""
        return self.base / "node.lock"


def _read_port_from_env(environ: Mapping[str, str]) -> int | None:
    value = environ.get(ENV_PORT)
    if not value:
        return None
    if not value.isdecimal():
        raise UsageError(f"{ENV_PORT}: {value!r} is not a port", "Give 1 to 65535, or 0 for a free one.", code="invalid-port")
    return int(value)


def _check_heap(heap: str) -> None:
    remedy = f"Write it like 512m or 2g (--heap, {ENV_HEAP})."
    match = _HEAP.fullmatch(heap)
    if match is None:
        raise UsageError(f"node heap: {heap!r} is not a size", remedy, code="invalid-heap")
    if int(match[1]) * (1 if match[2] in "mM" else 1024) < _MIN_HEAP_MB:
        raise UsageError(f"node heap: {heap} is too small, the server needs {_MIN_HEAP_MB}m", remedy, code="heap-too-small")
