"""Real search nodes for tests and benchmarks: Elasticsearch 7.17, 8.17 and 9.5, and OpenSearch clusters of several nodes.

::

    with build_elasticsearch7(tmp_path) as node:
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from stair_es.config.defaults import DataDir
from stair_es.embedded_node import start_node, stop_node
from stair_es.embedded_node.distribution import ensure_distribution
from stair_es.embedded_node.lockfile import load_node_lock
from stair_es.embedded_node.process import build_node_command, build_node_settings, prepare_folders
from stair_es.embedded_node.spec import NodeSpec
from support.nodes import elasticsearch_locks
from support.nodes.java_tools import compile_launcher, find_jdk, find_jre
from support.nodes.node_process import Cluster, SearchNode

__all__ = [
    "Cluster",
    "SearchNode",
    "build_cluster",
    "build_elasticsearch7",
    "build_elasticsearch8",
    "build_elasticsearch9",
    "find_free_port",
]

# Below the ports of outgoing connections on Linux, so that no other process takes one between two starts of a node.
_PORTS = range(20_000, 32_000)
_OLDEST_JAVA = 21
_LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


@contextmanager
def start_embedded_node(base: Path) -> Iterator[str]:
    """Start an embedded node with separate data and yield its URL. Its jars are cached in the default home."""
    spec = NodeSpec(dist=DataDir.from_env().dist, base=base / "node", port=0, heap="512m", die_with_parent=True)
    url = start_node(spec)
    try:
        yield url
    finally:
        stop_node(spec)


def build_elasticsearch7(base: Path, *, heap: str = "512m") -> SearchNode:
    """Build Elasticsearch 7.17 with `rank_features`, unstarted."""
    home = _ensure_elasticsearch(elasticsearch_locks.SEVEN)
    jars = list((home / "lib").glob("*.jar"))
    classes = compile_launcher("Elasticsearch7", jars, 11, get_cache())
    port = find_free_port()
    argv: list[str | Path] = [
        find_jre(),
        *_build_jvm_options(heap, base),
        "-cp",
        f"{home / 'lib'}{os.sep}*{os.pathsep}{classes}",
        "Elasticsearch7",
        home,
        base / "config",
    ]
    return SearchNode("Elasticsearch 7", [*argv, *_build_elastic_settings(base, port)], port, base)


def build_elasticsearch8(base: Path, *, heap: str = "512m") -> SearchNode:
    """Build Elasticsearch 8.17 with `sparse_vector`, unstarted. It lacks `GET /`, `rank_features` and its query.

    Raises:
        LookupError: There is no full JDK.
    """
    return _build_modular("Elasticsearch8", elasticsearch_locks.EIGHT, base, heap)


def build_elasticsearch9(base: Path, *, heap: str = "512m") -> SearchNode:
    """Build Elasticsearch 9.5 with `sparse_vector`, unstarted. It lacks `GET /` and `rank_features`.

    Raises:
        LookupError: There is no full JDK.
    """
    return _build_modular("Elasticsearch9", elasticsearch_locks.NINE, base, heap)


def _build_modular(launcher: str, version: str, base: Path, heap: str) -> SearchNode:
    java = find_jdk(_OLDEST_JAVA)
    if java is None:
        raise LookupError(f"Elasticsearch {version} needs a full JDK, {_OLDEST_JAVA} or newer: set JAVA_HOME")
    home = _ensure_elasticsearch(version)
    classes = compile_launcher(launcher, (home / "lib").glob("*.jar"), _OLDEST_JAVA, get_cache())
    port = find_free_port()
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
        *_build_jvm_options(heap, base),
        f"-Des.path.home={home}",
        *modular,
        launcher,
        home,
        base / "config",
    ]
    return SearchNode(f"Elasticsearch {version}", [*argv, *_build_elastic_settings(base, port)], port, base)


def build_cluster(base: Path, *, size: int = 3, heap: str = "384m", full_jit: bool = False) -> Cluster:
    """Return `size` nodes of the embedded OpenSearch that form a cluster; not started yet.

    Args:
        base: Folder of the nodes' folders.
        size: Number of nodes.
        heap: Of each JVM.
        full_jit: Whether to compile as a server that runs for long does; otherwise they start quicker, as tests want it.
    """
    dist = ensure_distribution(load_node_lock(), DataDir.from_env().dist)
    ports, transports = [find_free_port() for _ in range(size)], [find_free_port() for _ in range(size)]
    nodes = []
    for number, port in enumerate(ports):
        jit: Literal["quick", "full"] = "full" if full_jit else "quick"
        spec = NodeSpec(dist=dist.parent, base=base / f"node-{number}", port=port, heap=heap, jit=jit)
        prepare_folders(spec)
        settings = {
            **build_node_settings(spec),
            "cluster.name": "test",
            "node.name": f"node-{number}",
            "transport.port": transports[number],
            "discovery.seed_hosts": [f"127.0.0.1:{transport}" for transport in transports],
            "cluster.initial_cluster_manager_nodes": [f"node-{other}" for other in range(size)],
        }
        del settings["discovery.type"]
        write_settings(spec, settings)
        argv = build_command(spec, dist, find_jre())
        nodes.append(SearchNode(spec.base.name, argv, port, spec.base))
    return Cluster(nodes)


def find_free_port() -> int:
    """Return an unused port."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def get_cache() -> Path:
    """Return the folder that keeps what nodes of the tests are made of."""
    return DataDir.from_env().path / "test-nodes"


def write_settings(spec: NodeSpec, values: Mapping[str, object]) -> None:
    """Write `opensearch.yml` of a node."""
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())
    (spec.config / "opensearch.yml").write_text(text, encoding="utf-8")


def build_command(spec: NodeSpec, dist: Path, java: Path) -> list[str]:
    """Return the command line of an OpenSearch node, which root may start too."""
    return build_node_command(spec, dist=dist, java=java, as_root=hasattr(os, "geteuid") and os.geteuid() == 0)


def _ensure_elasticsearch(version: str) -> Path:
    return ensure_distribution(elasticsearch_locks.read_lock(version), get_cache())


def _build_jvm_options(heap: str, base: Path) -> list[str]:
    for folder in ("config", "tmp"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "config" / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return [f"-Xms{heap}", f"-Xmx{heap}", *quick, f"-Djava.io.tmpdir={base / 'tmp'}", f"-Djna.tmpdir={base / 'tmp'}"]


def _build_elastic_settings(base: Path, port: int) -> list[str]:
    values = {
        "cluster.name": "test",
        "node.name": "test",
        "path.data": base / "data",
        "path.repo": base / "repo",
        "path.logs": base / "logs",
        "http.host": "127.0.0.1",
        "http.port": port,
        "transport.host": "127.0.0.1",
        "transport.port": find_free_port(),
        "discovery.type": "single-node",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        "indices.breaker.total.use_real_memory": "false",  # as in stair_es/embedded_node/process.py, and for the same reason
    }
    return [f"{name}={value}" for name, value in values.items()]
