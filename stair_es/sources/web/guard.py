"""Which addresses of the network may be connected to: an answer for every address, whatever the host was called."""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import httpcore2

from stair_es.errors import ReadError

Resolve: TypeAlias = Callable[[str, int, float], Sequence[str]]
"""(host, port, timeout_s) -> the addresses of the host. Raises OSError."""
_IP: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

# Nobody keeps images there, and what is there are keys: refused even where private addresses are allowed.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
# What Python's tables call global in some of the versions that we run on.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.175.48.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Why nothing is fetched from this address, in a few words; None if it may be."""
    try:
        ip: _IP = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "is no IP address"
    ip = _meant(ip)
    if ip in _METADATA:
        return "is a metadata service of a cloud"
    if allow_private:
        return None
    return _kind(ip)


def addresses(host: str, port: int, timeout_s: float, *, allow_private: bool, resolve: Resolve) -> list[str]:
    """The addresses of a host, if all of them may be connected to. Connect to these: a second look-up may tell other ones.

    A single bad one spoils the host: a name with a public and a private address is a mistake or a trick.

    Raises:
        ReadError: One of them is refused.
        OSError: The look-up failed.
    """
    found = list(dict.fromkeys(resolve(host, port, timeout_s)))
    if not found:
        raise OSError("the name has no address")
    for address in found:
        why = refusal(address, allow_private=allow_private)
        if why is not None:
            what = "the address" if address == host else f"its address {address}"
            way = "" if "metadata" in why else " (--allow-private-urls)"  # in the reason: of a dead letter nothing else is kept
            raise ReadError(
                f"refused: {what} {why}{way}", way and "Private addresses are fetched from where UrlPolicy allows it."
            )
    return found


def system_resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """The addresses that the system knows. Its look-up has no time limit, so it runs on a thread that may be left behind.

    Raises:
        TimeoutError: No answer in time.
        OSError: No such name, or no answer from its servers.
    """
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([str(row[4][0]) for row in rows])
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name="stair-es-dns", daemon=True).start()
    try:
        answer = answers.get(timeout=max(timeout_s, 0.0))
    except queue.Empty:
        raise TimeoutError("the look-up of the name takes too long") from None
    if isinstance(answer, OSError):
        raise answer
    if isinstance(answer, Exception):  # a label that is too long, for example
        raise socket.gaierror(socket.EAI_NONAME, str(answer)) from answer
    return answer


def _meant(ip: _IP) -> _IP:
    """The IPv4 address inside an IPv6 one that a gateway or the kernel would take it to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    inner = ip.ipv4_mapped or ip.sixtofour
    if inner is None and (ip in _NAT64 or (ip in _V4_COMPATIBLE and int(ip) > 1)):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return inner or ip


def _kind(ip: _IP) -> str | None:
    """Why an address is none of the public internet; None if it is one."""
    kinds = {
        "is loopback": ip.is_loopback or ip.is_unspecified,
        "is link-local": ip.is_link_local,
        "is multicast": ip.is_multicast,
        "is private": ip.is_private,
        "isn't public": ip.is_reserved or any(ip in network for network in _SPECIAL) or not ip.is_global,
        "isn't public IPv6": ip.version == 6 and ip not in _GLOBAL_V6,
    }
    return next((why for why, holds in kinds.items() if holds), None)


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
