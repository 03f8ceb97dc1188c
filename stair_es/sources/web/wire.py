"""The connections under a fetch: only to checked addresses, and never past the end of the fetch's time.

httpcore hands the `timeout` of a request to the calls below, anew for each read, so a server that drips would never run into it.
Therefore the requests made here carry the *end* of the fetch instead (on `time.monotonic`), and the wait is what is left.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore2

from stair_es.errors import ReadError
from stair_es.sources.web.guard import Resolve, addresses

_ADDRESS_S = 5.0
"""For one of several addresses of a host to answer before the next one is tried."""


class TimedStream(httpcore2.NetworkStream):
    """A connection whose `timeout`s are points in time."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, at most `max_bytes`."""
        return self._inner.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        self._inner.write(buffer, _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """The same connection, encrypted. The certificate is checked against the name, not the address."""
        return TimedStream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout, httpcore2.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  as in the class that it stands for
        """What httpcore asks about a connection."""
        return self._inner.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Looks a name up once, checks all of its addresses, and connects to one of these."""

    def __init__(self, *, allow_private: bool, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to the first address that answers.

        Raises:
            ReadError: An address is refused, or there is no such host.
            httpcore2.ConnectError: None of them answers.
        """
        found = self._look_up(host, port, _left(timeout, httpcore2.ConnectTimeout))
        for n, address in enumerate(found):
            left = _left(timeout, httpcore2.ConnectTimeout)
            last = n == len(found) - 1
            try:
                return TimedStream(self._inner.connect_tcp(address, port, left if last else min(left, _ADDRESS_S)))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if last:
                    raise
        raise httpcore2.ConnectError("no address")

    def _look_up(self, host: str, port: int, timeout_s: float) -> list[str]:
        try:
            return addresses(host, port, timeout_s, allow_private=self._allow_private, resolve=self._resolve)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise httpcore2.ConnectError("the name can't be looked up now") from error
            raise ReadError("no such host", "Check the name, and that this machine can look it up.") from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error


def _left(end: float | None, error: type[httpcore2.TimeoutException]) -> float:
    if end is None:
        raise ValueError("a request without a `timeout` extension")
    left = end - time.monotonic()
    if left <= 0:
        raise error("out of time")
    return left
