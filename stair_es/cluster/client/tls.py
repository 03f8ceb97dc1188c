"""TLS: server verification, client certificates, and what to do about failures."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from typing import Any

import certifi

from stair_es.cluster.client.auth import SecuritySettings, SecurityVariables
from stair_es.errors import UsageError

_CONNECT_TIMEOUT_S = 3.0
# Messages of dropped connections, which are temporary; a rejected certificate will be rejected again.
_TEMPORARY = ("EOF occurred", "UNEXPECTED_EOF", "BAD_RECORD_MAC", "DECRYPTION_FAILED", "timed out")


def create_ssl_context(security: SecuritySettings) -> ssl.SSLContext:
    """Create a context that verifies the server against `ca_file` or the system's authorities.

    With `ca_fingerprint` it trusts no certificate yet: see `trust_pinned_certificate`.
    """
    if security.ca_fingerprint is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nothing until the pinned certificate is found
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    elif security.ca_file is not None:
        context = _create_context_for_ca(security.ca_file)
    else:
        context = ssl.create_default_context()
        if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
            context.load_verify_locations(certifi.where())  # some systems have no authorities in Python's default paths
    if security.client_cert is not None:
        _load_client_certificate(context, security.client_cert, security.client_key)
    return context


def _create_context_for_ca(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise UsageError(
            f"--ca-file: no PEM certificates in {ca_file}",
            "A PEM certificate starts with -----BEGIN CERTIFICATE-----.",
            code="no-ca-certificates",
        ) from None
    except OSError as error:
        raise UsageError(
            f"--ca-file: can't read {ca_file}: {error.strerror}", "Every worker needs it at this path.", code="ca-file-unreadable"
        ) from None


def _load_client_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def reject_passphrase() -> str:
        raise UsageError(
            "--client-key: the key has a passphrase",
            "Remove the passphrase: openssl pkey -in KEY -out PLAIN",
            code="key-with-passphrase",
        )

    for option, path in (("--client-cert", cert), ("--client-key", key)):
        if path is not None and not os.access(path, os.R_OK):
            exists = os.path.exists(path)  # noqa: PTH110  Path.exists raises for what is too long for a path
            reason = f"{path} isn't readable" if exists else "no such file"  # not named: it may be the key itself
            raise UsageError(
                f"{option}: {reason}",
                "Give the path of a PEM file. Every worker needs it at this path.",
                code="certificate-unreadable",
            )
    try:
        context.load_cert_chain(cert, key, password=reject_passphrase)
    except (ssl.SSLError, OSError) as error:
        remedy = "Both are PEM files; without --client-key the certificate file must also contain the key."
        raise UsageError(
            f"--client-cert: {cert} and its key can't be used: {describe_ssl_error(error)}", remedy, code="invalid-certificate"
        ) from None


def trust_pinned_certificate(context: ssl.SSLContext, fingerprint: str, host: str, port: int, timeout_s: float) -> bool:
    """Trust the certificate with this fingerprint, if the server presents it; returns whether it is the server's own.

    Nothing is sent over this connection: the server proves on the next one that it has the key.

    Raises:
        FingerprintMismatch: If no certificate matches.
        OSError: If the server is unreachable, or doesn't use TLS.
    """
    chain = get_peer_certificates(host, port, timeout_s)
    fingerprints = [hashlib.sha256(der).hexdigest() for der in chain]
    if fingerprint not in fingerprints:
        raise FingerprintMismatch(f"no certificate of the server matches; their fingerprints are {', '.join(fingerprints)}")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned one may be no root
    context.load_verify_locations(cadata=chain[fingerprints.index(fingerprint)])
    return fingerprints.index(fingerprint) == 0


class FingerprintMismatch(ssl.SSLError):
    """No certificate of the server matches the pinned fingerprint."""

    def __str__(self) -> str:
        return str(self.args[0])


def get_peer_certificates(host: str, port: int, timeout_s: float = _CONNECT_TIMEOUT_S) -> list[bytes]:
    """Get the certificates that the server presents, its own first, in DER; unverified.

    Raises:
        OSError: If the server is unreachable, or doesn't use TLS (`ssl.SSLError`).
    """
    with (
        socket.create_connection((host, port), timeout=timeout_s) as connection,
        _create_unverified_context().wrap_socket(connection, server_hostname=host) as tls_socket,
    ):
        # Public from Python 3.13 on, as bytes; before that as certificate objects of the private `_sslobj`.
        source: Any = tls_socket if hasattr(tls_socket, "get_unverified_chain") else getattr(tls_socket, "_sslobj", None)
        chain = source.get_unverified_chain() if hasattr(source, "get_unverified_chain") else None
        der = [cert if isinstance(cert, bytes) else ssl.PEM_cert_to_DER_cert(cert.public_bytes()) for cert in chain or ()]
        own = tls_socket.getpeercert(binary_form=True)
        return der or ([own] if own else [])


def _create_unverified_context() -> ssl.SSLContext:
    """Create a context that trusts any server, only to inspect it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_tls_port(host: str, port: int) -> bool:
    """Return whether a TLS handshake is answered."""
    try:
        get_peer_certificates(host, port)
    except ssl.SSLError as error:
        return "ALERT" in str(error).upper()  # rejected, but by TLS
    except OSError:
        return False
    return True


def find_ssl_error(error: BaseException | object) -> ssl.SSLError | None:
    """Find the TLS error below the exceptions of the client and its HTTP library."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, ssl.SSLError):
            return current
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            pending += [*current.args, current.__cause__, current.__context__, getattr(current, "reason", None)]
    return None


def is_permanent_tls_error(error: BaseException) -> bool:
    """Return whether TLS failed permanently, so that a retry doesn't help."""
    ssl_error = find_ssl_error(error)
    return (
        ssl_error is not None
        and not isinstance(ssl_error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        and not any(text in str(ssl_error) for text in _TEMPORARY)
    )


def describe_ssl_error(error: Exception) -> str:
    """Describe an error briefly, without OpenSSL's source location."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return str(error.verify_message)
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()


def get_tls_remedy(error: ssl.SSLError, variables: SecurityVariables) -> str:
    """Get the remedy for a TLS error, in terms of the connection's settings."""
    text, option = str(error).upper(), variables.get_option
    if isinstance(error, FingerprintMismatch):
        return (
            "Compare the fingerprint with that of the certificate on the cluster. Nothing was sent. If the server doesn't send "
            f"the certificate of its authority, use {option('ca_file')}."
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        if "EXPIRED" in text:
            return "The cluster's certificate must be renewed (or this machine's clock is wrong)."
        if "HOSTNAME MISMATCH" in text or "IP ADDRESS MISMATCH" in text:
            return "Use a URL with a host name that the certificate is valid for."
        options = (f"{option(name)} / {variables[name]}" for name in ("ca_file", "ca_fingerprint"))
        return f"Give the authority that signed it: {', or '.join(options)}."
    certificate = f"{option('client_cert')} and {option('client_key')}, valid and signed by its authority"
    if "ALERT" in text and any(word in text for word in ("CERTIFICATE", "UNKNOWN_CA", "UNKNOWN CA", "HANDSHAKE")):
        return f"The cluster requires another certificate: {certificate}."
    if any(sign in text for sign in ("WRONG_VERSION", "WRONG VERSION", "RECORD_LAYER", "RECORD LAYER", "HTTP_REQUEST")):
        return "The port speaks plain HTTP: use http:// if that is intended, or the TLS port."
    return f"Check that the port speaks TLS 1.2 or later. If the cluster requires a client certificate: {certificate}."
