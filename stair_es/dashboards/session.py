"""HTTP client for OpenSearch Dashboards and Kibana."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from stair_es.cluster.client import tls
from stair_es.dashboards.connection import DASHBOARDS_VARIABLES, ENV_DASHBOARDS_URL, DashboardsConnection
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable
from stair_es.retry import BUSY_STATUSES, RetryPolicy, parse_retry_after
from stair_es.system.user_files import parse_json

_RETRY = RetryPolicy(attempts=5, backoff_s=2.0, max_retry_after_s=30.0)
_CONNECT_TIMEOUT_S = 10.0
_MAX_ERROR_LENGTH = 300
_LOGIN_HINTS = ("login", "signin", "sign-in", "auth", "oauth", "saml", "oidc", "sso")


@dataclass(frozen=True, kw_only=True)
class DashboardsResponse:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    """Header names are in lower case."""
    body: Any
    """Parsed JSON, or None if the body is not JSON."""
    text: str
    """The body as text, shortened."""


class DashboardsSession:
    """An HTTP session with one product.

    Requests are retried while the product is busy or starting, so all of them must be safe to repeat (imports use `overwrite`).
    """

    def __init__(self, connection: DashboardsConnection, sleep: Callable[[float], None] = time.sleep) -> None:
        self.connection = connection
        self._sleep = sleep
        self._pool = _build_pool(connection)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def request(
        self, method: str, path: str, *, fields: Mapping[str, Any] | None = None, in_space: bool = True
    ) -> DashboardsResponse:
        """Send a request; the caller handles 4xx statuses other than 401 and 403.

        `path` is below the space or workspace, or with `in_space=False` below the base path.

        Raises:
            ClusterUnreachable: If no server answers, or its certificate is not trusted.
            AuthenticationFailed: If the status is 401 or 403, or the response redirects to a login page.
            ClusterError: If the response redirects elsewhere or is not JSON, or the product is still busy after all retries.
        """
        prefix = self.connection.path_prefix if in_space else ""
        for attempt in range(1, _RETRY.attempts + 1):
            response, error = self._send_once(method, prefix + path, fields)
            if response is not None and response.status not in BUSY_STATUSES:
                self._check_response(response)
                return response
            if error is not None and (tls.is_permanent_tls_error(error) or attempt > 1):
                raise self._build_unreachable_error(error)  # a busy server gets more time than one that doesn't listen
            if attempt < _RETRY.attempts:
                retry_after = response.headers.get("retry-after", "") if response is not None else ""
                self._sleep(_RETRY.compute_delay_s(attempt, parse_retry_after(retry_after)))
        if response is None:
            raise self._build_unreachable_error(error)
        raise ClusterError(
            f"{self.connection.safe_url} is busy or not ready (HTTP {response.status}): {self.get_error_text(response)}",
            "Wait until it works in a browser, and publish again.",
            code="dashboards-not-ready",
        )

    def _send_once(
        self, method: str, path: str, fields: Mapping[str, Any] | None
    ) -> tuple[DashboardsResponse | None, Exception | None]:
        url = f"{self.connection.safe_url}{path}"
        try:
            raw_response = self._pool.request(
                method, url, fields=fields, headers=self._build_headers(), redirect=False, retries=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return None, error
        return _parse_response(raw_response), None

    def _build_headers(self) -> dict[str, str]:
        """Return the request headers. Both products require a header against cross-site requests, each under its own name."""
        headers = {"osd-xsrf": "true", "kbn-xsrf": "true", "accept": "application/json"}
        if self.connection.security.authorization is not None:
            headers["authorization"] = self.connection.security.authorization
        if self.connection.tenant_header is not None:
            headers["securitytenant"] = self.connection.tenant_header
        return headers

    def _check_response(self, response: DashboardsResponse) -> None:
        url = self.connection.safe_url
        if response.status == 401:
            raise AuthenticationFailed(
                f"{url} refused the login (HTTP 401)",
                DASHBOARDS_VARIABLES.get_login_remedy(self.connection.security.method),
                code="login-refused",
            )
        if response.status == 403:
            raise AuthenticationFailed(
                f"{url} denies access (HTTP 403): {self.get_error_text(response)}",
                "The user needs write access to saved objects (Kibana: Saved Objects Management, in this space; "
                "OpenSearch Dashboards: a role with write access to the tenant).",
                code="dashboards-forbidden",
            )
        if 300 <= response.status < 400:
            raise self._build_redirect_error(response)
        if response.body is None and response.status < 400:
            content_type = response.headers.get("content-type", "no content type").partition(";")[0]
            raise ClusterError(
                f"{url} returns a page ({content_type}) instead of JSON: {self.get_error_text(response)}",
                f"Check --dashboards-url / {ENV_DASHBOARDS_URL}: include the base path. A proxy may require a separate login.",
                code="response-not-json",
            )

    def _build_redirect_error(self, response: DashboardsResponse) -> ClusterError:
        """Build the error for a redirect; redirects are not followed, so that credentials reach no other host."""
        url, location = self.connection.safe_url, response.headers.get("location", "")
        path = urlsplit(location).path
        target = _describe_location(location)
        if any(hint in path.lower() or hint in (urlsplit(location).hostname or "") for hint in _LOGIN_HINTS):
            return AuthenticationFailed(
                f"{url} redirects to a login page{target} (HTTP {response.status})",
                DASHBOARDS_VARIABLES.get_login_remedy(self.connection.security.method),
                code="login-page",
            )
        return ClusterError(
            f"{url} redirects (HTTP {response.status}){target}",
            "Use the URL of the redirect, with the base path (like /_dashboards).",
            code="dashboards-redirect",
        )

    def _build_unreachable_error(self, error: Exception | None) -> ClusterUnreachable:
        url = self.connection.safe_url
        ssl_error = tls.find_ssl_error(error)
        if ssl_error is not None:
            remedy = tls.get_tls_remedy(ssl_error, DASHBOARDS_VARIABLES)
            return ClusterUnreachable(
                f"no TLS connection to {url}: {tls.describe_ssl_error(ssl_error)}", remedy, code="no-tls-connection"
            )
        reason = self.connection.redact(str(getattr(error, "reason", None) or error))
        return ClusterUnreachable(
            f"neither OpenSearch Dashboards nor Kibana answers at {url}: {reason}",
            f"Check --dashboards-url / {ENV_DASHBOARDS_URL}; it is not the cluster's address (5601 is the usual port).",
            code="dashboards-unreachable",
        )

    def get_error_text(self, response: DashboardsResponse) -> str:
        """Return the error message of a response, or the title of a page, without secrets: it may repeat the request."""
        body = response.body
        message = (body.get("message") or body.get("error")) if isinstance(body, dict) else None
        if not message:
            is_page = "html" in response.headers.get("content-type", "")
            message = " ".join((_find_title(response.text) if is_page else response.text).split()) or "no message"
        text = str(message)
        return self.connection.redact(text[:_MAX_ERROR_LENGTH])


def _find_title(page: str) -> str:
    match = re.search(r"<title\b[^>]*>([^<]*)", page, re.IGNORECASE)
    return html.unescape(match[1]) if match else ""


def _parse_response(raw_response: Any) -> DashboardsResponse:  # noqa: ANN401  urllib3's
    text = bytes(raw_response.data).decode("utf-8", "replace")
    try:
        body = parse_json(text)
    except ValueError:
        body = None
    headers = {name.lower(): value for name, value in raw_response.headers.items()}
    return DashboardsResponse(status=raw_response.status, headers=headers, body=body, text=text[:2000])


def _describe_location(location: str) -> str:
    """Describe the target of a redirect without query and credentials."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    base = f"{parts.scheme}://{host}{f':{port}' if port else ''}" if host else ""
    return f", to {base}{parts.path}" if base or parts.path else ""


def _build_pool(connection: DashboardsConnection) -> urllib3.PoolManager:
    parts = urlsplit(connection.safe_url)
    options: dict[str, Any] = {}
    if parts.scheme == "https":
        security = connection.security
        options["ssl_context"] = context = tls.create_ssl_context(security)
        if security.ca_fingerprint is not None:
            try:
                is_pinned = tls.trust_pinned_certificate(
                    context, security.ca_fingerprint, parts.hostname or "", parts.port or 443, _CONNECT_TIMEOUT_S
                )
            except OSError as error:
                ssl_error = tls.find_ssl_error(error)
                reason = tls.describe_ssl_error(ssl_error) if ssl_error is not None else str(error)
                raise ClusterUnreachable(
                    f"no TLS connection to {connection.safe_url}: {reason}", code="no-tls-connection"
                ) from None
            if is_pinned:
                options["assert_hostname"] = False  # the certificate itself is pinned, so its host name doesn't matter
    timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=connection.timeout_s)
    return urllib3.PoolManager(timeout=timeout, retries=False, **options)
