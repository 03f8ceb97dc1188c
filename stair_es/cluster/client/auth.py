"""Authentication and TLS settings for a cluster. Pure values, except for reading files of secrets."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

from stair_es.errors import UsageError

SECRET_VARIABLES = {
    "user": "STAIR_ES_USER",
    "password": "STAIR_ES_PASSWORD",
    "api_key": "STAIR_ES_API_KEY",
    "bearer_token": "STAIR_ES_BEARER_TOKEN",
}
"""Field -> environment variable. Each value can also be read from the file named by `<VARIABLE>_FILE`."""
OPTION_VARIABLES = {
    "ca_file": "STAIR_ES_CA_FILE",
    "ca_fingerprint": "STAIR_ES_CA_FINGERPRINT",
    "client_cert": "STAIR_ES_CLIENT_CERT",
    "client_key": "STAIR_ES_CLIENT_KEY",
    "aws_service": "STAIR_ES_AWS_SERVICE",
    "aws_region": "STAIR_ES_AWS_REGION",
}
"""Field -> environment variable of settings that aren't secret."""

AuthMethod = Literal["none", "basic", "api_key", "bearer", "aws"]
_WORTH = 4
"""Minimum length of a secret to redact: shorter ones occur in many words of any message."""
_BARE_FILE = "Name a text file with the bare value. The variable's value isn't shown: it may be the secret itself."
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, kw_only=True)
class SecuritySettings:
    """Authentication and TLS settings of a connection. Picklable; no secret is in its `repr`.

    Raises:
        UsageError: On construction, if settings are invalid or conflict.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    """`id:key`, or the same base64-encoded as Kibana shows it."""
    bearer_token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    """PEM file with the certificate authorities to trust, in place of the system's."""
    ca_fingerprint: str | None = None
    """SHA-256 of the authority's certificate, or of the server's own: trusted if the server presents it."""
    client_cert: str | None = None
    """PEM file with the client certificate, and its key unless `client_key` is set."""
    client_key: str | None = None
    aws_service: Literal["es", "aoss"] | None = None
    """Sign every request (SigV4) for Amazon OpenSearch Service (`es`) or Serverless (`aoss`)."""
    aws_region: str | None = None
    """None for the region of the AWS configuration."""

    def __post_init__(self) -> None:
        named = {"user": self.user, "api_key": self.api_key, "bearer_token": self.bearer_token, "aws_service": self.aws_service}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise UsageError(
                f"more than one way to log in: {' and '.join({**SECRET_VARIABLES, **OPTION_VARIABLES}[name] for name in given)}",
                "Keep one of them. A user can also be part of the URL.",
            )
        if (self.user is None) != (self.password is None):
            missing = "password" if self.password is None else "user"
            raise UsageError(
                f"the login has no {missing}", f"Set {SECRET_VARIABLES[missing]} (or {SECRET_VARIABLES[missing]}_FILE)."
            )
        self._check_header_values()
        if self.client_key is not None and self.client_cert is None:
            raise UsageError("a client key without its certificate", "Give --client-cert too.")
        if self.ca_file is not None and self.ca_fingerprint is not None:
            raise UsageError("--ca-file and --ca-fingerprint exclude each other", "Keep the file: it is more specific.")
        if self.aws_service not in (None, "es", "aoss"):
            raise UsageError(f"--aws-service: {self.aws_service!r} is unknown", "Give es, or aoss for Serverless.")
        if self.aws_region is not None and self.aws_service is None:
            raise UsageError("an AWS region without a service", "Give --aws-service es (or aoss) too, or leave both out.")
        if self.ca_fingerprint is not None:
            object.__setattr__(self, "ca_fingerprint", normalize_fingerprint(self.ca_fingerprint))

    def _check_header_values(self) -> None:
        """Reject values that can't be sent in a header: an error of the client would show them."""
        for name in ("api_key", "bearer_token"):
            value = getattr(self, name)
            if value is not None and not _TOKEN.fullmatch(value):
                raise UsageError(
                    f"{SECRET_VARIABLES[name]} holds spaces, line breaks or non-ASCII characters", "Give the bare value."
                )
        for name in ("user", "password"):
            check_utf8(SECRET_VARIABLES[name], getattr(self, name) or "")

    @property
    def method(self) -> AuthMethod:
        """The authentication method."""
        if self.aws_service is not None:
            return "aws"
        if self.api_key is not None:
            return "api_key"
        if self.bearer_token is not None:
            return "bearer"
        return "basic" if self.user is not None else "none"

    @property
    def requires_tls(self) -> bool:
        """Whether a setting requires https."""
        return any((self.ca_file, self.ca_fingerprint, self.client_cert))

    @property
    def authorization(self) -> str | None:
        """Value of the `Authorization` header; None without one, or if each request is signed."""
        if self.api_key is not None:
            return f"ApiKey {_encode_base64(self.api_key) if ':' in self.api_key else self.api_key}"
        if self.bearer_token is not None:
            return f"Bearer {self.bearer_token}"
        return f"Basic {_encode_base64(f'{self.user}:{self.password}')}" if self.user is not None else None

    def redact(self, text: str) -> str:
        """Redact all secrets in a text, for example in a response that repeats the request."""
        header = (self.authorization or "").partition(" ")[2]
        secrets = [self.password, self.api_key, self.bearer_token, header, _extract_key(header) if self.api_key else None]
        shapes = {shape for secret in secrets if secret for shape in (secret, quote(secret, safe="")) if len(shape) >= _WORTH}
        for shape in sorted(shapes, key=len, reverse=True):
            text = text.replace(shape, "***")
        return text


