"""Address and login of OpenSearch Dashboards or Kibana, and the space, workspace or tenant. Pure values; no I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

from stair_es.cluster.client.auth import (
    SecuritySettings,
    SecurityVariables,
    read_secret,
    read_security_settings,
    resolve_url_login,
)
from stair_es.dashboards.index_info import Product
from stair_es.errors import OptionConflict, UsageError

DASHBOARDS_ENV_PREFIX = "STAIR_ES_DASHBOARDS_"
ENV_DASHBOARDS_URL = f"{DASHBOARDS_ENV_PREFIX}URL"
DASHBOARDS_VARIABLES = SecurityVariables(
    secrets={
        "user": f"{DASHBOARDS_ENV_PREFIX}USER",
        "password": f"{DASHBOARDS_ENV_PREFIX}PASSWORD",
        "api_key": f"{DASHBOARDS_ENV_PREFIX}API_KEY",
        "bearer_token": f"{DASHBOARDS_ENV_PREFIX}TOKEN",
    },
    options={
        "ca_file": f"{DASHBOARDS_ENV_PREFIX}CA_FILE",
        "ca_fingerprint": f"{DASHBOARDS_ENV_PREFIX}CA_FINGERPRINT",
        "client_cert": f"{DASHBOARDS_ENV_PREFIX}CLIENT_CERT",
        "client_key": f"{DASHBOARDS_ENV_PREFIX}CLIENT_KEY",
    },
    option_prefix="--dashboards-",
    url="the URL of the dashboards",
)

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
        security = resolve_url_login(
            [self.url.strip()], self.security, "the address of a product", _URL_REMEDY, DASHBOARDS_VARIABLES
        )
        object.__setattr__(self, "security", security)
        if self.space is not None and (self.workspace is not None or self.tenant is not None):
            raise OptionConflict(
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


def parse_page_url(url: str | None) -> str | None:
    """Return the URL of the page of `stair-es serve` without a trailing slash.

    Raises:
        UsageError: If it isn't an http(s) URL, or has a login, a query or a fragment.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url.strip())
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        is_valid = False
    if not is_valid or "@" in parts.netloc or any(char in url for char in "{}"):
        raise UsageError(
            "--page-url is not the URL of a page",
            "Write it like http://localhost:8000 or https://photos.example.org/images.",
            code="invalid-page-url",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


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

    `options` are certificates, by the field names of `SecuritySettings`; they override the environment.
    """
    url = url or read_secret(ENV_DASHBOARDS_URL, environ)
    if not url:
        raise UsageError(
            "no URL of OpenSearch Dashboards or Kibana given",
            f"Give --dashboards-url or set {ENV_DASHBOARDS_URL}, for example http://localhost:5601; "
            "`stair-es dashboards export` writes a file to import by hand.",
            code="no-dashboards-url",
        )
    security = read_security_settings(options, environ, DASHBOARDS_VARIABLES)
    return DashboardsConnection(url=url, space=space, workspace=workspace, tenant=tenant, timeout_s=timeout_s, security=security)
