"""Who may ask, and what the browser may do with the answers: an ASGI layer around everything else."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from stair_es.web.answers import encoded
from stair_es.web.door import door

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
    "cache-control": "no-store",
}
"""Of every answer; a route may say something else about caching."""
_FORM = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": _CSP.replace("form-action 'none'", "form-action 'self'"),
}
"""Of the page that asks for the token: the only one with a form that the browser itself sends."""
ALIVE = "/healthz"
"""The only path that anybody may ask for, by any name: what probes a pod knows no token, and calls it by its address. It says
nothing but that the server answers."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_LAST_PORT = 65535
_COOKIE_S = 30 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What is asked of a request."""

    hosts: frozenset[str] = _LOOPBACK
    """Names in `Host` under which the page may be called, without a port, in lower case."""
    origins: frozenset[str] = frozenset()
    """Names of sites that count as this one, whatever `Host` a proxy makes of them."""
    addresses: bool = False
    """Whether any IP address is such a name, too: a page elsewhere can't let its own name stand for one."""
    token: str = ""
    """What a visitor has to know; empty: nothing."""

    def knows(self, host: str) -> bool:
        """Whether a `Host` header names this server."""
        name = host_of(host)
        if name is None:
            return False
        return name in self.hosts or (self.addresses and _is_address(name))

    def same_site(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from our own page, or from no page at all."""
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
        own = headers.get("host", "").lower()
        return parts.netloc.lower() in (own, _bare(own, parts.scheme)) or host_of(parts.netloc) in self.origins

    @property
    def cookie(self) -> str:
        """What the cookie holds: it proves that one knew the token, and doesn't tell it."""
        return hmac.new(self.token.encode(), b"stair-es serve: cookie", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Whether it is; the time that it takes says nothing of how much of it is right."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def is_cookie(self, given: str) -> bool:
        """The same for the cookie."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.cookie.encode())


class Guarded:
    """The application behind the guard."""

    def __init__(self, app: ASGIApp, guard: Guard, port: int) -> None:
        """A guarded application.

        Args:
            app: What answers.
            guard: What is asked of a request.
            port: Goes into the cookie's name: browsers send cookies to all ports of a host.
        """
        self._app, self._guard, self._name = app, guard, f"stair-es-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message.get("headers", ())}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        answer = None if scope["path"] == ALIVE else self._instead(scope)
        if answer is None:
            await self._app(scope, receive, with_headers)
            return
        status, body, headers = answer
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        raw.append((b"content-length", str(len(body)).encode()))
        await with_headers({"type": "http.response.start", "status": status, "headers": raw})
        await with_headers({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _instead(self, scope: Scope) -> tuple[int, bytes, dict[str, str]] | None:
        """The answer in place of the application's; None: let it through."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if len(hosts) != 1 or not self._guard.knows(hosts[0]):
            return _refusal(403, "this server isn't called so", "Call it by its own name, or start it with --allow-host NAME.")
        if not self._guard.same_site(headers):
            return _refusal(403, "the request comes from another site", "Open the page itself.")
        return self._unknown(scope, headers) if self._guard.token else None

    def _unknown(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]] | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and scope["method"] in ("GET", "HEAD") and self._guard.is_token(given[0]):
            return self._welcome(scope, [pair for pair in query if pair[0] != "token"])
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._guard.is_token(bearer.strip()):
            return None
        if any(self._guard.is_cookie(value) for value in _cookies(headers.get("cookie", ""), self._name)):
            return None
        if scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):  # somebody, not a program
            return 401, door(_path(scope), query), {**_FORM, "www-authenticate": "Bearer"}
        told = "Open it as /?token=... once, or send it as: Authorization: Bearer ..."
        status, body, more = _refusal(401, "this page wants a token", told)
        return status, body, {**more, "www-authenticate": "Bearer"}

    def _welcome(self, scope: Scope, query: list[tuple[str, str]]) -> tuple[int, bytes, dict[str, str]]:
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{self._name}={self._guard.cookie}; Path=/; Max-Age={_COOKIE_S}; HttpOnly; SameSite=Strict{secure}"
        return 303, b"", {"location": _path(scope) + (f"?{urlencode(query)}" if query else ""), "set-cookie": cookie}


def host_of(header: str) -> str | None:
    """The name in a `Host` header, in lower case, without port and brackets; None where it isn't one."""
    found = _HOST.fullmatch(header.strip(" \t"))
    if found is None or int(found["port"] or 0) > _LAST_PORT:
        return None
    return (found["address"] or found["name"]).lower().rstrip(".") or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _path(scope: Scope) -> str:
    return "/" + quote(scope["path"], errors="replace").lstrip("/")  # two slashes would be another host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bare(host: str, scheme: str) -> str:
    """Without the port that goes without saying."""
    return host.removesuffix(":443" if scheme == "https" else ":80")


def _cookies(header: str, name: str) -> list[str]:
    parts = (part.strip().partition("=") for part in header.split(";"))
    return [value for key, _, value in parts if key == name]


def _refusal(status: int, error: str, remedy: str) -> tuple[int, bytes, dict[str, str]]:
    return status, encoded({"error": error, "remedy": remedy}), {"content-type": "application/json"}
