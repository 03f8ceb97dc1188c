"""TLS in front of a real node, with certificates of every kind."""

from __future__ import annotations

import datetime
import hashlib
import logging
import pickle
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from support.servers.recording_proxy import RecordingProxy

from stair_es.cluster.client import tls
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import ClusterUnreachable, StairError, UsageError


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def _server(leaf: trustme.LeafCert, asks: trustme.CA | None = None, root: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    if root is not None:  # show the whole chain, root and all
        with (
            leaf.private_key_and_cert_chain_pem.tempfile() as key,
            trustme.Blob(leaf.private_key_and_cert_chain_pem.bytes() + root.cert_pem.bytes()).tempfile() as chain,
        ):
            context.load_cert_chain(chain, key)
    if asks is not None:
        asks.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


Endpoint = Callable[[ssl.SSLContext | None], str]


@pytest.fixture
def endpoint(node_url: str) -> Iterator[Endpoint]:
    opened = list[RecordingProxy]()

    def open_one(context: ssl.SSLContext | None) -> str:
        opened.append(RecordingProxy(node_url, tls=context))
        return opened[-1].url

    yield open_one
    for proxy in opened:
        proxy.kill()


def _label(url: str, **security: str) -> str:
    connection = pickle.loads(pickle.dumps(Connection(url=url, timeout_s=5, security=SecuritySettings(**security))))  # type: ignore[arg-type]
    with Cluster(connection) as cluster:
        return get_cluster_info(cluster).label


def _sha256(pem: bytes) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()


def test_a_ca_file_is_enough(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    assert _label(endpoint(_server(authority.issue_cert("localhost"))), ca_file=ca_file) == "OpenSearch 3.8.0"


def test_unknown_ca_is_rejected(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    url = endpoint(_server(trustme.CA().issue_cert("localhost")))
    for security in ({}, {"ca_file": ca_file}):
        with pytest.raises(ClusterUnreachable, match="certificate") as caught:
            _label(url, **security)
        assert "--ca-file" in caught.value.remedy


def test_another_host_is_not_trusted(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    with pytest.raises(ClusterUnreachable, match="mismatch") as caught:
        _label(endpoint(_server(authority.issue_cert("search.example.org"))), ca_file=ca_file)
    assert "Use a URL with a host name" in caught.value.remedy


def test_an_expired_server_is_not_trusted(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    with pytest.raises(ClusterUnreachable, match="expired") as caught:
        _label(endpoint(_server(authority.issue_cert("localhost", not_after=yesterday))), ca_file=ca_file)
    assert "renewed" in caught.value.remedy


@pytest.mark.parametrize("shape", [str, str.upper, lambda text: ":".join(text[i : i + 2] for i in range(0, 64, 2)).upper()])
def test_the_fingerprint_of_the_authority_is_enough(
    endpoint: Endpoint, authority: trustme.CA, shape: Callable[[str], str]
) -> None:
    url = endpoint(_server(authority.issue_cert("localhost"), root=authority))
    assert _label(url, ca_fingerprint=shape(_sha256(authority.cert_pem.bytes()))) == "OpenSearch 3.8.0"


def test_server_fingerprint_suffices_for_any_host_name(endpoint: Endpoint, authority: trustme.CA) -> None:
    leaf = authority.issue_cert("search.example.org")
    assert _label(endpoint(_server(leaf)), ca_fingerprint=_sha256(leaf.cert_chain_pems[0].bytes())) == "OpenSearch 3.8.0"


def test_a_wrong_fingerprint_is_rejected_before_anything_is_sent(
    node_url: str, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    with RecordingProxy(node_url, tls=_server(authority.issue_cert("localhost"), root=authority)) as proxy:
        connection = Connection(url=proxy.url, security=SecuritySettings(ca_fingerprint="0" * 64, api_key="secret-key"))
        waits, fingerprint = list[float](), _sha256(authority.cert_pem.bytes())
        with Cluster(connection, sleep=waits.append) as cluster, pytest.raises(ClusterUnreachable, match=fingerprint):
            cluster.call(cluster.client.info)
        assert (proxy.requests, waits, caplog.records) == ([], [], [])


def test_authority_that_did_not_sign_is_rejected(endpoint: Endpoint, authority: trustme.CA) -> None:
    """The true authority's certificate is public: that it is shown proves nothing until it has signed."""
    url = endpoint(_server(trustme.CA().issue_cert("localhost"), root=authority))
    with pytest.raises(ClusterUnreachable, match="certificate"):
        _label(url, ca_fingerprint=_sha256(authority.cert_pem.bytes()))


def _written(cert: trustme.LeafCert, folder: Path) -> dict[str, str]:
    chain, key = folder / "client.pem", folder / "client.key"
    cert.cert_chain_pems[0].write_to_path(chain)
    cert.private_key_pem.write_to_path(key)
    return {"client_cert": str(chain), "client_key": str(key)}


def test_a_client_certificate_opens(endpoint: Endpoint, authority: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    own = trustme.CA()
    url = endpoint(_server(authority.issue_cert("localhost"), asks=own))
    shown = _written(own.issue_cert("me@example.org"), tmp_path)
    assert _label(url, ca_file=ca_file, **shown) == "OpenSearch 3.8.0"


@pytest.mark.parametrize("kind", ["absent", "expired", "stranger"])
def test_a_client_certificate_that_does_not_open(
    endpoint: Endpoint, authority: trustme.CA, ca_file: str, tmp_path: Path, kind: str
) -> None:
    own = trustme.CA()
    url = endpoint(_server(authority.issue_cert("localhost"), asks=own))
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    certs = {
        "expired": own.issue_cert("me@example.org", not_after=yesterday),
        "stranger": trustme.CA().issue_cert("me@example.org"),
    }
    shown = _written(certs[kind], tmp_path) if kind in certs else {}
    with pytest.raises(ClusterUnreachable) as caught:
        _label(url, ca_file=ca_file, **shown)
    assert "--client-cert" in caught.value.remedy, str(caught.value)


def test_http_to_a_tls_port(endpoint: Endpoint, authority: trustme.CA) -> None:
    url = endpoint(_server(authority.issue_cert("localhost")))
    with pytest.raises(ClusterUnreachable, match="speaks TLS") as caught:
        _label(url.replace("https:", "http:"))
    assert caught.value.remedy == f"Use {url}"


@pytest.mark.parametrize("pin", [{}, {"ca_fingerprint": "0" * 64}])
def test_tls_to_an_http_port(node_url: str, pin: dict[str, str]) -> None:
    with pytest.raises(ClusterUnreachable, match="no TLS connection") as caught:
        _label(node_url.replace("http:", "https:"), **pin)
    assert "plain HTTP" in caught.value.remedy, str(caught.value)


def test_unusable_files_are_wrong_usage(tmp_path: Path, authority: trustme.CA) -> None:
    text, other = tmp_path / "text.pem", trustme.CA().issue_cert("other@example.org")
    text.write_text("hello")
    cert = _written(authority.issue_cert("me@example.org"), tmp_path)
    key = tmp_path / "other.key"
    other.private_key_pem.write_to_path(key)
    for wrong, expected in (
        ({"ca_file": str(tmp_path / "none.pem")}, "No such file"),
        ({"ca_file": str(text)}, "no PEM certificates"),
        ({"client_cert": str(tmp_path / "none.pem")}, "no such file"),
        ({"client_cert": str(text)}, "can't be used"),
        ({"client_cert": cert["client_cert"], "client_key": str(key)}, "mismatch"),
    ):
        with pytest.raises(UsageError, match=expected):
            Connection(url="https://localhost:1", security=SecuritySettings(**wrong)).client()  # type: ignore[arg-type]


def test_interrupted_tls_connections_are_retried_and_rejections_are_not() -> None:
    cut = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert (
        tls.is_permanent_tls_error(cut),
        tls.is_permanent_tls_error(refused),
        tls.is_permanent_tls_error(OSError("reset")),
    ) == (False, True, False)


def test_no_stack_trace_on_the_log(endpoint: Endpoint, authority: trustme.CA, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(StairError):
        _label(endpoint(_server(authority.issue_cert("localhost"))))
    assert not [record for record in caplog.records if record.exc_info]
