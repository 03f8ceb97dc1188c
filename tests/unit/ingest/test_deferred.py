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

PATIENCE_S = 600.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deferred_images(clock: Clock) -> DeferredImages:
    return DeferredImages(PATIENCE_S, clock)


def build_image(number: int = 0, host: str = "a.test") -> Pending:
    url = f"https://{host}/{number}.jpg"
    return Pending(SourceItem(url, "list:", UrlLocator(url)))


def refuse_image(
    deferred_images: DeferredImages, image: Pending, wait_s: float = 40.0, *, was_requested: bool = True, host: str = "a.test"
) -> list[Outcome]:
    """Observe that the host of an image asks to wait."""
    reason = f"{host}: 429 Too Many Requests, asks to wait {wait_s:.0f} s"
    return deferred_images.observe_result(image, Deferred(image.item, host, wait_s, reason, was_requested=was_requested))


def serve_image(deferred_images: DeferredImages, image: Pending) -> list[Outcome]:
    """Observe that an image was fetched and written."""
    return deferred_images.observe_result(image, Outcome(image.item, "written", "write"))


def test_only_the_busy_host_is_paused(clock: Clock, deferred_images: DeferredImages) -> None:
    other, file = build_image(1, "b.test"), Pending(SourceItem("file:///a.jpg", "list:", FileLocator("file:///a.jpg")))
    assert refuse_image(deferred_images, build_image(1)) == []
    assert deferred_images.route_image(build_image(2)) is None
    assert [deferred_images.route_image(image) for image in (other, file)] == [other, file]
    assert all(fact in deferred_images.describe_waiting() for fact in ("40 s", "a.test", "2 URLs"))
    assert (deferred_images.take_due(10), deferred_images.due_in_s, len(deferred_images)) == ([], 40.0, 2)
    clock.now += 40
    assert [image.item.uri for image in deferred_images.take_due(10)] == ["https://a.test/1.jpg", "https://a.test/2.jpg"]
    assert (deferred_images.describe_waiting(), deferred_images.due_in_s, len(deferred_images)) == ("", None, 0)
    assert deferred_images.route_image(build_image(3)) == build_image(3)


def test_hosts_equal_their_punycode(deferred_images: DeferredImages) -> None:
    refuse_image(deferred_images, build_image(1, "xn--bcher-kva.example"), host="bücher.example")
    assert deferred_images.route_image(build_image(2, "xn--bcher-kva.example")) is None
    assert deferred_images.route_image(build_image(3, "bücher.example")) is None


def test_refusals_of_several_workers_are_one_pause(deferred_images: DeferredImages) -> None:
    for number in range(3):
        refuse_image(deferred_images, build_image(number))
    assert (deferred_images.due_in_s, len(deferred_images)) == (40.0, 3)


def test_absurd_retry_after_is_capped(clock: Clock, deferred_images: DeferredImages) -> None:
    refused, others = build_image(0), [build_image(number) for number in range(1, 58)]
    refuse_image(deferred_images, refused, 999_999_999.0)
    assert [deferred_images.route_image(image) for image in others] == [None] * 57
    clock.now += PATIENCE_S
    due = list[Pending]()
    while len(deferred_images):
        due += deferred_images.take_due(16)
    assert {image.item.uri for image in due} == {image.item.uri for image in (refused, *others)}
    [failed] = refuse_image(deferred_images, due[0], 999_999_999.0)
    assert failed.item == refused.item
    assert all(fact in failed.reason for fact in ("a.test", "429", "999999999 s", "600 s"))


def test_rejected_images_delay_no_others(clock: Clock, deferred_images: DeferredImages) -> None:
    refused, served = build_image(0), build_image(1)
    refuse_image(deferred_images, refused, 5.0)
    start, pauses = clock.now, list[float]()
    while True:
        clock.now += deferred_images.due_in_s or 0.0
        [refused] = deferred_images.take_due(10)
        serve_image(deferred_images, served)
        if failed := refuse_image(deferred_images, refused, 5.0):
            break
        pauses.append(deferred_images.due_in_s or 0.0)
        assert deferred_images.route_image(build_image(2)) == build_image(2)
        assert "(1 URL)" in deferred_images.describe_waiting()
    assert pauses == [5, 5, 5, 8, 16, 32, 64, 128, 256, 81]
    assert clock.now - start == 605
    assert all(fact in failed[0].reason for fact in ("5 s", "600 s"))


