"""Access checks (host, origin, token), security headers and the login page, as ASGI middleware."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.responses import HTMLResponse, Response

from stair_es.web.errors import ErrorResponse
from stair_es.web.hooks import HEALTH_PATH

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NO_FRAME = "frame-ancestors 'none'"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'self'; "
    f"form-action 'none'; {_NO_FRAME}; require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
    "cache-control": "no-store",
}
"""Headers of every response, unless pages of other sites may frame it; a route can override `cache-control`."""
_LOGIN_PAGE_CSP = _CSP.replace("form-action 'none'", "form-action 'self'")
"""For the only page with a form that the browser submits."""
_BEARER = {"www-authenticate": "Bearer"}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_MAX_PORT = 65535
_COOKIE_MAX_AGE_S = 30 * 24 * 3600
_LOGIN_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Access token required - stair-es</title>
</head>
<body>
<main>
<h1>Access token required</h1>
<p role="status">{message}</p>
<form method="get">
<p><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
{hidden_inputs}<button type="submit">Open</button></p>
</form>
<p>Already logged in and followed a link from another site? <a href="{retry_url}">Continue</a>.</p>
</main>
</body>
</html>
"""


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """The conditions for a request to be allowed."""

    hosts: frozenset[str] = _LOOPBACK
    """Allowed names in `Host`, in lower case and without port."""
    origins: frozenset[str] = frozenset()
    """Further hosts whose origin counts as same-site, regardless of the `Host` that a proxy sends."""
    allow_addresses: bool = False
    """Whether any IP address is allowed in `Host`: DNS rebinding requires a name."""
    frame_origins: tuple[str, ...] = ()
    """Origins whose pages may show this server's in a frame, as `parse_origin` returns them."""
    token: str = ""
    """The access token; empty for none."""
    bearer_only: bool = False
    """Whether the token comes in `Authorization` only, without login page and cookie. Browsers never add that by themselves, so
    that with a token any `Host` is allowed.
    """

    def is_allowed_host(self, host: str) -> bool:
        """Check whether a `Host` header names this server."""
        name = parse_host(host)
        if name is None:
            return False
        if self.bearer_only and self.token:
            return True
        return name in self.hosts or (self.allow_addresses and _is_address(name))

    def is_same_site(self, headers: Mapping[str, str]) -> bool:
        """Check whether a request comes from this site's own page, or from no page."""
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site not in (None, "same-origin", "none") and mode != "navigate":
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        host = headers.get("host", "").lower()
        return parts.netloc.lower() in (host, _strip_default_port(host, parts.scheme)) or parse_host(parts.netloc) in self.origins

    def build_headers(self) -> dict[str, str]:
        """Return the security headers of a response. `X-Frame-Options` can't name origins."""
        headers = dict(SECURITY_HEADERS)
        if self.frame_origins:
            del headers["x-frame-options"]
            headers["content-security-policy"] = _CSP.replace(_NO_FRAME, f"frame-ancestors {' '.join(self.frame_origins)}")
        return headers

    @property
    def cookie_value(self) -> str:
        """The value of the cookie: proves knowledge of the token without containing it."""
        return hmac.new(self.token.encode(), b"stair-es serve: cookie", hashlib.sha256).hexdigest()

    def is_token(self, candidate: str) -> bool:
        """Check whether a string is the token, in constant time."""
        return hmac.compare_digest(candidate.encode("utf-8", "replace"), self.token.encode())

    def is_cookie(self, candidate: str) -> bool:
        """Check whether a string is the value of the cookie, in constant time."""
        return hmac.compare_digest(candidate.encode("utf-8", "replace"), self.cookie_value.encode())


