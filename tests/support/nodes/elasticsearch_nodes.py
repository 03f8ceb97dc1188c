"""Elasticsearch for tests: its own distributions, started by their own `bin/elasticsearch`, with security where it is wanted.

::

    with build_elasticsearch("9.5.3", tmp_path, with_stand_in=True) as node:
        print(node.url)
    with build_secured_elasticsearch(tmp_path) as node:  # TLS, users, roles, API keys
        node.put_roles({"photos_reader": {...}})
        node.put_users({"reader": ["photos_reader"]}, "a long secret")

Maven Central serves a distribution that is complete but for its modules: it has TLS and security, but neither `rank_features` nor
scripts. 7.17 gets the modules that Maven serves for it. Others may get a stand-in (`standin`), which is compiled against them: it
verifies our requests, mappings and documents, not Elastic's code, so say so wherever a result is quoted.

Everything listens on 127.0.0.1 only and is fetched once a machine. Nothing of it is shipped, and its license isn't ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stair_es.embedded_node.distribution import build_maven_source, fetch_jars
from stair_es.embedded_node.file_lock import hold_lock
from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule
from support.nodes.java_tools import compile_java, fetch_jre21, fetch_zip, find_jdk
from support.nodes.node_process import Cluster, SearchNode
from support.nodes.search_nodes import find_free_port, get_cache
from support.nodes.secured_node import ADMIN, SecuredNode, write_certificates

__all__ = [
    "EIGHT",
    "NINE",
    "RELEASES",
    "SEVEN",
    "SecuredElasticsearch",
    "build_elasticsearch",
    "build_elasticsearch_cluster",
    "build_secured_elasticsearch",
]

SEVEN, EIGHT, NINE = "7.17.29", "8.19.0", "9.5.3"
"""The versions that the tests run on."""
_STAND_IN = Path(__file__).with_name("standin")
_LOCK = Path(__file__).with_name("elasticsearch-7.17.29.lock.json")
_OLDEST_JAVA = 21
_JVM_OPTIONS = """-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-Djava.io.tmpdir=${ES_TMPDIR}
"""
"""Instead of those of the distribution: they start quicker, and leave out modules that Lucene profits from but doesn't need."""
_JVM_OPTIONS_9 = """--add-opens=java.base/java.nio=org.apache.arrow.memory.core,ALL-UNNAMED
--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED
"""
_MUSTACHE_RIGHTS = """grant {
  permission java.lang.RuntimePermission "accessDeclaredMembers";
  permission java.lang.RuntimePermission "getClassLoader";
  permission java.lang.reflect.ReflectPermission "suppressAccessChecks";
};
"""
"""For Java's security manager: mustache looks into the values of a template by reflection."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A distribution as Maven serves it, and what it runs on."""

    sha256: str
    size_bytes: int
    java21: bool = False
    """Whether it has a security manager, which newer versions of Java lack."""
    stand_in: str | None = None
    """The folder of `standin` for the version's interfaces; None where the stand-in isn't needed or can't be had."""


RELEASES: Mapping[str, Release] = {
    SEVEN: Release(sha256="841ee00be1a72ba8e707b5a2fb55f23fe7a4184369b4585393238b1c903eedaf", size_bytes=57_295_016, java21=True),
    "8.17.0": Release(
        sha256="c3e814c3fa6b31ffaa2bad55c3aa2121fd595b3ffe08a7adf3a4579adbcb91d9",
        size_bytes=91_610_226,
        java21=True,
        stand_in="until8_19",
    ),
    EIGHT: Release(
        sha256="14833b2d86c30656901f92049f81fb5777a8e4545413c8656cd1a21b55173033",
        size_bytes=97_002_615,
        stand_in="until8_19",
    ),
    "9.2.0": Release(
        sha256="bf44938a0490ba2a303d39c9cb64b38963dd08c812ce93e10816e878585bcb6b",
        size_bytes=99_253_337,
    ),
    NINE: Release(
        sha256="bec49f3b8d00e75c8d1cec85c35298635ec9fbd3ae80ef5aeb6bc05abdb3db2d",
        size_bytes=132_390_005,
        stand_in="from9_5",
    ),
}


def build_elasticsearch(version: str, base: Path, *, with_stand_in: bool = False, heap: str = "512m") -> SearchNode:
    """Return Elasticsearch of this version without logins; not started yet.

    Args:
        version: One of `RELEASES`.
        base: The node's folder.
        with_stand_in: Whether it gets `rank_features` and `GET /`; 7.17 has its own.
        heap: Of the JVM.

    Raises:
        LookupError: There is no full JDK, or no way to run it as a user other than root.
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    return _build_node(version, base, {"discovery.type": "single-node"}, with_stand_in=with_stand_in, heap=heap)


def build_elasticsearch_cluster(version: str, base: Path, *, size: int = 3) -> Cluster:
    """Return `size` nodes without logins and stand-in that form a cluster; not started yet.

    Raises:
        LookupError: There is no full JDK, or no way to run it as a user other than root.
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    names, transports = [f"node-{number}" for number in range(size)], [find_free_port() for _ in range(size)]
    together = {
        "discovery.seed_hosts": [f"127.0.0.1:{transport}" for transport in transports],
        "cluster.initial_master_nodes": names,
    }
    nodes = []
    for name, transport in zip(names, transports, strict=True):
        (folder := base / name).mkdir()
        settings = {**together, "node.name": name, "transport.port": transport}
        nodes.append(_build_node(version, folder, settings, with_stand_in=False, heap="384m"))
    return Cluster(nodes)


