"""Where the dashboards go: the address of a product, the part of it, and how to log in. Values; nothing is opened here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from stair_es.cluster.security import Security, check_utf8, secret
from stair_es.dashboards.corpus import Product
from stair_es.errors import UsageError
from stair_es.urls import parse_url

PREFIX = "STAIR_ES_DASHBOARDS_"
ENV_URL = f"{PREFIX}URL"
SECRETS = {"user": "USER", "password": "PASSWORD", "api_key": "API_KEY", "bearer_token": "TOKEN"}
"""Field -> environment variable behind the prefix. Each may stand in a file instead, named by the variable with `_FILE`."""
OPTIONS = {"ca_file": "CA_FILE", "ca_fingerprint": "CA_FINGERPRINT", "client_cert": "CLIENT_CERT", "client_key": "CLIENT_KEY"}
"""The same of what is no secret."""

_PRIVATE_TENANT = {"private": "__user__"}
_NO_SECURITY = Security()
_URL_REMEDY = "Write it like http://localhost:5601 or https://host/_dashboards, without what follows in the browser (/app/...)."


@dataclass(frozen=True, kw_only=True)
class Place:
    """One product, and a part of it. No secret is in its `repr`.

    Raises:
        UsageError: On construction, for what is no address or doesn't go together.
    """

    url: str = field(repr=False)
    """`http[s]://[user:password@]host[:port][/base/path]`."""
    space: str | None = None
    """Of Kibana."""
    workspace: str | None = None
    """Id of one, of OpenSearch Dashboards."""
    tenant: str | None = None
    """Of OpenSearch Dashboards with its security plugin: `global`, `private` or a name."""
    timeout_s: float = 60.0
    security: Security = _NO_SECURITY

    def __post_init__(self) -> None:
        parts = parse_url(self.url.strip(), "the address of a product", _URL_REMEDY)
        if parts.username is not None:
            if self.security.method != "none":
                raise UsageError(
                    f"a login in the URL of the dashboards, and another way to log in ({self.security.method})",
                    "Keep one of the two.",
                )
            login = replace(self.security, user=unquote(parts.username), password=unquote(parts.password or ""))
            object.__setattr__(self, "security", login)
        if self.security.wants_tls and parts.scheme == "http":
            raise UsageError(f"certificates mean nothing to {self.safe_url}", "Write https:// in the URL, or leave them out.")
        if self.space is not None and (self.workspace is not None or self.tenant is not None):
            raise UsageError(
                "--space is Kibana's, --workspace and --tenant are those of OpenSearch Dashboards", "Give those of one product."
            )

    @property
    def safe_url(self) -> str:
        """The address without login and without a slash at its end."""
        parts = urlsplit(self.url)
        netloc = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))

    @property
    def scope(self) -> str:
        """What stands before `/api` and `/app` for the space or the workspace."""
        if self.space is not None and self.space != "default":
            return f"/s/{quote(self.space, safe='')}"
        return f"/w/{quote(self.workspace, safe='')}" if self.workspace is not None else ""

    @property
    def tenant_header(self) -> str | None:
        """What the security plugin calls the tenant."""
        return None if self.tenant is None else _PRIVATE_TENANT.get(self.tenant, self.tenant)

    @property
    def product(self) -> Product | None:
        """Which product it must be, by the part that is asked for."""
        if self.space is not None:
            return "kibana"
        return "opensearch-dashboards" if self.workspace is not None or self.tenant is not None else None

    def link(self, dashboard: str) -> str:
        """What to open in a browser to see a dashboard."""
        tenant = f"?security_tenant={quote(self.tenant, safe='')}" if self.tenant is not None else ""
        return f"{self.safe_url}{self.scope}/app/dashboards{tenant}#/view/{quote(dashboard, safe='')}"

    def redact(self, text: str) -> str:
        """`text` without any secret of this place."""
        return self.security.redact(text)


def place_from_env(
    url: str | None,
    options: Mapping[str, str | None],
    environ: Mapping[str, str] = os.environ,
    *,
    space: str | None = None,
    workspace: str | None = None,
    tenant: str | None = None,
    timeout_s: float = 60.0,
) -> Place:
    """The place at `url`, or where `STAIR_ES_DASHBOARDS_URL` (or `..._URL_FILE`) says; logins come from the environment.

    Args:
        url: As for `Place`.
        options: Certificates, by the names in `OPTIONS`; go before the environment.
        environ: The environment.
        space: As for `Place`.
        workspace: As for `Place`.
        tenant: As for `Place`.
        timeout_s: As for `Place`.

    Raises:
        UsageError: There is no URL, or something doesn't go together.
    """
    url = url or secret(ENV_URL, environ)
    if not url:
        raise UsageError(
            "no address of OpenSearch Dashboards or Kibana given",
            f"Give --dashboards-url or set {ENV_URL}, for example http://localhost:5601; "
            "`stair-es dashboards export` writes a file to import by hand.",
        )
    values: dict[str, Any] = {name: secret(PREFIX + end, environ) for name, end in SECRETS.items()}
    _check_login(values)
    values |= {name: options.get(name) or environ.get(PREFIX + end) or None for name, end in OPTIONS.items()}
    if values["client_key"] and not values["client_cert"]:
        raise UsageError("a client key without its certificate", "Give --dashboards-client-cert too.")
    if values["ca_file"] and values["ca_fingerprint"]:
        raise UsageError(
            "--dashboards-ca-file and --dashboards-ca-fingerprint exclude each other", "The file says more: keep it."
        )
    security = Security(**values)
    return Place(url=url, space=space, workspace=workspace, tenant=tenant, timeout_s=timeout_s, security=security)


def _check_login(values: Mapping[str, str | None]) -> None:
    """Before `Security` says the same with the variables of the cluster."""
    ways = [name for name in ("user", "api_key", "bearer_token") if values[name] is not None]
    if len(ways) > 1:
        named = " and ".join(PREFIX + SECRETS[name] for name in ways)
        raise UsageError(f"more than one way to log in: {named}", "Keep one of them.")
    if (values["user"] is None) != (values["password"] is None):
        missing = "PASSWORD" if values["password"] is None else "USER"
        raise UsageError(
            f"the login for the dashboards has no {missing.lower()}", f"Set {PREFIX}{missing} (or {PREFIX}{missing}_FILE)."
        )
    for name in ("user", "password"):
        check_utf8(f"{PREFIX}{SECRETS[name]}", values[name] or "")
    for name in ("api_key", "bearer_token"):
        value = values[name]
        if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
            raise UsageError(f"{PREFIX}{SECRETS[name]} holds spaces, line breaks or non-ASCII characters", "Give the bare value.")
