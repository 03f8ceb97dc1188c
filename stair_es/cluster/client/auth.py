"""Authentication and TLS settings for a cluster. Pure values, except for reading files of secrets."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote, unquote

from stair_es.errors import OptionConflict, UsageError
from stair_es.types import is_utf8
from stair_es.urls import parse_node_url, remove_login

AuthMethod = Literal["none", "basic", "api_key", "bearer", "aws"]


@dataclass(frozen=True, kw_only=True)
class SecurityVariables:
    """Names of the variables and options that set `SecuritySettings`, for one kind of server."""

    secrets: Mapping[str, str]
    """Field -> environment variable. Each value can also be read from the file named by `<VARIABLE>_FILE`."""
    options: Mapping[str, str]
    """Field -> environment variable of settings that aren't secret."""
    option_prefix: str
    """Prefix of the options for the latter: `--` for `--ca-file`."""
    url: str
    """Name of the URL in messages."""

    def __getitem__(self, name: str) -> str:
        """Return the variable of a field."""
        return self.secrets.get(name) or self.options[name]

    def get_option(self, name: str) -> str:
        """Return the option of a field."""
        return self.option_prefix + name.replace("_", "-")

    def get_login_remedy(self, method: AuthMethod) -> str:
        """Return what to do about a login that was refused."""
        user, password, key, token = (self.secrets[name] for name in ("user", "password", "api_key", "bearer_token"))
        remedies: dict[AuthMethod, str] = {
            "none": f"Set {key}, or {user} and {password} (each may be a file: {key}_FILE, ...).",
            "basic": f"Check {user} and {password}, or the user and the password in {self.url}; where basic login is off, set"
            f" {key} or {token}.",
            "api_key": f"Check {key}: it may be incorrect, expired or invalidated.",
            "bearer": f"Check {token}: such tokens expire.",
            "aws": "Check the AWS credentials (aws sts get-caller-identity), the region, and the service: es, or aoss for"
            " Serverless.",
        }
        return remedies[method]


CLUSTER_VARIABLES = SecurityVariables(
    secrets={
        "user": "STAIR_ES_USER",
        "password": "STAIR_ES_PASSWORD",
        "api_key": "STAIR_ES_API_KEY",
        "bearer_token": "STAIR_ES_BEARER_TOKEN",
    },
    options={
        "ca_file": "STAIR_ES_CA_FILE",
        "ca_fingerprint": "STAIR_ES_CA_FINGERPRINT",
        "client_cert": "STAIR_ES_CLIENT_CERT",
        "client_key": "STAIR_ES_CLIENT_KEY",
        "aws_service": "STAIR_ES_AWS_SERVICE",
        "aws_region": "STAIR_ES_AWS_REGION",
    },
    option_prefix="--",
    url="the URL",
)

_MIN_REDACTED_CHARS = 4
"""Minimum length of a secret to redact: shorter ones occur in many words of any message."""
_FILE_REMEDY = "Specify a text file with the bare value. The variable's value isn't shown: it may be the secret itself."
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
    """PEM file with the certificate authorities to trust, instead of the system's."""
    ca_fingerprint: str | None = None
    """SHA-256 of the authority's certificate, or of the server's own: trusted if the server presents it."""
    client_cert: str | None = None
    """PEM file with the client certificate, and its key unless `client_key` is set."""
    client_key: str | None = None
    aws_service: Literal["es", "aoss"] | None = None
    """Sign every request (SigV4) for Amazon OpenSearch Service (`es`) or Serverless (`aoss`)."""
    aws_region: str | None = None
    """None for the region of the AWS configuration."""
    variables: SecurityVariables = field(default=CLUSTER_VARIABLES, repr=False, compare=False)
    """Name of the settings in messages."""

    def __post_init__(self) -> None:
        methods = {"user": self.user, "api_key": self.api_key, "bearer_token": self.bearer_token, "aws_service": self.aws_service}
        given = [name for name, value in methods.items() if value is not None]
        if len(given) > 1:
            raise OptionConflict(
                f"more than one way to log in: {' and '.join(self.variables[name] for name in given)}",
                "Keep one of them. A user can also be part of the URL.",
            )
        if (self.user is None) != (self.password is None):
            missing = "password" if self.password is None else "user"
            variable = self.variables[missing]
            raise UsageError(f"the login has no {missing}", f"Set {variable} (or {variable}_FILE).", code="incomplete-login")
        self._check_header_values()
        option = self.variables.get_option
        if self.client_key is not None and self.client_cert is None:
            raise UsageError(
                "a client key without its certificate",
                f"Give {option('client_cert')} too.",
                code="client-key-without-certificate",
            )
        if self.ca_file is not None and self.ca_fingerprint is not None:
            raise OptionConflict(
                f"{option('ca_file')} and {option('ca_fingerprint')} are mutually exclusive",
                "Keep the file: it is more specific.",
            )
        if self.aws_service not in (None, "es", "aoss"):
            raise UsageError(
                f"--aws-service: {self.aws_service!r} is unknown", "Give es, or aoss for Serverless.", code="unknown-aws-service"
            )
        if self.aws_region is not None and self.aws_service is None:
            raise UsageError(
                "an AWS region without a service",
                "Give --aws-service es (or aoss) too, or leave both out.",
                code="aws-region-without-service",
            )
        if self.ca_fingerprint is not None:
            object.__setattr__(self, "ca_fingerprint", normalize_fingerprint(self.ca_fingerprint, option("ca_fingerprint")))

    def _check_header_values(self) -> None:
        """Reject values that can't be sent in a header: an error of the client would show them."""
        for name in ("api_key", "bearer_token"):
            value = getattr(self, name)
            if value is not None and not _TOKEN.fullmatch(value):
                raise UsageError(
                    f"{self.variables[name]} contains spaces, line breaks or non-ASCII characters",
                    "Give the bare value.",
                    code="invalid-header-value",
                )
        for name in ("user", "password"):
            check_utf8(self.variables[name], getattr(self, name) or "")

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
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}
        for form in sorted(forms, key=len, reverse=True):
            if len(form) >= _MIN_REDACTED_CHARS:
                text = text.replace(form, "***")
        return text


