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
from support.errors import expect_error
from support.servers.recording_proxy import RecordingProxy

from stair_es.cluster.client import tls
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError, UsageError


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def build_context(
    leaf: trustme.LeafCert, client_authority: trustme.CA | None = None, root: trustme.CA | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    if root is not None:  # show the whole chain, root and all
        with (
            leaf.private_key_and_cert_chain_pem.tempfile() as key,
            trustme.Blob(leaf.private_key_and_cert_chain_pem.bytes() + root.cert_pem.bytes()).tempfile() as chain,
        ):
            context.load_cert_chain(chain, key)
    if client_authority is not None:
        client_authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


Endpoint = Callable[[ssl.SSLContext | None], str]


@pytest.fixture
def endpoint(node_url: str) -> Iterator[Endpoint]:
    opened = list[RecordingProxy]()

    def open_endpoint(context: ssl.SSLContext | None) -> str:
        opened.append(RecordingProxy(node_url, tls=context))
        return opened[-1].url

    yield open_endpoint
    for proxy in opened:
        proxy.kill()


def fetch_label(url: str, **security: str) -> str:
    connection = pickle.loads(pickle.dumps(Connection(url=url, timeout_s=5, security=SecuritySettings(**security))))  # type: ignore[arg-type]
    with Cluster(connection) as cluster:
        return get_cluster_info(cluster).label


def compute_fingerprint(pem: bytes) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()


def test_a_ca_file_is_enough(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    assert fetch_label(endpoint(build_context(authority.issue_cert("localhost"))), ca_file=ca_file) == "OpenSearch 3.8.0"


def test_unknown_ca_is_rejected(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    url = endpoint(build_context(trustme.CA().issue_cert("localhost")))
    for security in ({}, {"ca_file": ca_file}):
        with expect_error("no-tls-connection") as caught:
            fetch_label(url, **security)
        assert "--ca-file" in caught.value.remedy


def test_another_host_is_not_trusted(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    with expect_error("no-tls-connection") as caught:
        fetch_label(endpoint(build_context(authority.issue_cert("search.example.org"))), ca_file=ca_file)
    assert "mismatch" in caught.value.message
    assert "host name" in caught.value.remedy


def test_an_expired_server_is_not_trusted(endpoint: Endpoint, authority: trustme.CA, ca_file: str) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    with expect_error("no-tls-connection") as caught:
        fetch_label(endpoint(build_context(authority.issue_cert("localhost", not_after=yesterday))), ca_file=ca_file)
    assert "expired" in caught.value.message
    assert "renewed" in caught.value.remedy


@pytest.mark.parametrize("shape", [str, str.upper, lambda text: ":".join(text[i : i + 2] for i in range(0, 64, 2)).upper()])
def test_the_fingerprint_of_the_authority_is_enough(
    endpoint: Endpoint, authority: trustme.CA, shape: Callable[[str], str]
) -> None:
    url = endpoint(build_context(authority.issue_cert("localhost"), root=authority))
    assert fetch_label(url, ca_fingerprint=shape(compute_fingerprint(authority.cert_pem.bytes()))) == "OpenSearch 3.8.0"


def test_server_fingerprint_suffices_for_any_host_name(endpoint: Endpoint, authority: trustme.CA) -> None:
    leaf = authority.issue_cert("search.example.org")
    fingerprint = compute_fingerprint(leaf.cert_chain_pems[0].bytes())
    assert fetch_label(endpoint(build_context(leaf)), ca_fingerprint=fingerprint) == "OpenSearch 3.8.0"


def test_a_wrong_fingerprint_is_rejected_before_anything_is_sent(
    node_url: str, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    with RecordingProxy(node_url, tls=build_context(authority.issue_cert("localhost"), root=authority)) as proxy:
        connection = Connection(url=proxy.url, security=SecuritySettings(ca_fingerprint="0" * 64, api_key="secret-key"))
        waits, fingerprint = list[float](), compute_fingerprint(authority.cert_pem.bytes())
        with Cluster(connection, sleep=waits.append) as cluster, expect_error("no-tls-connection") as caught:
            cluster.call(cluster.client.info)
        assert fingerprint in caught.value.message
        assert (proxy.requests, waits, caplog.records) == ([], [], [])


def test_authority_that_did_not_sign_is_rejected(endpoint: Endpoint, authority: trustme.CA) -> None:
    """The true authority's certificate is public: that it is shown proves nothing until it has signed."""
    url = endpoint(build_context(trustme.CA().issue_cert("localhost"), root=authority))
    with expect_error("no-tls-connection") as caught:
        fetch_label(url, ca_fingerprint=compute_fingerprint(authority.cert_pem.bytes()))
    assert "certificate" in caught.value.message


def write_certificate(cert: trustme.LeafCert, folder: Path) -> dict[str, str]:
    chain, key = folder / "client.pem", folder / "client.key"
    cert.cert_chain_pems[0].write_to_path(chain)
    cert.private_key_pem.write_to_path(key)
    return {"client_cert": str(chain), "client_key": str(key)}


def test_a_client_certificate_opens(endpoint: Endpoint, authority: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    client_ca = trustme.CA()
    url = endpoint(build_context(authority.issue_cert("localhost"), client_authority=client_ca))
    client_files = write_certificate(client_ca.issue_cert("me@example.org"), tmp_path)
    assert fetch_label(url, ca_file=ca_file, **client_files) == "OpenSearch 3.8.0"


@pytest.mark.parametrize("kind", ["absent", "expired", "stranger"])
def test_a_client_certificate_that_does_not_open(
    endpoint: Endpoint, authority: trustme.CA, ca_file: str, tmp_path: Path, kind: str
) -> None:
    client_ca = trustme.CA()
    url = endpoint(build_context(authority.issue_cert("localhost"), client_authority=client_ca))
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certs = {
        "expired": client_ca.issue_cert("me@example.org", not_after=yesterday),
        "stranger": trustme.CA().issue_cert("me@example.org"),
    }
    client_files = write_certificate(certs[kind], tmp_path) if kind in certs else {}
    with expect_error("no-tls-connection") as caught:
        fetch_label(url, ca_file=ca_file, **client_files)
    assert "--client-cert" in caught.value.remedy, str(caught.value)


def test_http_to_a_tls_port(endpoint: Endpoint, authority: trustme.CA) -> None:
    url = endpoint(build_context(authority.issue_cert("localhost")))
    with expect_error("tls-expected") as caught:
        fetch_label(url.replace("https:", "http:"))
    assert url in caught.value.remedy


@pytest.mark.parametrize("pin", [{}, {"ca_fingerprint": "0" * 64}])
def test_tls_to_an_http_port(node_url: str, pin: dict[str, str]) -> None:
    with expect_error("no-tls-connection") as caught:
        fetch_label(node_url.replace("http:", "https:"), **pin)
    assert "HTTP" in caught.value.remedy, str(caught.value)


def test_unusable_files_are_wrong_usage(tmp_path: Path, authority: trustme.CA) -> None:
    text, other = tmp_path / "text.pem", trustme.CA().issue_cert("other@example.org")
    text.write_text("hello")
    cert = write_certificate(authority.issue_cert("me@example.org"), tmp_path)
    key = tmp_path / "other.key"
    other.private_key_pem.write_to_path(key)
    for files, code, fact in (
        ({"ca_file": str(tmp_path / "none.pem")}, "ca-file-unreadable", "none.pem"),
        ({"ca_file": str(text)}, "no-ca-certificates", "text.pem"),
        ({"client_cert": str(tmp_path / "none.pem")}, "certificate-unreadable", "--client-cert"),
        ({"client_cert": str(text)}, "invalid-certificate", "text.pem"),
        ({"client_cert": cert["client_cert"], "client_key": str(key)}, "invalid-certificate", "mismatch"),
    ):
        with expect_error(code, UsageError) as caught:
            Connection(url="https://localhost:1", security=SecuritySettings(**files)).client()  # type: ignore[arg-type]
        assert fact in caught.value.message


@pytest.mark.parametrize(
    ("error", "is_permanent"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), False),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), True),
        (OSError("reset"), False),
    ],
)
def test_only_rejections_by_tls_are_permanent(error: OSError, is_permanent: bool) -> None:
    assert tls.is_permanent_tls_error(error) is is_permanent


def test_no_stack_trace_on_the_log(endpoint: Endpoint, authority: trustme.CA, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(StairError):
        fetch_label(endpoint(build_context(authority.issue_cert("localhost"))))
    assert not [record for record in caplog.records if record.exc_info]
