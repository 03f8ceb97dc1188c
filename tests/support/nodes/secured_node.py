"""A search node that asks for a login over TLS, whatever its engine: what `opensearch_nodes` and `elasticsearch_nodes` share."""

from __future__ import annotations

import json
import ssl
from abc import abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import trustme
from cryptography.hazmat.primitives import serialization

from support.nodes.node_process import SearchNode

ADMIN = ("admin", "admin-of-tests")
"""Name and password of the user who may do everything."""

_REST_TIMEOUT_S = 180.0


class SecuredNode(SearchNode):
    """A node that asks for a login over TLS."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        port: int,
        base: Path,
        *,
        authority: trustme.CA,
        login: tuple[str, str] = ADMIN,
        environ: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """See `SearchNode`; `authority` is what a client has to trust, and what issues the certificates of clients."""
        super().__init__(name, argv, port, base, environ=environ, prefix=prefix)
        self.url = f"https://127.0.0.1:{port}"
        self.ca_file = base / "ca.pem"
        self.login = login
        self._authority = authority
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.create_default_context(cafile=str(self.ca_file))
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))

    @abstractmethod
    def put_roles(self, roles: Mapping[str, Mapping[str, Any]]) -> None:
        """Make or replace roles."""

    @abstractmethod
    def put_users(self, roles: Mapping[str, Sequence[str]], password: str) -> None:
        """Make or replace users with these roles."""

    def issue_certificate(self, user: str, file: Path) -> Path:
        """Write a certificate and its key that log `user` in; return the file."""
        self._authority.issue_cert("client.example.org", common_name=user).private_key_and_cert_chain_pem.write_to_path(file)
        return file

    def request(self, method: str, path: str, body: object = None, login: tuple[str, str] | None = None) -> Any:  # noqa: ANN401
        """Send a request by a client that isn't ours, as the administrator or `login`; return the JSON of the answer.

        Raises:
            OSError: No answer, or a status from 400 on.
        """
        token = b64encode(":".join(login or self.login).encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with self._opener.open(Request(self.url + path, data, headers, method=method), timeout=_REST_TIMEOUT_S) as response:
            return json.load(response)

    def get_health(self) -> dict[str, Any] | None:
        """See `SearchNode`; None until logins work."""
        try:
            health: dict[str, Any] = self.request("GET", "/_cluster/health")
        except (OSError, ValueError):
            return None
        return health


def write_certificates(folder: Path) -> trustme.CA:
    """Write `ca.pem`, `node.pem` and `node.key` for a node on this machine; return the authority that issued them."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "node.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # OpenSearch's plugin reads no other form
    (folder / "node.key").write_bytes(pkcs8)
    return authority
