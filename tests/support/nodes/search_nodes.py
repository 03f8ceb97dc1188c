"""Real search nodes for tests and benchmarks: the embedded OpenSearch, alone or as a cluster of several nodes.

::

    with build_cluster(tmp_path) as cluster:
        print(cluster.url)
        cluster.nodes[2].kill()
        cluster.start()  # the same data, the same URL

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
from support.nodes.java_tools import find_jre
from support.nodes.node_process import Cluster, SearchNode

__all__ = [
    "Cluster",
    "SearchNode",
    "build_cluster",
    "find_free_port",
]

# Below the ports of outgoing connections on Linux, so that no other process takes one between two starts of a node.
_PORTS = range(20_000, 32_000)


@contextmanager
def start_embedded_node(base: Path) -> Iterator[str]:
    """Start an embedded node with separate data and yield its URL. Its jars are cached in the default home."""
    spec = NodeSpec(dist=DataDir.from_env().dist, base=base / "node", port=0, heap="512m", die_with_parent=True)
    url = start_node(spec)
    try:
        yield url
    finally:
        stop_node(spec)


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