class AccessMiddleware:
    """ASGI middleware that checks access and adds security headers."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy, port: int, root_path: str = "") -> None:
        """Wrap an application.

        `port` is part of the cookie's name, since browsers send cookies to all ports of a host. `root_path` is the path of the
        page's root in the browser, without a slash at its end; requests come without it.
        """
        self._app, self._policy, self._cookie_name = app, policy, f"stair-es-{port}"
        self._root_path = root_path
        self._headers = policy.build_headers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message.get("headers", ())}
                added = [(name.encode(), value.encode()) for name, value in self._headers.items() if name.encode() not in present]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        rejection = None if scope["path"] == HEALTH_PATH else self._check_access(scope)
        await (rejection or self._app)(scope, receive, with_headers)

    def _check_access(self, scope: Scope) -> Response | None:
        """Return the response for a request that is not allowed, or None."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if len(hosts) != 1 or not self._policy.is_allowed_host(hosts[0]):
            remedy = "Use the server's own name, or start it with --allow-host NAME."
            return ErrorResponse(403, "host not allowed", remedy, code="host-not-allowed").build_response()
        if not self._policy.is_same_site(headers):
            message = "cross-site request not allowed"
            return ErrorResponse(403, message, "Open the page itself.", code="cross-site-request").build_response()
        return self._authenticate(scope, headers) if self._policy.token else None

    def _authenticate(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._policy.is_token(bearer.strip()):
            return None
        if self._policy.bearer_only:
            return _build_unauthorized("Send Authorization: Bearer ...")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        if tokens and scope["method"] in ("GET", "HEAD") and self._policy.is_token(tokens[0]):
            return self._redirect_with_cookie(scope, [pair for pair in query if pair[0] != "token"])
        if any(self._policy.is_cookie(value) for value in _parse_cookies(headers.get("cookie", ""), self._cookie_name)):
            return None
        if scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):  # a browser
            page = render_login_page(self._get_path(scope), query)
            return HTMLResponse(page, 401, headers={"content-security-policy": _LOGIN_PAGE_CSP, **_BEARER})
        return _build_unauthorized(f"Open {self._root_path}/?token=... once, or send Authorization: Bearer ...")

    def _redirect_with_cookie(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        attributes = f"Path={self._root_path or '/'}; Max-Age={_COOKIE_MAX_AGE_S}; HttpOnly; SameSite=Strict{secure}"
        cookie = f"{self._cookie_name}={self._policy.cookie_value}; {attributes}"
        location = self._get_path(scope) + (f"?{urlencode(query)}" if query else "")
        return Response(status_code=303, headers={"location": location, "set-cookie": cookie})

    def _get_path(self, scope: Scope) -> str:
        return f"{self._root_path}/" + quote(scope["path"], errors="replace").lstrip("/")  # two leading slashes: another host


def render_login_page(path: str, query: Sequence[tuple[str, str]]) -> bytes:
    """Render the login page, which asks for the token and continues to the requested URL.

    It has no script and style: all other files require the token as well. A `token` in the query was wrong.
    """
    params = [pair for pair in query if pair[0] != "token"]
    message = "Wrong token." if len(params) < len(query) else "Ask the administrator for the token."
    hidden = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">\n' for name, value in params)
    retry_url = escape(path + (f"?{urlencode(params)}" if params else ""))
    return _LOGIN_PAGE.format(message=message, hidden_inputs=hidden, retry_url=retry_url).encode()


def parse_host(header: str) -> str | None:
    """Parse a `Host` header to the name in lower case, without port and brackets; None if it is invalid."""
    match = _HOST.fullmatch(header.strip(" \t"))
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return None
    return (match["address"] or match["name"]).lower().rstrip(".") or None


def parse_origin(text: str) -> str | None:
    """Parse the origin of a site, such as `https://example.org`, to the form of a content security policy; None if it is none."""
    try:
        parts = urlsplit(text.strip().lower())
    except ValueError:
        return None
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not is_bare or parse_host(parts.netloc) is None:
        return None
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Check whether a listening address is only reachable from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _strip_default_port(host: str, scheme: str) -> str:
    return host.removesuffix(":443" if scheme == "https" else ":80")


def _parse_cookies(header: str, name: str) -> list[str]:
    parts = (part.strip().partition("=") for part in header.split(";"))
    return [value for key, _, value in parts if key == name]


def _build_unauthorized(remedy: str) -> Response:
    return ErrorResponse(401, "access token required", remedy, _BEARER, code="access-token-required").build_response()
