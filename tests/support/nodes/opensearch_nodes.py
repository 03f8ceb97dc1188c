"""OpenSearch as production has it, for tests and benchmarks: with security, with k-NN and neural-search, older and newer.

::

    with build_plugin_node(tmp_path) as node:  # 3.6.0: neural_sparse, dense vectors
        print(node.url)
    with build_secured_node(tmp_path) as node:  # 3.4.0: TLS, users, roles
        node.put_roles({"photos_reader": {...}})
        node.put_users({"reader": ["photos_reader"]}, "a long secret")
    with build_release_node("2.19.1", tmp_path) as node:  # and 3.9.0: without plugins
        print(node.url)

Always map `knn_vector` with `"engine": "lucene"`: the plugin's default, faiss, wants native code that isn't there, and the first
document that is written to such a field ends the node.

What they are made of is pinned in `opensearch_locks`. Everything listens on 127.0.0.1 and is fetched once a machine.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_es.embedded_node.distribution import build_maven_source, ensure_distribution, fetch_jars
from stair_es.embedded_node.file_lock import hold_lock
from stair_es.embedded_node.lockfile import NodeLock
from stair_es.embedded_node.process import build_node_settings, prepare_folders
from stair_es.embedded_node.spec import NodeSpec
from support.nodes import opensearch_locks
from support.nodes.java_tools import fetch_jre21, fetch_zip, find_jre
from support.nodes.node_process import SearchNode
from support.nodes.opensearch_locks import Plugin
from support.nodes.search_nodes import build_command, find_free_port, get_cache, write_settings
from support.nodes.secured_node import SecuredNode, write_certificates

__all__ = ["SecuredOpenSearch", "build_plugin_node", "build_release_node", "build_secured_node"]

_EXAMPLE_LOGIN = ("admin", "admin")
"""Of the user that the example configuration of the security plugin brings, who may do everything."""


def build_plugin_node(base: Path, *, heap: str = "512m", full_jit: bool = False) -> SearchNode:
    """Return OpenSearch with k-NN and neural-search; not started yet.

    Args:
        base: The node's folder.
        heap: Of the JVM.
        full_jit: Whether to compile as a server that runs for long does; otherwise it starts quicker, as tests want it.

    Raises:
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    return build_release_node(opensearch_locks.SPARSE, base, heap=heap, full_jit=full_jit)


def build_release_node(version: str, base: Path, *, heap: str = "512m", full_jit: bool = False) -> SearchNode:
    """Return OpenSearch of this version, with the plugins that `opensearch_locks` names; not started yet.

    Raises:
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    port = find_free_port()
    argv = _prepare_node(version, base, port, {}, heap=heap, full_jit=full_jit)
    return SearchNode(f"OpenSearch {version}", argv, port, base)


def build_secured_node(base: Path, *, heap: str = "768m") -> SecuredOpenSearch:
    """Return OpenSearch with the security plugin, TLS and its example users; not started yet.

    Raises:
        NodeError: A part can't be fetched, or isn't the pinned one.
    """
    version, port = opensearch_locks.SECURED, find_free_port()
    config = _build_spec(base, port, heap=heap, full_jit=False).config
    config.mkdir(parents=True, exist_ok=True)
    authority = write_certificates(config)
    _copy_security_config(lay_out_release(version), config)
    argv = _prepare_node(version, base, port, _SECURITY_SETTINGS, heap=heap, full_jit=False)
    return SecuredOpenSearch(f"OpenSearch {version} with security", argv, port, base, authority=authority, login=_EXAMPLE_LOGIN)


class SecuredOpenSearch(SecuredNode):
    """A node with the security plugin."""

    def put_roles(self, roles: Mapping[str, Mapping[str, Any]]) -> None:
        """Make or replace roles, all at once: each request makes the node read all of its security index again."""
        self._add_security("roles", roles)

    def put_users(self, roles: Mapping[str, Sequence[str]], password: str) -> None:
        """Make or replace users with these roles. The plugin refuses a password that resembles a name."""
        self._add_security(
            "internalusers",
            {name: {"password": password, "opendistro_security_roles": list(role_names)} for name, role_names in roles.items()},
        )

    def map_user(self, user: str, role: str) -> None:
        """Give a role to a user whom only a certificate or a token names."""
        self._add_security("rolesmapping", {role: {"users": [user]}})

    def issue_token(self, user: str, lifetime_s: int) -> str:
        """Return a signed JSON Web Token that logs `user` in, as RFC 7519 has it; a negative lifetime is over."""
        parts: list[object] = [{"alg": "HS512", "typ": "JWT"}, {"sub": user, "exp": int(time.time()) + lifetime_s}]
        content = b".".join(_encode_url(json.dumps(part).encode()) for part in parts)
        return (content + b"." + _encode_url(hmac.digest(_SIGNING_KEY, content, "sha512"))).decode()

    def _add_security(self, kind: str, values: Mapping[str, Any]) -> None:
        patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in values.items()]
        self.request("PATCH", f"/_plugins/_security/api/{kind}", patch)


_SECURITY_SETTINGS: Mapping[str, Any] = {
    "plugins.security.ssl.transport.pemcert_filepath": "node.pem",
    "plugins.security.ssl.transport.pemkey_filepath": "node.key",
    "plugins.security.ssl.transport.pemtrustedcas_filepath": "ca.pem",
    "plugins.security.ssl.transport.enforce_hostname_verification": False,
    "plugins.security.ssl.http.enabled": True,
    "plugins.security.ssl.http.pemcert_filepath": "node.pem",
    "plugins.security.ssl.http.pemkey_filepath": "node.key",
    "plugins.security.ssl.http.pemtrustedcas_filepath": "ca.pem",
    "plugins.security.ssl.http.clientauth_mode": "OPTIONAL",
    "plugins.security.allow_default_init_securityindex": True,
    "plugins.security.restapi.roles_enabled": ["all_access"],
    "plugins.security.password.hashing.bcrypt.rounds": 4,  # each login is checked against its hash
}

_SIGNING_KEY = secrets.token_bytes(64)
"""Signs the tokens of this run's nodes."""