def test_dead_hosts_are_retried_with_backoff_and_given_up(clock: Clock, deferred_images: DeferredImages) -> None:
    start, request_times = clock.now, list[float]()
    image = build_image()
    while not (failed := refuse_image(deferred_images, image, 2.0)):
        request_times.append(clock.now - start)
        clock.now += deferred_images.due_in_s or 0.0
        [image] = deferred_images.take_due(10)
    assert request_times == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert clock.now - start == PATIENCE_S
    assert failed[0].kind == "failed"

    waiting = [build_image(number) for number in range(100, 200)]
    for number in range(1, MAX_REFUSALS - 1):
        assert len(refuse_image(deferred_images, build_image(number), 2.0)) == 1
    for each in waiting:
        refuse_image(deferred_images, each, was_requested=False)
    assert len(refuse_image(deferred_images, build_image(99), 2.0)) == 1 + len(waiting)
    assert len(deferred_images) == 0
    outcome = deferred_images.route_image(build_image(300))
    assert isinstance(outcome, Outcome)
    assert all(fact in outcome.reason for fact in ("a.test", f"{MAX_REFUSALS} others", "429", "600 s"))
    clock.now += PATIENCE_S
    assert deferred_images.route_image(build_image(300)) == build_image(300)


def test_rate_limited_hosts_are_awaited_while_they_respond(clock: Clock, deferred_images: DeferredImages) -> None:
    start = clock.now
    for minute in range(100):
        assert refuse_image(deferred_images, build_image(minute), 60.0) == []
        clock.now += 60
        [due] = deferred_images.take_due(10)
        for _ in range(10):
            serve_image(deferred_images, due)
    assert clock.now - start == 6000


def test_an_answer_without_an_image_restores_no_patience(clock: Clock) -> None:
    deferred_images = DeferredImages(60.0, clock)
    refuse_image(deferred_images, build_image(), 60.0)
    clock.now += 60
    [due] = deferred_images.take_due(10)
    deferred_images.observe_result(due, Outcome(due.item, "failed", "read", "a.test: connection lost"))
    assert len(refuse_image(deferred_images, due)) == 1


def test_delays_apply_to_the_redirect_target(clock: Clock) -> None:
    deferred_images = DeferredImages(60.0, clock)
    refuse_image(deferred_images, build_image(1, "links.test"), 60.0, host="store.test")
    assert deferred_images.route_image(build_image(2, "links.test")) is not None
    clock.now += 60
    [due] = deferred_images.take_due(10)
    serve_image(deferred_images, due)
    assert refuse_image(deferred_images, due, 10.0, host="store.test") == []  # its answer restored ten seconds


def test_memory_is_bounded_in_images_and_in_hosts(clock: Clock) -> None:
    deferred_images = DeferredImages(60.0, clock)
    for number in range(3000):
        host = f"h{number}.test"
        refuse_image(deferred_images, build_image(0, host), 1.0, host=host)
        assert host in deferred_images.describe_waiting()
        clock.now += 1
        assert len(deferred_images.take_due(10)) == 1
    assert len(deferred_images._hosts) <= deferred._MAX_HOSTS
    for number in range(deferred.MAX_DEFERRED_IMAGES):
        refuse_image(deferred_images, build_image(number))
    assert deferred_images.is_full


def test_memory_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(deferred, "MAX_DEFERRED_BYTES", 1 << 20)
    deferred_images = DeferredImages(60.0, clock)
    images = [
        image._replace(item=replace(image.item, fields={"caption": "x" * 100_000})) for image in map(build_image, range(11))
    ]
    for image in images:
        assert not deferred_images.is_full
        refuse_image(deferred_images, image, 60.0)
    assert deferred_images.is_full
    clock.now += 60
    [refused] = deferred_images.take_due(1)
    assert not deferred_images.is_full
    for _ in range(MAX_REFUSALS):
        failed = refuse_image(deferred_images, refused)
    assert len(failed) == 11
    assert (len(deferred_images), deferred_images._images.size) == (0, 0)
