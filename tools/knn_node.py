"""OpenSearch 3.5.0 with the k-NN plugin, for dense vectors beside ours in one node.

::

    with knn_node(tmp_path) as node:
        print(node.url)

Always map `knn_vector` with `"engine": "lucene"`: the plugin's default, faiss, wants native code that isn't there, and the first
document that is written to such a field ends the node.

The plugin was built to run beside the gRPC transport, which isn't served: its descriptor is changed not to ask for that, guava
comes from Maven, and a jar of four empty types stands for what only gRPC would use.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import struct
import zipfile
from pathlib import Path

import knn_lock
from java_tools import JRE
from jgo.maven import MavenContext
from node_process import SearchNode
from search_nodes import free_port

from stair_es.config import Home
from stair_es.errors import NodeError
from stair_es.node.exclusive import exclusive
from stair_es.node.launch import command, prepare, settings
from stair_es.node.layout import ensure_layout
from stair_es.node.lockfile import Jar, Lock
from stair_es.node.resolve import defect, fetch, maven
from stair_es.node.spec import NodeSpec

__all__ = ["knn_node"]

_PLUGIN = "opensearch-knn"
_ZIP = Jar(
    group="org.opensearch.plugin",
    artifact=_PLUGIN,
    version=f"{knn_lock.VERSION}.0",
    folder="plugins",
    sha256="99fdf3ac9ef95974e276298b83a58532bf21ba13bd5fd96a4b59465b7e613309",
    size_bytes=5906536,
)
_GUAVA = (
    Jar(
        group="com.google.guava",
        artifact="guava",
        version="33.4.8-jre",
        folder="plugins",
        sha256="f3d7f57f67fd622f4d468dfdd692b3a5e3909246c28017ac3263405f0fe617ed",
        size_bytes=3023797,
    ),
    Jar(
        group="com.google.guava",
        artifact="failureaccess",
        version="1.0.2",
        folder="plugins",
        sha256="8a8f81cf9b359e3f6dfa691a1e776985c061ef2f223c9b2c80753e1b458e8064",
        size_bytes=4740,
    ),
)
# Type -> whether it is an interface.
_STUBS = {
    "org/opensearch/transport/grpc/spi/QueryBuilderProtoConverter": True,
    "org/opensearch/transport/grpc/spi/QueryBuilderProtoConverterRegistry": True,
    "org/opensearch/protobufs/QueryContainer": False,
    "org/opensearch/protobufs/QueryContainer$QueryContainerCase": False,
}
_JAVA_21 = 65


def knn_node(base: Path, *, heap: str = "512m", full_jit: bool = False) -> SearchNode:
    """OpenSearch with the k-NN plugin; not started yet.

    Args:
        base: The node's folder.
        heap: Of the JVM.
        full_jit: Whether to compile as a server that runs for long does; otherwise it starts quicker, as tests want it.

    Raises:
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    cache = Home.from_env().path / "test-nodes"
    dist = ensure_layout(knn_lock.read(), cache, print)
    with exclusive(cache / ".lock", print, "lays out the k-NN plugin"):
        if not (dist / "plugins" / _PLUGIN).is_dir():
            _unpack(dist / "plugins" / _PLUGIN, cache)
    port = free_port()
    spec = NodeSpec(dist=cache, base=base, port=port, heap=heap, jit="full" if full_jit else "quick")
    prepare(spec)
    own = {**settings(spec), "node.name": "knn"}
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in own.items())
    (spec.config / "opensearch.yml").write_text(text, encoding="utf-8")
    argv = command(spec, dist=dist, java=JRE, as_root=hasattr(os, "geteuid") and os.geteuid() == 0)
    return SearchNode(f"OpenSearch {knn_lock.VERSION} with k-NN", argv, port, base)


def stub_type(name: str, *, interface: bool) -> bytes:
    """The class file of an empty public abstract type (JVM specification, chapter 4)."""
    constants = b"".join(
        struct.pack(">BHBH", 7, index + 1, 1, len(text)) + text for index, text in ((1, name.encode()), (3, b"java/lang/Object"))
    )
    access = 0x0601 if interface else 0x0421
    return struct.pack(">IHHH", 0xCAFEBABE, 0, _JAVA_21, 5) + constants + struct.pack(">7H", access, 1, 3, 0, 0, 0, 0)


def _unpack(target: Path, cache: Path) -> None:
    """Built beside its place and renamed into it."""
    scratch = target.with_name(f".tmp-{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(_fetched_zip(cache)) as archive:
            archive.extractall(scratch)
        descriptor = scratch / "plugin-descriptor.properties"
        text = descriptor.read_text(encoding="utf-8")
        descriptor.write_text(text.replace("lang-painless,transport-grpc", "lang-painless"), encoding="utf-8")
        files = fetch(Lock(opensearch="", modules=(), jars=_GUAVA), maven(cache / ".jars"), lambda _count: None)
        for jar in _GUAVA:
            shutil.copyfile(files[jar.coordinates], scratch / jar.name)
        with zipfile.ZipFile(scratch / "grpc-stubs.jar", "w") as stubs:
            stubs.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\n\r\n")
            for name, interface in _STUBS.items():
                stubs.writestr(f"{name}.class", stub_type(name, interface=interface))
        scratch.rename(target)
    finally:
        # the server takes every folder beside it for a plugin
        shutil.rmtree(scratch, ignore_errors=True)


def _fetched_zip(cache: Path) -> Path:
    context = MavenContext(repo_cache=cache / ".jars", timeout=60)
    path = Path(context.project(_ZIP.group, _ZIP.artifact).at_version(_ZIP.version).artifact(packaging="zip").resolve())
    wrong = defect(path, _ZIP)
    if wrong:
        path.unlink(missing_ok=True)
        raise NodeError(f"{_ZIP.coordinates}: {wrong}", "Try again; if it stays so, something on the way alters it.")
    return path
