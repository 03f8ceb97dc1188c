"""HTTP client for OpenSearch Dashboards and Kibana."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from stair_es.cluster.client import tls
from stair_es.dashboards.connection import DASHBOARDS_ENV_PREFIX, DASHBOARDS_VARIABLES, ENV_DASHBOARDS_URL, DashboardsConnection
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable
from stair_es.retry_after import BUSY_STATUSES, parse_retry_after

_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
_MAX_PAUSE_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
_MAX_ERROR_LENGTH = 300
_LOGIN_HINTS = ("login", "signin", "sign-in", "auth", "oauth", "saml", "oidc", "sso")
_LOGIN_REMEDIES = {
    "none": f"Set {DASHBOARDS_ENV_PREFIX}USER and {DASHBOARDS_ENV_PREFIX}PASSWORD, or {DASHBOARDS_ENV_PREFIX}API_KEY "
    f"(each may be a file: {DASHBOARDS_ENV_PREFIX}PASSWORD_FILE, ...).",
    "basic": f"Check {DASHBOARDS_ENV_PREFIX}USER and {DASHBOARDS_ENV_PREFIX}PASSWORD; "
    f"where basic login is off, set {DASHBOARDS_ENV_PREFIX}API_KEY or {DASHBOARDS_ENV_PREFIX}TOKEN.",
    "api_key": f"Check {DASHBOARDS_ENV_PREFIX}API_KEY: it may be wrong, expired or invalidated.",
    "bearer": f"Check {DASHBOARDS_ENV_PREFIX}TOKEN: such tokens expire.",
}


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

    Args:
        place: Connection to use.
        sleep: Waits a number of seconds; for tests.
    """

    def __init__(self, place: DashboardsConnection, sleep: Callable[[float], None] = time.sleep) -> None:
        self.connection = place
        self._sleep = sleep
        self._pool = _build_pool(place)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def request(self, method: str, path: str, *, fields: Mapping[str, Any] | None = None) -> DashboardsResponse:
        """Send a request to `path`, below the space or workspace.

        Args:
            method: HTTP method.
            path: Path, beginning with a slash.
            fields: Fields of a multipart form.

        Returns:
            A response with a 2xx status and JSON, or with a 4xx status that the caller handles.

        Raises:
            ClusterUnreachable: If no server answers, or its certificate is not trusted.
            AuthenticationFailed: If the status is 401 or 403, or the response redirects to a login page.
            ClusterError: If the response redirects elsewhere or is not JSON, or the product is still busy after all retries.
        """
        for pause in (*_PAUSES_S, None):
            answer, failed = self._send_once(method, path, fields)
            if answer is not None and answer.status not in BUSY_STATUSES:
                self._check_response(answer)
                return answer
            if pause is None:
                break
            if failed is not None and (tls.is_permanent_tls_error(failed) or pause > _PAUSES_S[0]):
                raise self._build_unreachable_error(failed)  # a busy server gets more time than one that doesn't listen
            self._sleep(min(_parse_retry_after(answer) or pause, _MAX_PAUSE_S))
        if answer is None:
            raise self._build_unreachable_error(failed)
        raise ClusterError(
            f"{self.connection.safe_url} is busy or not ready (HTTP {answer.status}): {self._get_error_text(answer)}",
            "Wait until it works in a browser, and publish again.",
        )

    def _send_once(
        self, method: str, path: str, fields: Mapping[str, Any] | None
    ) -> tuple[DashboardsResponse | None, Exception | None]:
        url = f"{self.connection.safe_url}{self.connection.path_prefix}{path}"
        try:
            came = self._pool.request(method, url, fields=fields, headers=self._build_headers(), redirect=False, retries=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return None, error
        return _parse_response(came), None

    def _build_headers(self) -> dict[str, str]:
        """Return the request headers. Both products require a header against cross-site requests, each under its own name."""
        own = {"osd-xsrf": "true", "kbn-xsrf": "true", "accept": "application/json"}
        if self.connection.security.authorization is not None:
            own["authorization"] = self.connection.security.authorization
        if self.connection.tenant_header is not None:
            own["securitytenant"] = self.connection.tenant_header
        return own

    def _check_response(self, answer: DashboardsResponse) -> None:
        """Raise an error if the caller can't handle the response."""
        where = self.connection.safe_url
        if answer.status == 401:
            raise AuthenticationFailed(f"{where} refused the login (HTTP 401)", _LOGIN_REMEDIES[self.connection.security.method])
        if answer.status == 403:
            raise AuthenticationFailed(
                f"{where} denies access (HTTP 403): {self._get_error_text(answer)}",
                "The user needs write access to saved objects (Kibana: Saved Objects Management, in this space; "
                "OpenSearch Dashboards: a role with write access to the tenant).",
            )
        if 300 <= answer.status < 400:
            raise self._build_redirect_error(answer)
        if answer.body is None and answer.status < 400:
            kind = answer.headers.get("content-type", "no content type").partition(";")[0]
            raise ClusterError(
                f"{where} returns a page ({kind}) instead of JSON: {self._get_error_text(answer)}",
                f"Check --dashboards-url / {ENV_DASHBOARDS_URL}: include the base path. A proxy may require a separate login.",
            )

    def _build_redirect_error(self, answer: DashboardsResponse) -> ClusterError:
        """Build the error for a redirect; redirects are not followed, so that credentials reach no other host."""
        where, to = self.connection.safe_url, answer.headers.get("location", "")
        path = urlsplit(to).path
        shown = _describe_location(to)
        if any(hint in path.lower() or hint in (urlsplit(to).hostname or "") for hint in _LOGIN_HINTS):
            return AuthenticationFailed(
                f"{where} redirects to a login page{shown} (HTTP {answer.status})",
                _LOGIN_REMEDIES[self.connection.security.method],
            )
        return ClusterError(
            f"{where} redirects (HTTP {answer.status}){shown}",
            "Use the URL of the redirect, with the base path (like /_dashboards).",
        )

    def _build_unreachable_error(self, error: Exception | None) -> ClusterUnreachable:
        where = self.connection.safe_url
        failed = tls.find_ssl_error(error)
        if failed is not None:
            advice = tls.get_tls_remedy(failed, DASHBOARDS_VARIABLES)
            return ClusterUnreachable(f"no TLS connection to {where}: {tls.describe_ssl_error(failed)}", advice)
        said = self.connection.redact(str(getattr(error, "reason", None) or error))
        return ClusterUnreachable(
            f"neither OpenSearch Dashboards nor Kibana answers at {where}: {said}",
            f"Check --dashboards-url / {ENV_DASHBOARDS_URL}; it is not the cluster's address (5601 is the usual port).",
        )

    def _get_error_text(self, answer: DashboardsResponse) -> str:
        return self.connection.redact(get_error_text(answer))


def get_error_text(answer: DashboardsResponse) -> str:
    """Return the error message of a response, shortened. It may repeat the request, so redact it."""
    body = answer.body
    if isinstance(body, dict):
        told = body.get("message") or body.get("error")
        if told:
            return str(told)[:_MAX_ERROR_LENGTH]
    return " ".join(answer.text.split())[:_MAX_ERROR_LENGTH] or "no message"


def _parse_response(came: Any) -> DashboardsResponse:  # noqa: ANN401  urllib3's
    text = bytes(came.data).decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    headers = {name.lower(): value for name, value in came.headers.items()}
    return DashboardsResponse(status=came.status, headers=headers, body=body, text=text[:2000])


def _parse_retry_after(answer: DashboardsResponse | None) -> float | None:
    return parse_retry_after(answer.headers.get("retry-after", "")) if answer is not None else None


def _describe_location(location: str) -> str:
    """Describe the target of a redirect without query and credentials."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    base = f"{parts.scheme}://{host}{f':{port}' if port else ''}" if host else ""
    return f", to {base}{parts.path}" if base or parts.path else ""


def _build_pool(place: DashboardsConnection) -> urllib3.PoolManager:
    parts = urlsplit(place.safe_url)
    options: dict[str, Any] = {}
    if parts.scheme == "https":
        security = place.security
        options["ssl_context"] = context = tls.create_ssl_context(security)
        if security.ca_fingerprint is not None:
            try:
                own = tls.trust_pinned_certificate(
                    context, security.ca_fingerprint, parts.hostname or "", parts.port or 443, _CONNECT_TIMEOUT_S
                )
            except OSError as error:
                failed = tls.find_ssl_error(error)
                said = tls.describe_ssl_error(failed) if failed is not None else str(error)
                raise ClusterUnreachable(f"no TLS connection to {place.safe_url}: {said}") from None
            if own:
                options["assert_hostname"] = False  # the certificate itself is pinned, so its host name doesn't matter
    timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=place.timeout_s)
    return urllib3.PoolManager(timeout=timeout, retries=False, **options)