def read_security_settings(given: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> SecuritySettings:
    """Read the settings from `given`, by field name, and otherwise from the environment.

    Raises:
        UsageError: If settings conflict, or a file of a secret can't be read.
    """
    values: dict[str, str | None] = {name: read_secret(variable, environ) for name, variable in SECRET_VARIABLES.items()}
    values |= {name: given.get(name) or environ.get(variable) or None for name, variable in OPTION_VARIABLES.items()}
    return SecuritySettings(**cast("dict[str, Any]", values))


def read_secret(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Read the value of a variable, or of the file named by `<variable>_FILE`; None if neither is set.

    Raises:
        UsageError: If both are set, or the file can't be read.
    """
    value, path = environ.get(variable) or None, environ.get(f"{variable}_FILE") or None
    if path is None:
        return value
    if value is not None:
        raise UsageError(f"{variable} and {variable}_FILE are both set", "Keep one of them.")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") or None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{variable}_FILE: can't read the file that it names: {describe_read_error(error)}", _BARE_FILE
        ) from None


def describe_read_error(error: OSError | ValueError) -> str:
    """Describe why a file of a secret can't be read, without its name, which may be the secret itself."""
    return error.strerror or "" if isinstance(error, OSError) else "not a path, or not UTF-8 in it"


def check_utf8(variable: str, text: str) -> None:
    """Check that the value of an environment variable can be encoded.

    Raises:
        UsageError: If it can't; the value isn't shown.
    """
    if not is_utf8(text):
        raise UsageError(f"{variable} isn't UTF-8", f"Write it in UTF-8, for example in a file: {variable}_FILE.")


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded: bytes of the environment that aren't UTF-8 become surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalize_fingerprint(text: str) -> str:
    """Normalize a SHA-256 fingerprint in any common notation to 64 hex digits.

    Raises:
        UsageError: If it isn't a SHA-256 fingerprint.
    """
    digits = re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE).replace(":", "").replace(" ", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise UsageError(
            "not a SHA-256 fingerprint: --ca-fingerprint",
            "It has 64 hex digits: openssl x509 -in ca.crt -noout -fingerprint -sha256",
        )
    return digits


def _extract_key(encoded: str) -> str:
    """Extract the key from an encoded `id:key`."""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _encode_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
