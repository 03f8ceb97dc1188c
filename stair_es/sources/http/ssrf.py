"""Protection against server-side request forgery: address filtering, and connections to checked addresses only.

httpcore passes the `timeout` of a request to each read, so a server that sends slowly would never exceed it. Requests made
here carry the *end* of the fetch instead (on `time.monotonic`), and each call waits for the remaining time.
"""

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

Resolver: TypeAlias = Callable[[str, int, float], Sequence[str]]
"""(host, port, timeout_s) -> addresses of the host. Raises OSError."""
_IP: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

# Metadata services serve credentials, not images: blocked even where private addresses are allowed.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
# Addresses that some supported Python versions consider global.
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


def find_block_reason(address: str, *, allow_private: bool) -> str | None:
    """Return why an address is blocked, or None if it is allowed."""
    try:
        ip: _IP = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "is not an IP address"
    ip = _extract_ipv4(ip)
    if ip in _METADATA:
        return "is a cloud metadata service"
    return None if allow_private else _describe_address(ip)


def resolve_allowed_addresses(host: str, port: int, timeout_s: float, *, allow_private: bool, resolve: Resolver) -> list[str]:
    """Return the addresses of a host, without duplicates, if all of them are allowed.

    Connect to these addresses: a second lookup may return others. One blocked address blocks the host, because a name with a
    public and a private address is a mistake or an attack.

    Raises:
        ReadError: If an address is blocked.
        OSError: If the lookup fails.
    """
    addresses = list(dict.fromkeys(resolve(host, port, timeout_s)))
    if not addresses:
        raise OSError("the name has no address")
    for address in addresses:
        reason = find_block_reason(address, allow_private=allow_private)
        if reason is not None:
            what = "the address" if address == host else f"its address {address}"
            option = "" if "metadata" in reason else " (--allow-private-urls)"  # in the reason: a dead letter keeps nothing else
            remedy = option and "UrlPolicy(allow_private=True) allows private addresses."
            raise ReadError(f"refused: {what} {reason}{option}", remedy, code="address-not-allowed")
    return addresses


def resolve_host(host: str, port: int, timeout_s: float) -> list[str]:
    """Resolve a host with the system's resolver, which has no timeout: it runs on a thread that may be abandoned.

    Raises:
        TimeoutError: If there is no answer in time.
        OSError: If the name does not exist or its servers do not answer.
    """
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put([str(row[4][0]) for row in rows])
        except (OSError, ValueError) as error:
            results.put(error)

    threading.Thread(target=look_up, name="stair-es-dns", daemon=True).start()
    try:
        result = results.get(timeout=max(timeout_s, 0.0))
    except queue.Empty:
        raise TimeoutError("looking up the name takes too long") from None
    if isinstance(result, OSError):
        raise result
    if isinstance(result, Exception):  # a label that is too long, for example
        raise socket.gaierror(socket.EAI_NONAME, str(result)) from result
    return result


def _extract_ipv4(ip: _IP) -> _IP:
    """Return the IPv4 address embedded in an IPv6 address that a gateway or the kernel would route to it."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    inner = ip.ipv4_mapped or ip.sixtofour
    if inner is None and (ip in _NAT64 or (ip in _V4_COMPATIBLE and int(ip) > 1)):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return inner or ip


def _describe_address(ip: _IP) -> str | None:
    """Return why an address is not on the public internet, or None if it is."""
    reasons = {
        "is loopback": ip.is_loopback or ip.is_unspecified,
        "is link-local": ip.is_link_local,
        "is multicast": ip.is_multicast,
        "is private": ip.is_private,
        "isn't public": ip.is_reserved or any(ip in network for network in _SPECIAL) or not ip.is_global,
        "isn't public IPv6": ip.version == 6 and ip not in _GLOBAL_V6,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


_ADDRESS_TIMEOUT_S = 5.0
"""Time for one of several addresses of a host to answer before the next one is tried."""


class DeadlineStream(httpcore2.NetworkStream):
    """A connection whose `timeout` arguments are points in time."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the received bytes, at most `max_bytes`."""
        return self._inner.read(max_bytes, _compute_remaining(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        self._inner.write(buffer, _compute_remaining(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Return the connection with TLS. The certificate is verified against the host name, not the address."""
        return DeadlineStream(
            self._inner.start_tls(ssl_context, server_hostname, _compute_remaining(timeout, httpcore2.ConnectTimeout))
        )

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  as in the base class
        """Return httpcore's information about the connection."""
        return self._inner.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Looks a name up once, checks all of its addresses, and connects to one of them."""

    def __init__(self, *, allow_private: bool, resolve: Resolver) -> None:
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
        """Connect to the first address that answers; `timeout` is the end of the fetch (on `time.monotonic`).

        Raises:
            ReadError: If an address is blocked or the host does not exist.
            httpcore2.ConnectError: If no address answers.
        """
        addresses = self._look_up(host, port, _compute_remaining(timeout, httpcore2.ConnectTimeout))
        for number, address in enumerate(addresses):
            remaining_s = _compute_remaining(timeout, httpcore2.ConnectTimeout)
            last = number == len(addresses) - 1
            try:
                timeout_s = remaining_s if last else min(remaining_s, _ADDRESS_TIMEOUT_S)
                return DeadlineStream(self._inner.connect_tcp(address, port, timeout_s))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if last:
                    raise
        raise httpcore2.ConnectError("no address")

    def _look_up(self, host: str, port: int, timeout_s: float) -> list[str]:
        try:
            return resolve_allowed_addresses(host, port, timeout_s, allow_private=self._allow_private, resolve=self._resolve)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise httpcore2.ConnectError("the name can't be resolved at the moment") from error
            raise ReadError(
                "no such host", "Check the name, and that this machine can look it up.", code="host-not-found"
            ) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error


def _compute_remaining(end: float | None, error: type[httpcore2.TimeoutException]) -> float:
    if end is None:
        raise ValueError("a request without a `timeout` extension")
    remaining_s = end - time.monotonic()
    if remaining_s <= 0:
        raise error("out of time")
    return remaining_s