_GRANT_ALL = "grant { permission java.security.AllPermission; };\n"
"""The real distribution lists rights for each module; Maven doesn't serve these lists."""


def _copy_security_config(dist: Path, config: Path) -> None:
    """Take the plugin's example, but let certificates and signed tokens log in, too, and give roles to the administrator only.

    The example gives everybody `own_index`, and with it all composite operations of the cluster.
    """
    folder = config / "opensearch-security"
    shutil.copytree(dist / "plugins" / "opensearch-security" / "config", folder, dirs_exist_ok=True)
    mapping = {"_meta": {"type": "rolesmapping", "config_version": 2}, "all_access": {"backend_roles": ["admin"]}}
    (folder / "roles_mapping.yml").write_text(json.dumps(mapping), encoding="utf-8")
    file = folder / "config.yml"
    text = file.read_text(encoding="utf-8")
    for domain in ("clientcert_auth_domain:", "jwt_auth_domain:"):
        head, name, tail = text.partition(domain)
        text = head + name + tail.replace("http_enabled: false", "http_enabled: true", 1)
    key = base64.b64encode(_SIGNING_KEY).decode()
    text = re.sub(r"^ *jwks_uri: .*\n", "", text, flags=re.MULTILINE).replace(
        "base64 encoded HMAC key or public RSA/ECDSA pem key", key
    )
    file.write_text(text, encoding="utf-8")


def _encode_url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _build_spec(base: Path, port: int, *, heap: str, full_jit: bool) -> NodeSpec:
    return NodeSpec(dist=get_cache(), base=base, port=port, heap=heap, jit="full" if full_jit else "quick")


def _prepare_node(version: str, base: Path, port: int, settings: Mapping[str, Any], *, heap: str, full_jit: bool) -> list[str]:
    """Write the configuration; return the command line."""
    dist = lay_out_release(version)
    spec = _build_spec(base, port, heap=heap, full_jit=full_jit)
    prepare_folders(spec)
    write_settings(spec, {**build_node_settings(spec), "node.name": "test", **settings})
    if not opensearch_locks.RELEASES[version].security_manager:
        return build_command(spec, dist, find_jre())
    policy = spec.config / "java.policy"
    policy.write_text(_GRANT_ALL, encoding="utf-8")
    java, *arguments = build_command(spec, dist, fetch_jre21(get_cache()))
    return [java, "-Djava.security.manager=allow", f"-Djava.security.policy={policy}", *arguments]


def lay_out_release(version: str) -> Path:
    """Return the distribution of a version, with its plugins."""
    cache = get_cache()
    dist = ensure_distribution(opensearch_locks.read_lock(version), cache)
    release = opensearch_locks.RELEASES[version]
    with hold_lock(cache / ".lock", "unpacks plugins"):
        if release.security_manager:
            for module in (dist / "modules").iterdir():
                _write_policy(module / "plugin-security.policy")
        for plugin in release.plugins:
            if not (dist / "plugins" / plugin.folder).is_dir():
                _unpack_plugin(plugin, dist / "plugins", cache)
    return dist


def _write_policy(policy: Path) -> None:
    """Write the policy where it isn't there yet: another node may be reading it."""
    if policy.is_file() and policy.read_text(encoding="utf-8") == _GRANT_ALL:
        return
    temporary = policy.with_name(f".tmp-{secrets.token_hex(4)}")
    temporary.write_text(_GRANT_ALL, encoding="utf-8")
    temporary.replace(policy)


def _unpack_plugin(plugin: Plugin, folder: Path, cache: Path) -> None:
    """Build the plugin in the cache, and rename it into its place: the server takes every folder there for a plugin."""
    temporary = cache / f".tmp-{secrets.token_hex(4)}"  # what a killed process left goes when a distribution is built
    try:
        with zipfile.ZipFile(fetch_zip(plugin.archive, cache)) as archive:
            archive.extractall(temporary)
        if plugin.standalone:
            descriptor = temporary / "plugin-descriptor.properties"
            lines = descriptor.read_text(encoding="utf-8").splitlines()
            lines_kept = [line for line in lines if not line.startswith("extended.plugins=")]
            descriptor.write_text("\n".join(lines_kept) + "\n", encoding="utf-8")
        files = fetch_jars(
            NodeLock(opensearch="", modules=(), jars=plugin.jars), build_maven_source(cache / ".jars"), lambda _count: None
        )
        for jar in plugin.jars:
            shutil.copyfile(files[jar.coordinates], temporary / jar.name)
        temporary.rename(folder / plugin.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
