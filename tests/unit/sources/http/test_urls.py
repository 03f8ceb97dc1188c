from __future__ import annotations

import math
import pickle
import threading
import zlib
from collections.abc import Iterator

import pytest
from support.errors import expect_error

from stair_es.errors import ReadError, UsageError
from stair_es.retry import parse_retry_after
from stair_es.sources.base import UrlPolicy
from stair_es.sources.http.fetcher import Deadline, Fetcher, HostLimiter
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.http.response import (
    TruncatedBodyError,
    build_conditional_headers,
    build_response_version,
    get_last_modified,
    read_body,
)
from stair_es.sources.http.urls import normalize_url, redact_web_url

URL = "https://images.test/a.jpg"
MODIFIED = {"last-modified": "Tue, 24 Nov 2026 10:00:00 GMT", "content-length": "7"}
SETTLED = {**MODIFIED, "date": "Tue, 24 Nov 2026 10:00:01 GMT"}


def test_a_locator_can_be_pickled_and_hides_secrets() -> None:
    locator = UrlLocator("https://user:hunter2@images.test/a.jpg?X-Amz-Signature=cafe")
    assert pickle.loads(pickle.dumps(locator)) == locator
    assert locator.to_json() == {"kind": "url", "url": locator.url}
    assert repr(locator) == "UrlLocator('https://images.test/a.jpg?...')"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Images.test:8443/a.jpg", "images.test"),
        ("http://[::1]/a", "::1"),
        ("http://xn--bcher-kva.example/a", "bücher.example"),
        ("http://XN--BCHER-KVA.example/a", "bücher.example"),
        ("http://Bücher.example/a", "bücher.example"),
    ],
)
def test_a_locator_names_its_host_as_the_fetcher_does(url: str, host: str) -> None:
    assert UrlLocator(url).host == host == Fetcher(UrlPolicy(schemes=("http", "https")))._parse_url(url).host


@pytest.mark.parametrize("url", ["http://[::1", "http://h..xn--a/", "http://xn--é.test/", "http://h.test/\t", "http://"])
def test_a_malformed_url_has_no_host_and_is_rejected(url: str) -> None:
    assert UrlLocator(url).host == ""
    with expect_error("malformed-url", ReadError):
        Fetcher(UrlPolicy(schemes=("http", "https")))._parse_url(url)


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://u:p@h.test:8443/a/b.jpg?token=1#f", "https://h.test:8443/a/b.jpg?..."),
        ("https://h.test/a\nb", "https://h.test/ab"),
        ("http://[::1", "a malformed URL"),
        ("https://h.test/" + "a" * 300, "https://h.test/" + "a" * 182 + "..."),
    ],
)
def test_redacted_urls_are_short_and_without_secrets(url: str, redacted: str) -> None:
    assert redact_web_url(url) == redacted


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("https://h.test/a.jpg?id=7&w=20", "https://h.test/a.jpg?id=7&w=20"),
        ("https://u:p@h.test/a.jpg#top", "https://h.test/a.jpg"),
        ("https://h.test/a.jpg?v=2&X-Amz-Date=1&X-Amz-Signature=cafe&X-Amz-Security-Token=s", "https://h.test/a.jpg?v=2"),
        ("https://h.test/a.jpg?Expires=1&Signature=x&Key-Pair-Id=y", "https://h.test/a.jpg"),
        ("https://h.test/a.jpg?sv=1&se=2&sp=r&sig=cafe&snapshot=s1", "https://h.test/a.jpg?snapshot=s1"),
        ("https://h.test/a.jpg?sp=r&st=3", "https://h.test/a.jpg?sp=r&st=3"),
    ],
)
def test_signed_url_identity_omits_the_signature(url: str, uri: str) -> None:
    assert normalize_url(url) == uri


def test_url_secrets_are_hidden_but_distinguish() -> None:
    one, two = normalize_url("https://h.test/get?token=hunter2"), normalize_url("https://h.test/get?token=hunter3")
    assert one != two
    assert "hunter" not in one + two
    assert normalize_url("https://h.test/get?policy=1&expires=2") == "https://h.test/get?policy=1&expires=2"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("schemes", (), "invalid-url-schemes"),
        ("schemes", ("https", "file"), "invalid-url-schemes"),
        ("timeout_s", 0, "invalid-url-timeout"),
        ("timeout_s", math.nan, "invalid-url-timeout"),
        ("timeout_s", math.inf, "invalid-url-timeout"),
        ("max_redirects", -1, "invalid-url-limits"),
        ("per_host", 0, "invalid-url-limits"),
        ("attempts", 0, "invalid-url-limits"),
        ("patience_s", -1, "invalid-url-patience"),
        ("patience_s", math.nan, "invalid-url-patience"),
    ],
)
def test_limits_that_cannot_be_kept_are_rejected(name: str, value: object, code: str) -> None:
    with expect_error(code, UsageError):
        UrlPolicy(**{name: value})  # type: ignore[arg-type]


