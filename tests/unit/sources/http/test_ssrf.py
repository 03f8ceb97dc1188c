from __future__ import annotations

import socket
import threading

import pytest
from support.errors import expect_error

from stair_es.errors import ReadError
from stair_es.sources.http.ssrf import find_block_reason, resolve_allowed_addresses, resolve_host

PRIVATE = [
    *("127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.1.1", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7"),
    *("192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1", "3fff::1"),
    # a way back to IPv4: mapped, compatible, 6to4, NAT64 (public and local prefix), Teredo
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:c0a8:101::1", "64:ff9b::7f00:1"),
    *("64:ff9b::a00:1", "64:ff9b:1::808:808", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "4000::1", "5f00::1", "100::1"),
]
PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "169.253.0.1", "223.255.255.255"),
    *("2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
]
METADATA = [
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"),
]


@pytest.mark.parametrize(
    ("address", "is_blocked", "is_always_blocked"),
    [
        *((address, True, False) for address in PRIVATE),
        *((address, False, False) for address in PUBLIC),
        *((invalid, True, True) for invalid in ("", "localhost", "127.1", "1.2.3.4.5", "0x7f000001")),
    ],
)
def test_private_and_invalid_addresses_are_blocked(address: str, is_blocked: bool, is_always_blocked: bool) -> None:
    assert (find_block_reason(address, allow_private=False) is not None) is is_blocked
    assert (find_block_reason(address, allow_private=True) is not None) is is_always_blocked


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_rejected_always(address: str) -> None:
    assert "metadata" in str(find_block_reason(address, allow_private=True))
    assert "metadata" in str(find_block_reason(address, allow_private=False))


@pytest.mark.parametrize(
    ("addresses", "private"),
    [
        (["8.8.8.8", "10.0.0.1"], "10.0.0.1"),
        (["10.0.0.1", "8.8.8.8"], "10.0.0.1"),
        (["8.8.8.8", "2606:4700::1", "::1"], "::1"),
    ],
)
def test_names_with_a_private_address_are_rejected(addresses: list[str], private: str) -> None:
    with expect_error("address-not-allowed", ReadError) as caught:
        resolve_allowed_addresses("images.test", 443, 1.0, allow_private=False, resolve=lambda *_: addresses)
    assert private in caught.value.message
    assert resolve_allowed_addresses("images.test", 443, 1.0, allow_private=True, resolve=lambda *_: addresses) == addresses


def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="no address"):
        resolve_allowed_addresses("images.test", 443, 1.0, allow_private=False, resolve=lambda *_: [])


@pytest.mark.parametrize("spelling", ["127.0.0.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "0"])
def test_every_spelling_of_loopback_is_recognized(spelling: str) -> None:
    with expect_error("address-not-allowed") as caught:
        resolve_allowed_addresses(spelling, 80, 5.0, allow_private=False, resolve=resolve_host)
    assert "loopback" in caught.value.message


def test_an_invalid_name_is_a_resolver_error() -> None:
    with pytest.raises(socket.gaierror):
        resolve_host("a" * 70 + ".test", 80, 5.0)


def test_a_hanging_look_up_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    is_abandoned = threading.Event()

    def wait_for_abandonment(*_args: object, **_kwargs: object) -> list[object]:
        is_abandoned.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait_for_abandonment)
    with pytest.raises(TimeoutError):
        resolve_host("images.test", 80, 0.05)
    is_abandoned.set()


@pytest.mark.parametrize(("address", "names_option"), [("10.0.0.1", True), ("169.254.169.254", False)])
def test_private_address_errors_name_the_option(address: str, names_option: bool) -> None:
    with expect_error("address-not-allowed") as caught:
        resolve_allowed_addresses("host.test", 80, 1.0, allow_private=False, resolve=lambda *_: [address])
    assert ("--allow-private-urls" in caught.value.message) is names_option
