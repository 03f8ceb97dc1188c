"""Real search nodes for tests and benchmarks: Elasticsearch 7.17 and 9.5, and OpenSearch clusters of several nodes.

::

    with elasticsearch7(tmp_path) as node:
        print(node.url)
        node.kill()
        node.start()  # the same data, the same URL

Everything listens on 127.0.0.1 only, is fetched once a machine, and dies with the thread that started it (Linux).
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import elasticsearch_locks
from java_tools import JRE, compiled, full_jdk

from stair_es.config import Home
from stair_es.node import tether
from stair_es.node.answer import answer
from stair_es.node.launch import command, prepare, settings
from stair_es.node.layout import ensure_layout
from stair_es.node.lockfile import shipped
from stair_es.node.spec import NodeSpec

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1
# Below what Linux gives to outgoing connections, so that nobody takes one between two starts of a node.
_PORTS = range(20_000, 32_000)
_OLDEST_JAVA_9 = 21
_LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class SearchNode:
    """One server process. `start`, `kill` and `stop` in any order: data and URL stay."""

    def __init__(self, name: str, argv: Sequence[str | Path], port: int, base: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = base / "node.log"
        self._argv = [str(part) for part in argv]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running node."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> SearchNode:
        """Start it, from a thread that lives as long as it should; wait until it answers."""
        if not self.running:
            tethered = [sys.executable, "-I", tether.__file__] if sys.platform == "linux" else []
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    [*tethered, *self._argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.log_file.parent,
                    env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
                    start_new_session=True,
                )
        if wait:
            self.wait(lambda health: health["status"] in ("green", "yellow"))
        return self

    def wait(self, enough: Callable[[dict[str, Any]], bool]) -> None:
        """Until the answer of `/_cluster/health` is `enough`."""
        end_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end_s:
            if not self.running:
                raise RuntimeError(f"{self.name} ended while it started:\n{self.log_file.read_text(errors='replace')[-3000:]}")
            health = answer(self.url, "/_cluster/health")
            if health is not None and enough(health):
                return
            time.sleep(_POLL_S)
        raise RuntimeError(f"{self.name}: not ready after {_START_TIMEOUT_S:.0f} s, see {self.log_file}")

    def kill(self) -> None:
        """SIGKILL, as a crash has it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM; SIGKILL if that takes too long."""
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


def elasticsearch7(base: Path, *, heap: str = "512m") -> SearchNode:
    """Elasticsearch 7.17 with `rank_features`; not started yet."""
    home = _elasticsearch(elasticsearch_locks.SEVEN)
    jars = list((home / "lib").glob("*.jar"))
    classes = compiled("Elasticsearch7", jars, 11, _cache())
    port = free_port()
    argv: list[str | Path] = [
        JRE,
        *_jvm(heap, base),
        "-cp",
        f"{home / 'lib'}{os.sep}*{os.pathsep}{classes}",
        "Elasticsearch7",
        home,
        base / "config",
    ]
    return SearchNode("Elasticsearch 7", [*argv, *_elastic_settings(base, port)], port, base)


def elasticsearch9(base: Path, *, heap: str = "512m") -> SearchNode:
    """Elasticsearch 9.5 with `sparse_vector`; not started yet. It lacks `GET /`, and `rank_features`.

    Raises:
        LookupError: There is no full JDK.
    """
    java = full_jdk(_OLDEST_JAVA_9)
    if java is None:
        raise LookupError(f"Elasticsearch 9 needs a full JDK, {_OLDEST_JAVA_9} or newer: set JAVA_HOME")
    home = _elasticsearch(elasticsearch_locks.NINE)
    classes = compiled("Elasticsearch9", (home / "lib").glob("*.jar"), _OLDEST_JAVA_9, _cache())
    port = free_port()
    modular: list[str | Path] = [
        "--module-path",
        home / "lib",
        "--add-modules=jdk.net",
        "--add-modules=ALL-MODULE-PATH",
        "-cp",
        classes,
    ]
    argv: list[str | Path] = [
        java,
        *_jvm(heap, base),
        f"-Des.path.home={home}",
        *modular,
        "Elasticsearch9",
        home,
        base / "config",
    ]
    return SearchNode("Elasticsearch 9", [*argv, *_elastic_settings(base, port)], port, base)


def opensearch_cluster(base: Path, *, size: int = 3, heap: str = "384m") -> Cluster:
    """`size` nodes of the embedded OpenSearch that form a cluster; not started yet."""
    dist = ensure_layout(shipped(), Home.from_env().dist, print)
    ports, transports = [free_port() for _ in range(size)], [free_port() for _ in range(size)]
    nodes = []
    for number, port in enumerate(ports):
        spec = NodeSpec(dist=dist.parent, base=base / f"node-{number}", port=port, heap=heap)
        prepare(spec)
        own = {
            **settings(spec),
            "cluster.name": "test",
            "node.name": f"node-{number}",
            "transport.port": transports[number],
            "discovery.seed_hosts": [f"127.0.0.1:{transport}" for transport in transports],
            "cluster.initial_cluster_manager_nodes": [f"node-{other}" for other in range(size)],
        }
        del own["discovery.type"]
        text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in own.items())
        (spec.config / "opensearch.yml").write_text(text, encoding="utf-8")
        argv = command(spec, dist=dist, java=JRE, as_root=hasattr(os, "geteuid") and os.geteuid() == 0)
        nodes.append(SearchNode(spec.base.name, argv, port, spec.base))
    return Cluster(nodes)


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _cache() -> Path:
    return Home.from_env().path / "test-nodes"


def _elasticsearch(version: str) -> Path:
    return ensure_layout(elasticsearch_locks.read(version), _cache(), print)


def _jvm(heap: str, base: Path) -> list[str]:
    for folder in ("config", "tmp"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "config" / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return [f"-Xms{heap}", f"-Xmx{heap}", *quick, f"-Djava.io.tmpdir={base / 'tmp'}", f"-Djna.tmpdir={base / 'tmp'}"]


def _elastic_settings(base: Path, port: int) -> list[str]:
    values = {
        "cluster.name": "test",
        "node.name": "test",
        "path.data": base / "data",
        "path.logs": base / "logs",
        "http.host": "127.0.0.1",
        "http.port": port,
        "transport.host": "127.0.0.1",
        "transport.port": free_port(),
        "discovery.type": "single-node",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }
    return [f"{name}={value}" for name, value in values.items()]