def _build_node(version: str, base: Path, own: Mapping[str, object], *, with_stand_in: bool, heap: str) -> SearchNode:
    """Return a node without logins; `own` are the settings in which it differs from others."""
    port = find_free_port()
    home = _lay_out(version, with_stand_in=with_stand_in)
    settings = {**_build_settings(base, port), "xpack.security.enabled": False, **own}
    environ = _prepare_folders(version, home, base, settings, heap)
    argv = [home / "bin" / "elasticsearch"]
    name = str(own.get("node.name", f"Elasticsearch {version}"))
    return SearchNode(name, argv, port, base, environ=environ, prefix=_build_user_prefix())


def build_secured_elasticsearch(base: Path, *, heap: str = "640m") -> SecuredElasticsearch:
    """Return Elasticsearch 9.5 with the stand-in, TLS, and an administrator in its file realm; not started yet.

    Raises:
        LookupError: There is no full JDK, or no way to run it as a user other than root.
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    port = find_free_port()
    home = _lay_out(NINE, with_stand_in=True)
    settings = {**_build_settings(base, port), "discovery.type": "single-node", **_SECURITY_SETTINGS}
    environ = _prepare_folders(NINE, home, base, settings, heap)
    authority = write_certificates(base / "config")
    user, password = ADMIN
    prefix = _build_user_prefix()
    add_user = [*prefix, str(home / "bin" / "elasticsearch-users"), "useradd", user, "-p", password, "-r", "superuser"]
    subprocess.run(add_user, check=True, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **environ})
    return SecuredElasticsearch(
        f"Elasticsearch {NINE} with security",
        [home / "bin" / "elasticsearch"],
        port,
        base,
        authority=authority,
        environ=environ,
        prefix=prefix,
    )


class SecuredElasticsearch(SecuredNode):
    """A node that asks for a login over TLS, with native users and roles."""

    def put_roles(self, roles: Mapping[str, Mapping[str, Any]]) -> None:
        """Make or replace roles."""
        answer = self.request("POST", "/_security/role", {"roles": roles})
        if "errors" in answer:
            raise ValueError(answer["errors"])

    def put_users(self, roles: Mapping[str, Sequence[str]], password: str) -> None:
        """Make or replace users with these roles."""
        for name, role_names in roles.items():
            self.request("PUT", f"/_security/user/{name}", {"password": password, "roles": list(role_names)})

    def create_key(self, name: str, role: Mapping[str, Any], *, lifetime: str | None = None) -> str:
        """Return an API key with the rights of a role, as `STAIR_ES_API_KEY` takes it; `lifetime` as in `1d`."""
        body = {"name": name, "role_descriptors": {name: role}, **({"expiration": lifetime} if lifetime else {})}
        return str(self.request("POST", "/_security/api_key", body)["encoded"])


_SECURITY_SETTINGS: Mapping[str, object] = {
    "xpack.security.enabled": True,
    "xpack.security.http.ssl.enabled": True,
    "xpack.security.http.ssl.key": "node.key",
    "xpack.security.http.ssl.certificate": "node.pem",
    "xpack.security.http.ssl.certificate_authorities": "ca.pem",
    "xpack.security.http.ssl.client_authentication": "optional",
    "xpack.security.authc.password_hashing.algorithm": "bcrypt4",  # each login is checked against its hash
    "xpack.security.authc.api_key.hashing.algorithm": "ssha256",
}


def _build_settings(base: Path, port: int) -> dict[str, object]:
    return {
        "cluster.name": "test",
        "node.name": "test",
        "path.data": str(base / "data"),
        "path.repo": str(base / "repo"),
        "path.logs": str(base / "logs"),
        "http.host": "127.0.0.1",
        "http.port": port,
        "transport.host": "127.0.0.1",
        "transport.port": find_free_port(),
        "action.destructive_requires_name": False,  # 7.17 warns of its default
        "cluster.routing.allocation.disk.threshold_enabled": False,
        "indices.breaker.total.use_real_memory": False,  # as in stair_es/embedded_node/process.py, and for the same reason
    }


def _prepare_folders(version: str, home: Path, base: Path, settings: Mapping[str, object], heap: str) -> dict[str, str]:
    """Write the configuration; return the environment of the node."""
    config = base / "config"
    shutil.copytree(home / "config", config, dirs_exist_ok=True)
    for folder in ("data", "logs", "repo", "tmp"):
        (base / folder).mkdir(exist_ok=True)
    options = _JVM_OPTIONS + (_JVM_OPTIONS_9 if version == NINE else "")
    (config / "jvm.options").write_text(options, encoding="utf-8")
    lines = [f"{name}: {json.dumps(value)}\n" for name, value in settings.items()]
    (config / "elasticsearch.yml").write_text("".join(lines), encoding="utf-8")
    return {
        "ES_JAVA_HOME": str(_find_java(version).parents[1]),
        "ES_JAVA_OPTS": f"-Xms{heap} -Xmx{heap}",
        "ES_PATH_CONF": str(config),
        "ES_TMPDIR": str(base / "tmp"),
    }


def _find_java(version: str) -> Path:
    if RELEASES[version].java21:
        return fetch_jre21(get_cache())
    java = find_jdk(_OLDEST_JAVA)
    if java is None:
        raise LookupError(f"Elasticsearch {version} needs a full JDK, {_OLDEST_JAVA} or newer: set JAVA_HOME")
    return java


def _build_user_prefix() -> list[str]:
    """Return what a command starts with so that Elasticsearch, which refuses root, is run by another user.

    That user owns what root owns, but nothing else: so it may write into the folders of the tests.

    Raises:
        LookupError: The kernel or a container forbids user namespaces.
    """
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    try:
        subprocess.run([*prefix, "true"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError("Elasticsearch refuses to run as root, and there are no user namespaces: be another user") from error
    return prefix


def _lay_out(version: str, *, with_stand_in: bool) -> Path:
    """Return the unpacked distribution, with what is added to it."""
    cache, release = get_cache(), RELEASES[version]
    plain = cache / f"elasticsearch-{version}"
    with hold_lock(cache / ".lock", f"unpacks Elasticsearch {version}"):
        _build_once(plain, lambda folder: _unpack(version, folder))
        if version == SEVEN:
            added = hashlib.sha256(_LOCK.read_bytes() + _MUSTACHE_RIGHTS.encode()).hexdigest()[:16]
            return _build_once(cache / f"{plain.name}-{added}", lambda folder: _add_modules(plain, folder))
        if not with_stand_in or release.stand_in is None:
            return plain
        sources = sorted([*(_STAND_IN / "all").glob("*.java"), *(_STAND_IN / release.stand_in).glob("*.java")])
    classes = compile_java(sources, (plain / "lib").glob("*.jar"), _OLDEST_JAVA, cache)
    with hold_lock(cache / ".lock", f"adds the stand-in to Elasticsearch {version}"):
        return _build_once(cache / f"{plain.name}-{classes.name}", lambda folder: _add_stand_in(version, plain, classes, folder))


def _build_once(target: Path, build: Callable[[Path], object]) -> Path:
    """Return `target`, built in a folder beside it and renamed, unless it is there. The caller holds the lock of the cache."""
    if not target.is_dir():
        temporary = target.with_name(f".tmp-{secrets.token_hex(4)}")
        try:
            build(temporary)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _unpack(version: str, folder: Path) -> None:
    release = RELEASES[version]
    archive = Jar(
        group="org.elasticsearch.distribution.integ-test-zip",
        artifact="elasticsearch",
        version=version,
        folder="",
        sha256=release.sha256,
        size_bytes=release.size_bytes,
    )
    with (
        zipfile.ZipFile(fetch_zip(archive, get_cache())) as content,
        TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as unpacked,
    ):
        content.extractall(unpacked)
        (Path(unpacked) / f"elasticsearch-{version}").rename(folder)
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)  # a zip doesn't keep it
    for name in ("logs", "plugins"):
        (folder / name).mkdir(exist_ok=True)


def _add_modules(plain: Path, folder: Path) -> None:
    """Add the modules of 7.17 that Maven serves, with what they need."""
    lock = NodeLock.from_json(_LOCK.read_text(encoding="utf-8"))
    files = fetch_jars(lock, build_maven_source(get_cache() / ".jars"), lambda _count: None)
    shutil.copytree(plain, folder, copy_function=os.link)
    for jar in lock.jars:
        (folder / jar.path).parent.mkdir(exist_ok=True)
        shutil.copyfile(files[jar.coordinates], folder / jar.path)
    for module in lock.modules:
        _write_descriptor(module, SEVEN, folder / "modules" / module.name)
    (folder / "modules" / "lang-mustache" / "plugin-security.policy").write_text(_MUSTACHE_RIGHTS, encoding="utf-8")


def _add_stand_in(version: str, plain: Path, classes: Path, folder: Path) -> None:
    shutil.copytree(plain, folder, copy_function=os.link)
    plugin = folder / "plugins" / "stand-in"
    plugin.mkdir()
    with zipfile.ZipFile(plugin / "stand-in.jar", "w") as jar:
        for file in sorted(classes.rglob("*.class")):
            jar.write(file, file.relative_to(classes))
    _write_descriptor(NodeModule(name="stand-in", classname="standin.StandInPlugin"), version, plugin)


def _write_descriptor(module: NodeModule, version: str, folder: Path) -> None:
    """Write what the server reads of a module or a plugin: as OpenSearch does, under another name."""
    descriptor = module.build_descriptor(version).replace("opensearch.version", "elasticsearch.version")
    (folder / "plugin-descriptor.properties").write_text(descriptor, encoding="utf-8")
