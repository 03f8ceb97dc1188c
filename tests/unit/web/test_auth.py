"""Access checks: host, origin, token."""

import pytest

from stair_es.web.auth import AccessPolicy, is_loopback, parse_host, parse_origin

LOCAL = AccessPolicy()
OPEN = AccessPolicy(
    hosts=frozenset({"localhost", "photos.example.org"}), origins=frozenset({"photos.example.org"}), allow_addresses=True
)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8077", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8077"]
)
def test_loopback_has_these_names(host: str) -> None:
    assert LOCAL.is_allowed_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:8077",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "user@localhost",
        "localhost/",
        "localhost#",
        "localhost?",
        "localhost\\evil",
        "localhost:x",
        "localhost:99999",
        "[::1",
        "localhost localhost",
        ":8077",
        "...",
        "[::1].evil.example",
        "[::1]evil.example",
        "evil.example[::1]",
        "[::1%25eth0]",
        "localhost, evil.example",
        "localhost\xa0",
        "localhost%00",
        "localhost:\u0661",
        "0x7f.1",
        "2130706433",
    ],
)
def test_and_no_others(host: str) -> None:
    assert not LOCAL.is_allowed_host(host)


def test_only_addresses_and_allowed_host_names_are_accepted() -> None:
    for host in ("10.0.0.1:80", "[2001:db8::1]", "photos.example.org", "Photos.Example.org:443"):
        assert OPEN.is_allowed_host(host)
    for host in ("evil.example", "10.0.0.1.evil.example", "x.photos.example.org"):
        assert not OPEN.is_allowed_host(host)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://localhost:8077"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"origin": "http://localhost:8077"},
        {"origin": "https://localhost:8077"},
    ],
)
def test_own_page_and_links_to_it_are_allowed(headers: dict[str, str]) -> None:
    assert LOCAL.is_same_site({"host": "localhost:8077", **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost:8077.evil.example"},
        {"origin": "ftp://localhost:8077"},
        {"origin": "http://["},
        {"origin": ""},
        {"origin": "http://localhost:8077@evil.example"},
        {"origin": "http://evil.example@localhost:8077"},
        {"origin": "http://localhost:8077, http://evil.example"},
        {"origin": "http://[::1].evil.example:8077"},
    ],
)
def test_other_pages_are_not(headers: dict[str, str]) -> None:
    assert not LOCAL.is_same_site({"host": "localhost:8077", **headers})


def test_a_proxy_may_change_the_host_for_an_allowed_name_only() -> None:
    assert OPEN.is_same_site({"host": "127.0.0.1:8077", "origin": "https://photos.example.org"})
    assert not OPEN.is_same_site({"host": "127.0.0.1:8077", "origin": "https://evil.example"})
    assert AccessPolicy().is_same_site({"host": "localhost", "origin": "http://localhost"})
    assert AccessPolicy().is_same_site({"host": "localhost:80", "origin": "http://localhost"})


def test_cookie_proves_the_token_without_revealing_it() -> None:
    guard = AccessPolicy(token="a-long-enough-token")
    assert guard.token not in guard.cookie_value
    assert guard.is_cookie(guard.cookie_value)
    assert guard.is_token(guard.token)
    for wrong in ("", "a-long-enough-toke", "a-long-enough-token ", guard.cookie_value, "é", "\ud800"):
        assert not guard.is_token(wrong)
    for wrong in ("", guard.token, AccessPolicy(token="another-long-token").cookie_value):
        assert not guard.is_cookie(wrong)


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True)])
def test_loopback_addresses(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])
def test_addresses_that_others_reach(host: str) -> None:
    assert not is_loopback(host)


def test_names_of_hosts() -> None:
    assert parse_host("Photos.example.org:443") == "photos.example.org"
    assert parse_host("http://photos.example.org") is None


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://HuggingFace.co", "https://huggingface.co"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("huggingface.co", None),
        ("https://huggingface.co/spaces", None),
        ("https://user@example.org", None),
        ("https://*.example.org", None),
        ("https://example.org; script-src *", None),
        ("https://example.org https://evil.example", None),
        ("https://[::1", None),
        ("data:", None),
    ],
)
def test_origins_of_sites(text: str, origin: str | None) -> None:
    assert parse_origin(text) == origin
