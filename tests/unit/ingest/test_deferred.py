"""Deferral of images of busy hosts, with a fake clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from stair_es.ingest import deferred
from stair_es.ingest.deferred import MAX_REFUSALS, DeferredImages
from stair_es.ingest.state import Deferred, Outcome, Pending
from stair_es.sources.base import SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import FileLocator


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def _image(number: int = 0, host: str = "a.test") -> Pending:
    url = f"https://{host}/{number}.jpg"
    return Pending(SourceItem(url, "list:", UrlLocator(url)))


def _says(image: Pending, wait_s: float = 40.0, *, was_requested: bool = True, host: str = "a.test") -> Deferred:
    return Deferred(
        image.item, host, wait_s, f"{host}: 429 Too Many Requests, asks to wait {wait_s:.0f} s", was_requested=was_requested
    )


def _written(image: Pending) -> Outcome:
    return Outcome(image.item, "written", "write")


def test_only_the_busy_host_is_paused() -> None:
    clock = Clock()
    deferred_images = DeferredImages(600.0, clock)
    first, other, file = (
        _image(1),
        _image(1, "b.test"),
        Pending(SourceItem("file:///a.jpg", "list:", FileLocator("file:///a.jpg"))),
    )
    assert deferred_images.observe_result(first, _says(first)) == []
    assert deferred_images.route_image(_image(2)) is None
    assert [deferred_images.route_image(other), deferred_images.route_image(file)] == [other, file]
    assert deferred_images.describe_waiting() == "waiting 40 s for a.test (2 URLs)"
    assert (deferred_images.take_due(10), deferred_images.due_in_s, len(deferred_images)) == ([], 40.0, 2)
    clock.now += 40
    assert [image.item.uri for image in deferred_images.take_due(10)] == ["https://a.test/1.jpg", "https://a.test/2.jpg"]
    assert (deferred_images.describe_waiting(), deferred_images.due_in_s, len(deferred_images)) == ("", None, 0)
    assert deferred_images.route_image(_image(3)) == _image(3)


def test_hosts_equal_their_punycode() -> None:
    deferred_images = DeferredImages(600.0, Clock())
    first = _image(1, "xn--bcher-kva.example")
    deferred_images.observe_result(first, _says(first, host="bücher.example"))
    assert deferred_images.route_image(_image(2, "xn--bcher-kva.example")) is None
    assert deferred_images.route_image(_image(3, "bücher.example")) is None


def test_the_same_request_to_wait_from_several_workers_is_one_pause() -> None:
    clock = Clock()
    deferred_images = DeferredImages(600.0, clock)
    for number in range(3):
        deferred_images.observe_result(_image(number), _says(_image(number)))
    assert deferred_images.due_in_s == 40.0
    assert len(deferred_images) == 3


def test_absurd_retry_after_is_capped() -> None:
    clock = Clock()
    deferred_images = DeferredImages(600.0, clock)
    bad, good = _image(0), [_image(number) for number in range(1, 58)]
    deferred_images.observe_result(bad, _says(bad, 999_999_999.0))
    assert [deferred_images.route_image(image) for image in good] == [None] * 57
    clock.now += 600
    due = list[Pending]()
    while len(deferred_images):
        due += deferred_images.take_due(16)
    assert {image.item.uri for image in due} == {image.item.uri for image in (bad, *good)}
    [failed] = deferred_images.observe_result(due[0], _says(bad, 999_999_999.0))
    assert failed.item == bad.item
    assert failed.reason == ("a.test: 429 Too Many Requests, asks to wait 999999999 s, after 600 s of waiting for the host")


def test_rejected_images_delay_no_others() -> None:
    clock = Clock()
    deferred_images = DeferredImages(600.0, clock)
    bad, good = _image(0), _image(1)
    deferred_images.observe_result(bad, _says(bad, 5.0))
    began, pauses = clock.now, list[float]()
    while True:
        pause_s = deferred_images.due_in_s or 0.0
        clock.now += pause_s
        [bad] = deferred_images.take_due(10)
        deferred_images.observe_result(good, _written(good))
        if failed := deferred_images.observe_result(bad, _says(bad, 5.0)):
            break
        pauses.append(deferred_images.due_in_s or 0.0)
        assert deferred_images.route_image(_image(2)) == _image(2)
        assert deferred_images.describe_waiting().endswith("s for a.test (1 URL)")
    assert pauses == [5, 5, 5, 8, 16, 32, 64, 128, 256, 81]
    assert clock.now - began == 605
    assert failed[0].reason.endswith("asks to wait 5 s, after 600 s of waiting for the host")


def test_dead_hosts_are_retried_with_backoff_and_given_up() -> None:
    clock, asked = Clock(), list[float]()
    deferred_images = DeferredImages(600.0, clock)
    image = _image()
    while not (failed := deferred_images.observe_result(image, _says(image, 2.0))):
        asked.append(clock.now - 1000)
        clock.now += deferred_images.due_in_s or 0.0
        [image] = deferred_images.take_due(10)
    assert asked == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert clock.now - 1000 == 600
    assert failed[0].kind == "failed"

    waiting = [_image(number) for number in range(100, 200)]
    for number in range(1, MAX_REFUSALS - 1):
        assert len(deferred_images.observe_result(_image(number), _says(_image(number), 2.0))) == 1
    for each in waiting:
        deferred_images.observe_result(each, _says(each, was_requested=False))
    all_failed = deferred_images.observe_result(_image(99), _says(_image(99), 2.0))
    assert len(all_failed) == 1 + len(waiting)
    assert len(deferred_images) == 0
    outcome = deferred_images.route_image(_image(300))
    assert isinstance(outcome, Outcome)
    assert outcome.reason == (
        "a.test: not requested, since 20 others got 429 Too Many Requests after 600 s of waiting for the host"
    )
    clock.now += 600
    assert deferred_images.route_image(_image(300)) == _image(300)


def test_rate_limited_hosts_are_awaited_while_they_respond() -> None:
    clock = Clock()
    deferred_images = DeferredImages(600.0, clock)
    for minute in range(100):
        late = _image(minute)
        assert deferred_images.observe_result(late, _says(late, 60.0)) == []
        clock.now += 60
        [due] = deferred_images.take_due(10)
        for _ in range(10):
            deferred_images.observe_result(due, _written(due))
    assert clock.now - 1000 == 6000


def test_an_answer_without_an_image_restores_no_patience() -> None:
    clock = Clock()
    deferred_images = DeferredImages(60.0, clock)
    deferred_images.observe_result(_image(), _says(_image(), 60.0))
    clock.now += 60
    [due] = deferred_images.take_due(10)
    deferred_images.observe_result(due, Outcome(due.item, "failed", "read", "a.test: connection lost"))
    assert len(deferred_images.observe_result(due, _says(due))) == 1


def test_delays_apply_to_the_redirect_target() -> None:
    clock = Clock()
    deferred_images = DeferredImages(60.0, clock)
    image = _image(1, "links.test")
    deferred_images.observe_result(image, _says(image, 60.0, host="store.test"))
    assert deferred_images.route_image(_image(2, "links.test")) is not None
    clock.now += 60
    [due] = deferred_images.take_due(10)
    deferred_images.observe_result(due, _written(due))
    assert deferred_images.observe_result(due, _says(due, 10.0, host="store.test")) == []  # its answer restored ten seconds


def test_memory_is_bounded_in_images_and_in_hosts() -> None:
    clock = Clock()
    deferred_images = DeferredImages(60.0, clock)
    for number in range(3000):
        image = _image(0, f"h{number}.test")
        deferred_images.observe_result(image, _says(image, 1.0, host=f"h{number}.test"))
        assert deferred_images.describe_waiting().startswith("waiting 1 s for h")
        clock.now += 1
        assert len(deferred_images.take_due(10)) == 1
    assert len(deferred_images._hosts) <= deferred._MAX_HOSTS
    for number in range(deferred.MAX_DEFERRED_IMAGES):
        deferred_images.observe_result(_image(number), _says(_image(number)))
    assert deferred_images.is_full


def test_memory_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "MAX_DEFERRED_BYTES", 1 << 20)
    clock = Clock()
    deferred_images = DeferredImages(60.0, clock)
    images = [replace(image, item=replace(image.item, fields={"caption": "x" * 100_000})) for image in map(_image, range(11))]
    for image in images:
        assert not deferred_images.is_full
        deferred_images.observe_result(image, _says(image, 60.0))
    assert deferred_images.is_full
    clock.now += 60
    [bad] = deferred_images.take_due(1)
    assert not deferred_images.is_full
    for number in range(MAX_REFUSALS):
        failed = deferred_images.observe_result(bad, _says(_image(number)))
    assert len(failed) == 11
    assert (len(deferred_images), deferred_images._images.size) == (0, 0)