def test_etags_are_sent_for_the_same_resource_only() -> None:
    version = build_response_version(URL, {"etag": '"v1"', **MODIFIED})
    assert build_conditional_headers(URL, version) == {"If-None-Match": '"v1"'}
    assert build_conditional_headers(URL + "?other", version) == {}
    assert build_conditional_headers(URL, build_response_version(URL, {"etag": 'W/"v1"'})) == {"If-None-Match": 'W/"v1"'}


def test_settled_dates_are_versions_without_an_etag() -> None:
    version = build_response_version(URL, SETTLED)
    assert build_conditional_headers(URL, version) == {"If-Modified-Since": MODIFIED["last-modified"]}
    assert build_response_version(URL, {**MODIFIED, "date": MODIFIED["last-modified"]}) is None
    assert build_response_version(URL, MODIFIED) is None
    assert version != build_response_version(URL, {**SETTLED, "content-length": "8"})


@pytest.mark.parametrize(
    ("header", "modified_at"),
    [
        ("Tue, 24 Nov 2026 10:00:00 GMT", "2026-11-24T10:00:00.000+00:00"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("yesterday", None),
        ("Tue, 24 Nov 99999999999999999999 10:00:00 GMT", None),
        ("", None),
    ],
)
def test_the_last_modification_is_what_the_server_says(header: str, modified_at: str | None) -> None:
    assert get_last_modified({"last-modified": header}) == modified_at


@pytest.mark.parametrize("etag", ["", "v1", '"a\r\nX: y"', '"ä"', '"' + "a" * 300 + '"'])
def test_invalid_etags_are_none(etag: str) -> None:
    assert build_response_version(URL, {"etag": etag}) is None


@pytest.mark.parametrize("known", [None, "", "abc", '"etag of another store"', "http1:", 'http1:0123456789abcdef:"v1"'])
def test_versions_of_other_urls_are_not_sent(known: str | None) -> None:
    assert build_conditional_headers(URL, known) == {}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Fri, 31 Dec 2999 23:59:59 GMT", pytest.approx(3.1e10, rel=0.1)),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0),
        ("9" * 400, math.inf),
        *((invalid, None) for invalid in ("", "soon", "-5", "²", f"Fri, 31 Dec 2999 23:59:59 +{'9' * 20}")),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


def test_a_bomb_is_stopped_long_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    chunks_read = 0

    def yield_chunks() -> Iterator[bytes]:
        nonlocal chunks_read
        for start in range(0, len(bomb), 512):
            chunks_read += 1
            yield bomb[start : start + 512]

    with expect_error("file-too-large"):
        read_body(yield_chunks(), {"content-encoding": "gzip"}, 100_000)
    assert chunks_read < len(bomb) // 512 // 4


def test_bodies_are_as_long_as_allowed_and_not_longer() -> None:
    assert read_body([b"abc", b"def"], {}, 6) == b"abcdef"
    with expect_error("file-too-large"):
        read_body([b"abc", b"def"], {}, 5)
    with expect_error("file-too-large"):
        read_body(iter(()), {"content-length": "6"}, 5)


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("x-gzip", 31), ("deflate", 15), ("GZIP ", 31)])
def test_compressed_bodies_are_unpacked_completely_or_rejected(encoding: str, bits: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    packed = packer.compress(b"image" * 100) + packer.flush()
    headers = {"content-encoding": encoding}
    assert read_body([packed[:9], packed[9:]], headers, 500) == b"image" * 100
    with expect_error("file-too-large"):
        read_body([packed], headers, 499)
    with pytest.raises(TruncatedBodyError):
        read_body([packed[:-1]], headers, 500)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1000])
def test_unrequested_encodings_are_rejected(encoding: str) -> None:
    with expect_error("unrequested-encoding") as caught:
        read_body([b"x"], {"content-encoding": encoding}, 10)
    assert len(caught.value.message) < 120


def test_hosts_are_forgotten_after_use_but_not_while_they_pause() -> None:
    hosts = HostLimiter(1)
    for n in range(3000):
        with hosts.acquire_slot(f"h{n}.test", Deadline(1)):
            pass
    assert len(hosts) == 0
    with hosts.acquire_slot("busy.test", Deadline(1)):
        hosts.pause_host("busy.test", 60)
    with expect_error("host-asks-to-wait"), hosts.acquire_slot("busy.test", Deadline(1)):
        pass
    assert len(hosts) == 1


def test_waiting_for_a_turn_is_not_charged() -> None:
    hosts, first, second = HostLimiter(1), Deadline(5.0), Deadline(5.0)
    is_held, may_release = threading.Event(), threading.Event()

    def hold_slot() -> None:
        with hosts.acquire_slot("h.test", first):
            is_held.set()
            may_release.wait(10)

    thread = threading.Thread(target=hold_slot)
    thread.start()
    is_held.wait(10)
    timer = threading.Timer(0.5, may_release.set)
    timer.start()
    end = second.end
    with hosts.acquire_slot("h.test", second):
        assert second.end > end
    thread.join()
    timer.join()