def read_security_settings(
    options: Mapping[str, str | None], environ: Mapping[str, str] = os.environ, variables: SecurityVariables = CLUSTER_VARIABLES
) -> SecuritySettings:
    """Read the settings from `options`, by field name, and otherwise, as all secrets, from the environment.

    Raises:
        UsageError: If settings conflict, or a file of a secret can't be read.
    """
    values: dict[str, str | None] = {name: read_secret(variable, environ) for name, variable in variables.secrets.items()}
    values |= {name: options.get(name) or environ.get(variable) or None for name, variable in variables.options.items()}
    return SecuritySettings(variables=variables, **cast("dict[str, Any]", values))


def resolve_url_login(
    urls: Sequence[str], security: SecuritySettings, what: str, remedy: str, variables: SecurityVariables = CLUSTER_VARIABLES
) -> SecuritySettings:
    """Check the URLs of the nodes of one server, and return its settings with the login that the URLs hold.

    Args:
        urls: `http[s]://[user:password@]host[:port][/prefix]`.
        security: Settings other than the URLs.
        what: What a URL should be, with its article, for the error.
        remedy: Remedy of that error.
        variables: What the settings are called in messages.

    Raises:
        UsageError: If a URL is invalid, the logins differ, or a certificate is set for a URL without TLS.
    """
    parts = [parse_node_url(url, what, remedy) for url in urls]
    logins = {(unquote(part.username), unquote(part.password or "")) for part in parts if part.username is not None}
    if len(logins) > 1:
        raise UsageError(
            "the nodes in the URL have different logins",
            "All nodes of a cluster must use the same login.",
            code="different-logins",
        )
    login = next(iter(logins), None)
    if login is not None and security.method != "none" and login != (security.user, security.password):
        raise OptionConflict(
            f"{variables.url} contains a login, but another login is set as well ({security.method})", "Keep one of the two."
        )
    http_urls = [remove_login(url) for url, part in zip(urls, parts, strict=True) if part.scheme == "http"]
    if security.requires_tls and http_urls:
        urls_text = ",".join(http_urls)
        raise UsageError(
            f"certificates require https, not {urls_text}",
            "Write https:// in the URL, or leave them out.",
            code="certificate-without-https",
        )
    return security if login is None else replace(security, user=login[0], password=login[1])


def read_secret(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Read the value of a variable, or of the file named by `<variable>_FILE`; None if neither is set.

    Raises:
        UsageError: If both are set, or the file can't be read.
    """
    value, path = environ.get(variable) or None, environ.get(f"{variable}_FILE") or None
    if path is None:
        return value
    if value is not None:
        raise OptionConflict(f"{variable} and {variable}_FILE are both set", "Keep one of them.")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") or None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{variable}_FILE: can't read the file that it names: {describe_read_error(error)}",
            _FILE_REMEDY,
            code="secret-file-unreadable",
        ) from None


def describe_read_error(error: OSError | ValueError) -> str:
    """Describe why a file of a secret can't be read, without its name, which may be the secret itself."""
    return error.strerror or "" if isinstance(error, OSError) else "not a path, or not UTF-8 in it"


def check_utf8(variable: str, text: str) -> None:
    """Raise UsageError, which doesn't show the value, if that of an environment variable isn't UTF-8."""
    if not is_utf8(text):
        raise UsageError(
            f"{variable} isn't UTF-8", f"Write it in UTF-8, for example in a file: {variable}_FILE.", code="secret-not-utf-8"
        )


def normalize_fingerprint(text: str, option: str) -> str:
    """Normalize a SHA-256 fingerprint in any notation to 64 hex digits; the UsageError for other texts names `option`."""
    digits = re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE).replace(":", "").replace(" ", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise UsageError(
            f"not a SHA-256 fingerprint: {option}",
            "A fingerprint has 64 hex digits. To print it: openssl x509 -in ca.crt -noout -fingerprint -sha256",
            code="not-a-fingerprint",
        )
    return digits


def _extract_key(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _encode_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
