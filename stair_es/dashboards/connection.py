"""Address and login of OpenSearch Dashboards or Kibana, and the space, workspace or tenant. Pure values; no I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from stair_es.cluster.client.auth import SecuritySettings, check_utf8, read_secret
from stair_es.dashboards.index_info import Product
from stair_es.errors import UsageError
from stair_es.urls import parse_node_url

DASHBOARDS_ENV_PREFIX = "STAIR_ES_DASHBOARDS_"
ENV_DASHBOARDS_URL = f"{DASHBOARDS_ENV_PREFIX}URL"
LOGIN_VARIABLES = {"user": "USER", "password": "PASSWORD", "api_key": "API_KEY", "bearer_token": "TOKEN"}
"""Field -> environment variable, without the prefix. Each value can also be read from the file named by `<VARIABLE>_FILE`."""
TLS_VARIABLES = {
    "ca_file": "CA_FILE",
    "ca_fingerprint": "CA_FINGERPRINT",
    "client_cert": "CLIENT_CERT",
    "client_key": "CLIENT_KEY",
}
"""Field -> environment variable, without the prefix, for values that are not secret."""

_TENANT_ALIASES = {"private": "__user__"}
_NO_SECURITY = SecuritySettings()
_URL_REMEDY = "Write it like http://localhost:5601 or https://host/_dashboards, without what follows in the browser (/app/...)."


@dataclass(frozen=True, kw_only=True)
class DashboardsConnection:
    """Where and how to reach a product. Its `repr` holds no secret.

    Raises:
        UsageError: If the URL is invalid or the values exclude each other, on construction.
    """

    url: str = field(repr=False)
    """`http[s]://[user:password@]host[:port][/base/path]`."""
    space: str | None = None
    """Id of a Kibana space."""
    workspace: str | None = None
    """Id of an OpenSearch Dashboards workspace."""
    tenant: str | None = None
    """OpenSearch Dashboards tenant (security plugin): `global`, `private` or a name."""
    timeout_s: float = 60.0
    security: SecuritySettings = _NO_SECURITY

    def __post_init__(self) -> None:
        parts = parse_node_url(self.url.strip(), "the address of a product", _URL_REMEDY)
        if parts.username is not None:
            if self.security.method != "none":
                raise UsageError(
                    f"a login in the URL of the dashboards, and another login method ({self.security.method})",
                    "Keep one of the two.",
                )
            login = replace(self.security, user=unquote(parts.username), password=unquote(parts.password or ""))
            object.__setattr__(self, "security", login)
        if self.security.requires_tls and parts.scheme == "http":
            raise UsageError(f"certificates don't apply to {self.safe_url}", "Use https:// in the URL, or omit them.")
        if self.space is not None and (self.workspace is not None or self.tenant is not None):
            raise UsageError(
                "--space is for Kibana, --workspace and --tenant are for OpenSearch Dashboards",
                "Use options of one product only.",
            )

    @property
    def safe_url(self) -> str:
        """The URL without login and trailing slash."""
        parts = urlsplit(self.url)
        netloc = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))

    @property
    def path_prefix(self) -> str:
        """The path before `/api` and `/app` for the space or the workspace."""
        if self.space is not None and self.space != "default":
            return f"/s/{quote(self.space, safe='')}"
        return f"/w/{quote(self.workspace, safe='')}" if self.workspace is not None else ""

    @property
    def tenant_header(self) -> str | None:
        """The value of the security plugin's tenant header."""
        return None if self.tenant is None else _TENANT_ALIASES.get(self.tenant, self.tenant)

    @property
    def product(self) -> Product | None:
        """The product that space, workspace or tenant imply, if any."""
        if self.space is not None:
            return "kibana"
        return "opensearch-dashboards" if self.workspace is not None or self.tenant is not None else None

    def build_link(self, dashboard: str) -> str:
        """Return the URL of a dashboard for a browser."""
        tenant = f"?security_tenant={quote(self.tenant, safe='')}" if self.tenant is not None else ""
        return f"{self.safe_url}{self.path_prefix}/app/dashboards{tenant}#/view/{quote(dashboard, safe='')}"

    def redact(self, text: str) -> str:
        """Return `text` without the secrets of this connection."""
        return self.security.redact(text)


def build_dashboards_connection(
    url: str | None,
    options: Mapping[str, str | None],
    environ: Mapping[str, str] = os.environ,
    *,
    space: str | None = None,
    workspace: str | None = None,
    tenant: str | None = None,
    timeout_s: float = 60.0,
) -> DashboardsConnection:
    """Build the connection to `url`, or to `STAIR_ES_DASHBOARDS_URL` (or `..._URL_FILE`), with logins from the environment.

    Args:
        url: As for `DashboardsConnection`.
        options: Certificates, by the names in `TLS_VARIABLES`; they override the environment.
        environ: Environment variables.
        space: As for `DashboardsConnection`.
        workspace: As for `DashboardsConnection`.
        tenant: As for `DashboardsConnection`.
        timeout_s: As for `DashboardsConnection`.

    Returns:
        The connection.

    Raises:
        UsageError: If there is no URL, or values exclude each other.
    """
    url = url or read_secret(ENV_DASHBOARDS_URL, environ)
    if not url:
        raise UsageError(
            "no URL of OpenSearch Dashboards or Kibana given",
            f"Give --dashboards-url or set {ENV_DASHBOARDS_URL}, for example http://localhost:5601; "
            "`stair-es dashboards export` writes a file to import by hand.",
        )
    values: dict[str, Any] = {name: read_secret(DASHBOARDS_ENV_PREFIX + end, environ) for name, end in LOGIN_VARIABLES.items()}
    _check_credentials(values)
    values |= {name: options.get(name) or environ.get(DASHBOARDS_ENV_PREFIX + end) or None for name, end in TLS_VARIABLES.items()}
    if values["client_key"] and not values["client_cert"]:
        raise UsageError("a client key without its certificate", "Give --dashboards-client-cert too.")
    if values["ca_file"] and values["ca_fingerprint"]:
        raise UsageError(
            "--dashboards-ca-file and --dashboards-ca-fingerprint exclude each other", "Keep the file, which is more specific."
        )
    security = SecuritySettings(**values)
    return DashboardsConnection(url=url, space=space, workspace=workspace, tenant=tenant, timeout_s=timeout_s, security=security)


def _check_credentials(values: Mapping[str, str | None]) -> None:
    """Raise UsageError before `SecuritySettings` does, which would name the variables of the cluster."""
    ways = [name for name in ("user", "api_key", "bearer_token") if values[name] is not None]
    if len(ways) > 1:
        named = " and ".join(DASHBOARDS_ENV_PREFIX + LOGIN_VARIABLES[name] for name in ways)
        raise UsageError(f"more than one login method: {named}", "Keep one of them.")
    if (values["user"] is None) != (values["password"] is None):
        missing = "PASSWORD" if values["password"] is None else "USER"
        raise UsageError(
            f"the login for the dashboards has no {missing.lower()}",
            f"Set {DASHBOARDS_ENV_PREFIX}{missing} (or {DASHBOARDS_ENV_PREFIX}{missing}_FILE).",
        )
    for name in ("user", "password"):
        check_utf8(f"{DASHBOARDS_ENV_PREFIX}{LOGIN_VARIABLES[name]}", values[name] or "")
    for name in ("api_key", "bearer_token"):
        value = values[name]
        if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
            raise UsageError(
                f"{DASHBOARDS_ENV_PREFIX}{LOGIN_VARIABLES[name]} holds spaces, line breaks or non-ASCII characters",
                "Give the bare value.",
            )
