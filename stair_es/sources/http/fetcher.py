"""Fetch images from servers that may be slow, broken or malicious: redirects, retries, limits of each host."""

from __future__ import annotations

import http
import math
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore2
import httpx2

from stair_es._version import __version__
from stair_es.errors import ReadError, RetryLater
from stair_es.retry import BUSY_STATUSES, RetryPolicy, parse_retry_after
from stair_es.sources.base import ReadResult, UrlPolicy
from stair_es.sources.http.response import (
    TruncatedBodyError,
    build_conditional_headers,
    build_response_version,
    get_last_modified,
    read_body,
)
from stair_es.sources.http.ssrf import GuardedBackend, Resolver, resolve_host
from stair_es.sources.http.urls import redact_web_url


class RetryableError(Exception):
    """An attempt failed for a reason that may be temporary."""

    def __init__(self, reason: str, wait_s: float = 0.0, host: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        """Seconds to wait, as requested by the server."""
        self.host = host


@contextmanager
def translate_fetch_errors(where: str) -> Iterator[None]:
    """Translate errors of httpcore, and prefix all errors with `where`.

    Raises:
        ReadError: If the error is permanent.
        RetryableError: If the error may be temporary.
    """
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{where}: {error.message}", error.remedy, code=error.code) from error
    except RetryableError as error:
        raise RetryableError(f"{where}: {error.reason}", error.wait_s, error.host) from error
    except httpcore2.TimeoutException as error:
        raise RetryableError(f"{where}: no response in time") from error
    except httpcore2.ConnectError as error:
        cause = error.__context__  # the pool of httpcore clears `__cause__`
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate isn't trusted: {cause.verify_message}"
            raise ReadError(
                f"{where}: {why}", "Add its CA to the trusted CAs of this machine.", code="certificate-not-trusted"
            ) from error
        raise RetryableError(f"{where}: can't connect: {getattr(cause, 'strerror', None) or error}") from error
    except (httpcore2.NetworkError, TruncatedBodyError) as error:
        raise RetryableError(f"{where}: connection lost") from error
    except httpcore2.RemoteProtocolError as error:
        raise RetryableError(f"{where}: invalid response: {str(error)[:120]}") from error
    except httpcore2.LocalProtocolError as error:
        raise ReadError(f"{where}: invalid request: {str(error)[:120]}", code="invalid-request") from error


def describe_status(status: int) -> str:
    """Return a status with its standard reason phrase: the server's own phrase is untrusted."""
    with suppress(ValueError):
        return f"{status} {http.HTTPStatus(status).phrase}"
    return f"status {status}"


class Deadline:
    """The deadline of one fetch, over all redirects and attempts."""

    def __init__(self, timeout_s: float) -> None:
        self.end = time.monotonic() + timeout_s
        """On `time.monotonic`."""

    @property
    def remaining_s(self) -> float:
        """Return the remaining seconds, never negative."""
        return max(0.0, self.end - time.monotonic())

    def extend(self, seconds: float) -> None:
        """Extend the deadline by time spent in a queue of our own."""
        self.end += seconds


MAX_PAUSE_S = 600.0
"""A host that asks for a longer pause is tried again after this."""
_MAX_HOSTS = 1024


class _HostState:
    def __init__(self, per_host: int) -> None:
        self.slots = threading.Semaphore(per_host)
        self.users = 0
        self.not_before = 0.0


class HostLimiter:
    """Concurrency and pauses of all hosts that this process fetches from. Thread-safe; drops idle hosts."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._hosts: dict[str, _HostState] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @contextmanager
    def acquire_slot(self, name: str, deadline: Deadline, *, heed_pause: bool = True) -> Iterator[None]:
        """Hold one of the host's slots. Waiting for a slot extends the deadline; a pause that the host asked for does not.

        Without `heed_pause` pauses are ignored: an ingest defers the URLs of such a host itself.

        Raises:
            ReadError: If the host asked for a pause longer than the rest of the fetch.
        """
        with self._lock:
            host = self._hosts.setdefault(name, _HostState(self._per_host))
            host.users += 1
        try:
            start = time.monotonic()
            with host.slots:
                deadline.extend(time.monotonic() - start)
                if heed_pause:
                    self._wait_for_pause(host, deadline)
                yield
        finally:
            with self._lock:
                host.users -= 1
                self._forget_idle_hosts(name)

    def pause_host(self, name: str, seconds: float) -> None:
        """Pause requests to the host, which sent Retry-After. Call it while holding one of its slots."""
        with self._lock:
            host = self._hosts[name]
            host.not_before = max(host.not_before, time.monotonic() + min(seconds, MAX_PAUSE_S))

    def _wait_for_pause(self, host: _HostState, deadline: Deadline) -> None:
        pause_s = host.not_before - time.monotonic()
        if pause_s <= 0:
            return
        if pause_s >= deadline.remaining_s:
            raise ReadError(f"asked to wait another {pause_s:.0f} s", "Run again later.", code="host-asks-to-wait")
        time.sleep(pause_s)

    def _forget_idle_hosts(self, name: str) -> None:
        """Drop hosts that are neither in use nor paused: lists may name millions of hosts."""
        names = list(self._hosts) if len(self._hosts) > _MAX_HOSTS else [name]
        now = time.monotonic()
        for host in names:
            if self._hosts[host].users == 0 and self._hosts[host].not_before <= now:
                del self._hosts[host]


_HEADERS = {"User-Agent": f"stair-es/{__version__}", "Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"}
_RETRYABLE_STATUSES = BUSY_STATUSES | {408, 425, 500}
"""Statuses of servers that may differ on the next attempt."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_DRAIN = 16 * 1024
_BACKOFF = RetryPolicy(max_backoff_s=8.0, max_retry_after_s=math.inf)


class Fetcher:
    """Fetches under one policy over pooled connections. One per process; thread-safe."""

    def __init__(self, policy: UrlPolicy, *, resolve: Resolver = resolve_host) -> None:
        self._policy = policy
        self._hosts = HostLimiter(policy.per_host)
        self._pool = httpcore2.ConnectionPool(
            # not httpx's Client: it cannot choose the address, and would carry cookies from one image to the next
            network_backend=GuardedBackend(allow_private=policy.allow_private, resolve=resolve),
            ssl_context=httpcore2.default_ssl_context(),
            max_connections=None,
            max_keepalive_connections=32,
            keepalive_expiry=15.0,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def fetch(self, url: str, max_bytes: int, known_version: str | None = None, *, defer: bool = False) -> ReadResult | None:
        """Return the bytes at `url`, or None if the server reports that `known_version` is still current.

        With `defer`, a host that asks to wait raises `RetryLater` instead of being waited for.

        Raises:
            ReadError: If the URL is not allowed or the fetch fails.
            RetryLater: If the host asks to wait and `defer` is set.
        """
        start_url, deadline = self._parse_url(url), Deadline(self._policy.timeout_s)
        for attempt in range(1, self._policy.attempts + 1):
            try:
                return self._follow_redirects(start_url, max_bytes, known_version, deadline, heed_pause=not defer)
            except RetryableError as error:
                if defer and error.wait_s:
                    raise RetryLater(error.reason, "Run again later.", host=error.host, wait_s=error.wait_s) from error
                wait_s = _BACKOFF.compute_delay_s(attempt, error.wait_s or None)
                if deadline.remaining_s <= 0:
                    raise ReadError(
                        f"{error.reason}; not completed within {self._policy.timeout_s:g} s", code="fetch-timed-out"
                    ) from error
                if attempt == self._policy.attempts or wait_s >= deadline.remaining_s:
                    tries = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise ReadError(error.reason + tries, "Run again later.", code="fetch-failed") from error
                time.sleep(wait_s)
        raise AssertionError("a policy has at least one attempt")

    def _follow_redirects(
        self, start_url: httpx2.URL, max_bytes: int, known_version: str | None, deadline: Deadline, *, heed_pause: bool
    ) -> ReadResult | None:
        url, seen = start_url, set[str]()
        for _ in range(self._policy.max_redirects + 1):
            seen.add(str(url))
            where = url.host if url.host == start_url.host else f"{url.host} (redirected from {start_url.host})"
            with translate_fetch_errors(where), self._hosts.acquire_slot(url.host, deadline, heed_pause=heed_pause):
                result = self._send_request(url, max_bytes, known_version, deadline, heed_pause=heed_pause)
            if not isinstance(result, httpx2.URL):
                return result
            url = result
            if str(url) in seen:
                raise ReadError(f"{where}: redirect loop", code="redirect-loop")
        raise ReadError(f"{start_url.host}: more than {self._policy.max_redirects} redirects", code="too-many-redirects")

    def _send_request(
        self, url: httpx2.URL, max_bytes: int, known_version: str | None, deadline: Deadline, *, heed_pause: bool
    ) -> ReadResult | httpx2.URL | None:
        """Send one request; return the bytes, None if they are unchanged, or the URL of a redirect."""
        conditional = build_conditional_headers(str(url), known_version)
        raw = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        # points in time, not durations: see `ssrf`
        timeouts = {"connect": deadline.end, "read": deadline.end, "write": deadline.end, "pool": deadline.remaining_s}
        with self._pool.stream(
            "GET", raw, headers=list((_HEADERS | conditional).items()), extensions={"timeout": timeouts}
        ) as response:
            status, headers = response.status, httpx2.Headers(response.headers)
            if status in (200, 203):
                data = read_body(response.iter_stream(), headers, max_bytes)
                return ReadResult(data, build_response_version(str(url), headers), get_last_modified(headers))
            _discard_rest(response)
        if status == 304 and conditional:
            return None
        if status in _REDIRECTS and "location" in headers:
            return self._parse_url(headers["location"], url)
        if status in _RETRYABLE_STATUSES:
            wait_s = parse_retry_after(headers.get("retry-after", "")) or 0.0
            wait_message = f", asks to wait {wait_s:.0f} s" if wait_s else ""
            if wait_s and heed_pause:
                self._hosts.pause_host(url.host, wait_s)
            raise RetryableError(describe_status(status) + wait_message, wait_s, url.host)
        raise ReadError(describe_status(status), code="http-status")

    def _parse_url(self, text: str, base: httpx2.URL | None = None) -> httpx2.URL:
        """Return the URL if its form is allowed. Its address is checked when connecting."""
        verb = "redirects to" if base is not None else "can't fetch"
        try:
            url = (base.join(text) if base is not None else httpx2.URL(text)).copy_with(fragment=None)
            host = url.host  # decodes Punycode, which may be malformed itself
        except (httpx2.InvalidURL, ValueError) as error:
            raise ReadError(f"{verb} a malformed URL: {redact_web_url(text)}", code="malformed-url") from error
        if url.scheme not in self._policy.schemes:
            allowed = f"Allowed: {', '.join(self._policy.schemes)}."
            raise ReadError(
                f"{verb} a URL whose scheme isn't allowed: {redact_web_url(str(url))}", allowed, code="url-scheme-not-allowed"
            )
        if url.userinfo:
            remedy = "Use signed URLs: a password in a URL would end up in documents and reports."
            raise ReadError(
                f"{verb} a URL with a user name or password: {redact_web_url(str(url))}", remedy, code="url-with-login"
            )
        if not host or b"%" in url.raw_host or not 0 < (1 if url.port is None else url.port) < 65536:
            raise ReadError(f"{verb} a malformed URL: {redact_web_url(str(url))}", code="malformed-url")
        return url


def _discard_rest(response: httpcore2.Response) -> None:
    """Read the rest of a short response so that the connection can be reused; a long one costs the connection."""
    read = 0
    with suppress(httpcore2.NetworkError, httpcore2.RemoteProtocolError):
        for chunk in response.iter_stream():
            read += len(chunk)
            if read > _MAX_DRAIN:
                return


_lock = threading.Lock()
_fetchers: dict[UrlPolicy, Fetcher] = {}


def get_fetcher(policy: UrlPolicy) -> Fetcher:
    """Return this process's fetcher for `policy`."""
    with _lock:
        if policy not in _fetchers:
            _fetchers[policy] = Fetcher(policy)
        return _fetchers[policy]


def _reset_after_fork() -> None:
    """Reset the fetchers in a forked child: it must not use its parent's connections or wait for locks held by its threads."""
    global _lock, _fetchers
    _lock, _fetchers = threading.Lock(), {}


if hasattr(os, "register_at_fork"):  # not on Windows, which doesn't fork
    os.register_at_fork(after_in_child=_reset_after_fork)
