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

_LOOK_TIMEOUT_S = 3.0
_LISTEN_TIMEOUT_S = 1.0
# Messages of dropped connections, which are temporary; a rejected certificate will be rejected again.
_PASSING = ("EOF occurred", "UNEXPECTED_EOF", "BAD_RECORD_MAC", "DECRYPTION_FAILED", "timed out")


def create_ssl_context(security: SecuritySettings) -> ssl.SSLContext:
    """Create a context that verifies the server against `ca_file` or the system's authorities.

    With `ca_fingerprint` it trusts no certificate yet: see `trust_pinned_certificate`.

    Raises:
        UsageError: If a file can't be read or is invalid.
    """
    if security.ca_fingerprint is not None:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nothing until the pinned certificate is found
        made.minimum_version = ssl.TLSVersion.TLSv1_2
    elif security.ca_file is not None:
        made = _create_context_for_ca(security.ca_file)
    else:
        made = ssl.create_default_context()
        if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
            made.load_verify_locations(certifi.where())  # some systems have no authorities in Python's default paths
    if security.client_cert is not None:
        _load_client_certificate(made, security.client_cert, security.client_key)
    return made


def _create_context_for_ca(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise UsageError(f"--ca-file: no PEM certificates in {ca_file}", "It starts with -----BEGIN CERTIFICATE-----") from None
    except OSError as error:
        raise UsageError(f"--ca-file: can't read {ca_file}: {error.strerror}", "Every worker needs it at this path.") from None


def _load_client_certificate(made: ssl.SSLContext, cert: str, key: str | None) -> None:
    def reject_passphrase() -> str:
        raise UsageError("--client-key: the key has a passphrase", "Give it without one: openssl pkey -in KEY -out PLAIN")

    for option, path in (("--client-cert", cert), ("--client-key", key)):
        if path is not None and not os.access(path, os.R_OK):
            there = os.path.exists(path)  # noqa: PTH110  Path.exists raises for what is too long for a path
            reason = f"{path} isn't readable" if there else "no such file"  # not named: it may be the key itself
            raise UsageError(f"{option}: {reason}", "Give the path of a PEM file. Every worker needs it at this path.")
    try:
        made.load_cert_chain(cert, key, password=reject_passphrase)
    except (ssl.SSLError, OSError) as error:
        hint = "Both are PEM files; without --client-key the certificate file must also contain the key."
        raise UsageError(f"--client-cert: {cert} and its key can't be used: {describe_ssl_error(error)}", hint) from None


def trust_pinned_certificate(made: ssl.SSLContext, wanted: str, host: str, port: int, timeout_s: float) -> bool:
    """Trust the certificate with this fingerprint, if the server presents it; returns whether it is the server's own.

    Nothing is sent over this connection: the server proves on the next one that it has the key.

    Args:
        made: The context to change.
        wanted: The fingerprint.
        host: Host of the server.
        port: Port of the server.
        timeout_s: Timeout of the connection.

    Raises:
        FingerprintMismatch: If no certificate matches.
        OSError: If the server is unreachable, or doesn't use TLS.
    """
    chain = get_peer_certificates(host, port, timeout_s)
    prints = [hashlib.sha256(der).hexdigest() for der in chain]
    if wanted not in prints:
        raise FingerprintMismatch(f"no certificate of the server matches; their fingerprints are {', '.join(prints)}")
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned one may be no root
    made.load_verify_locations(cadata=chain[prints.index(wanted)])
    return prints.index(wanted) == 0


class FingerprintMismatch(ssl.SSLError):
    """No certificate of the server matches the pinned fingerprint."""

    def __str__(self) -> str:
        return str(self.args[0])


def get_peer_certificates(host: str, port: int, timeout_s: float = _LOOK_TIMEOUT_S) -> list[bytes]:
    """Get the certificates that the server presents, its own first, in DER; unverified.

    Raises:
        OSError: If the server is unreachable, or doesn't use TLS (`ssl.SSLError`).
    """
    with (
        socket.create_connection((host, port), timeout=timeout_s) as plain,
        _create_unverified_context().wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        # Public from Python 3.13 on, as bytes; before that as certificate objects of the private `_sslobj`.
        inner: Any = wrapped if hasattr(wrapped, "get_unverified_chain") else getattr(wrapped, "_sslobj", None)
        chain = inner.get_unverified_chain() if hasattr(inner, "get_unverified_chain") else None
        der = [cert if isinstance(cert, bytes) else ssl.PEM_cert_to_DER_cert(cert.public_bytes()) for cert in chain or ()]
        own = wrapped.getpeercert(binary_form=True)
        return der or ([own] if own else [])


def get_tls_alert(host: str, port: int, security: SecuritySettings) -> ssl.SSLError | None:
    """Get the server's TLS alert about our client certificate, or about its absence.

    The server sends it after the handshake, and a client that is writing by then only sees a dropped connection. So this one only
    listens. Nothing is sent.
    """
    looking = _create_unverified_context()
    if security.client_cert is not None:
        _load_client_certificate(looking, security.client_cert, security.client_key)
    try:
        with (
            socket.create_connection((host, port), timeout=_LOOK_TIMEOUT_S) as plain,
            looking.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            wrapped.settimeout(_LISTEN_TIMEOUT_S)
            wrapped.recv(1)
    except ssl.SSLError as error:
        return error if "ALERT" in str(error).upper() else None
    except OSError:
        pass
    return None


def _create_unverified_context() -> ssl.SSLContext:
    """Create a context that trusts any server, only to inspect it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


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
    todo: list[object] = [error]
    while todo:
        now = todo.pop()
        if isinstance(now, ssl.SSLError):
            return now
        if isinstance(now, BaseException) and id(now) not in seen:
            seen.add(id(now))
            todo += [*now.args, now.__cause__, now.__context__, getattr(now, "reason", None)]
    return None


def is_permanent_tls_error(error: BaseException) -> bool:
    """Return whether TLS failed permanently, so that a retry doesn't help."""
    found = find_ssl_error(error)
    return (
        found is not None
        and not isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        and not any(sign in str(found) for sign in _PASSING)
    )


def describe_ssl_error(error: Exception) -> str:
    """Describe an error briefly, without OpenSSL's source location."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return str(error.verify_message)
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()


def get_tls_remedy(error: ssl.SSLError, variables: SecurityVariables) -> str:
    """Get the remedy for a TLS error.

    Args:
        error: The error.
        variables: What the settings of the connection are called.
    """
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
        ways = (f"{option(name)} / {variables[name]}" for name in ("ca_file", "ca_fingerprint"))
        return f"Give the authority that signed it: {', or '.join(ways)}."
    if "ALERT" in text and any(word in text for word in ("CERTIFICATE", "UNKNOWN_CA", "UNKNOWN CA", "HANDSHAKE")):
        needed = f"{option('client_cert')} and {option('client_key')}"
        return f"The cluster requires another certificate: {needed}, valid and signed by its authority."
    if (
        "WRONG_VERSION" in text
        or "WRONG VERSION" in text
        or "RECORD_LAYER" in text
        or "RECORD LAYER" in text
        or "HTTP_REQUEST" in text
    ):
        return "The port speaks plain HTTP: use http:// if that is intended, or the TLS port."
    return "Check that the port speaks TLS 1.2 or later."
