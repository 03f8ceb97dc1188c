"""The scheduler against executor that finish in a random order: no image lost or doubled, a bounded number on its way."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any

import pytest

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.bulk.writer import BulkPolicy
from stair_es.errors import ClusterError, SourceError
from stair_es.ingest.deferred import MAX_REFUSALS, DeferredImages
from stair_es.ingest.executors.base import Stage, StageTask, WorkerDied
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import CHECK_IMAGES, MAX_TAKES, StageScheduler
from stair_es.ingest.state import Batch, Deferred, ImageState, Outcome, Pending, get_image_item
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import InlineBytes
from stair_es.store import BulkRequestStats


@dataclass
class FakeExecutor:
    """Tasks finish when they are waited for, in a random order."""

    encoders: int = 2
    workers: int = 2
    batch_images: int = 4
    killing: frozenset[str] = frozenset()
    """Images that kill whoever works on them."""
    unchanged: frozenset[str] = frozenset()
    failing_writes: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    tasks: dict[int, tuple[str, list[Batch]]] = field(default_factory=dict)
    in_flight: int = 0
    most_on_their_way: int = 0
    encoding: dict[int, int] = field(default_factory=dict)
    busiest_encoder: int = 0

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        batches = [value for value in inputs if isinstance(value, Batch)]
        if stage == "write":
            inputs = inputs[1:]  # without the bytes of a request
        batches += [batch for task in inputs if isinstance(task, int) for batch in self.tasks[task][1]]
        number = len(self.tasks)
        self.tasks[number] = (stage, batches)
        if stage == "prepare":
            self.in_flight += len(batches[0].images)
            self.most_on_their_way = max(self.most_on_their_way, self.in_flight)
        elif stage == "encode":
            self.encoding[number] = encoder
            loads = [list(self.encoding.values()).count(i) for i in range(self.encoders)]
            self.busiest_encoder = max(self.busiest_encoder, *loads)
        return number

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        done = self.random.sample(sorted(task for task in tasks if isinstance(task, int)), k=1)
        for task in done:
            self.encoding.pop(task, None)
        return list(done)

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        assert isinstance(task, int)
        return self._check(task) if self.tasks[task][0] == "check" else self._write(task)

    def _check(self, task: int) -> Batch:
        [batch] = self.tasks[task][1]
        images = [get_image_item(state) for state in batch.images]
        return Batch([Outcome(i, "unchanged", "check", id=i.uri) if i.uri in self.unchanged else Pending(i) for i in images])

    def _write(self, task: int) -> tuple[list[Batch], list[BulkRequestStats]]:
        batches = self.tasks[task][1]
        images = [get_image_item(state) for batch in batches for state in batch.images]
        self.in_flight -= len(images)
        if self.killing & {image.uri for image in images}:
            raise WorkerDied("signal 11")
        if self.failing_writes:
            raise ClusterError("gone")
        done = [
            Batch([Outcome(get_image_item(s), "written", "write", id=get_image_item(s).uri) for s in b.images], {"encode": 0.1})
            for b in batches
        ]
        return done, [BulkRequestStats(1000 * len(images), len(images), 0.01, busy=False)]


def _written(item: SourceItem) -> Outcome:
    return Outcome(item, "written", "write", id=item.uri)


def _items(count: int) -> Iterator[SourceItem | ListingFailure]:
    for i in range(count):
        yield SourceItem(f"mem:{i}", "mem:", InlineBytes(b""))


def _only_items(found: SourceItem | ListingFailure) -> SourceItem | None:
    return found if isinstance(found, SourceItem) else None


def _run(
    executor: FakeExecutor,
    items: Iterator[SourceItem | ListingFailure],
    *,
    is_empty: bool = True,
    deferred: DeferredImages | None = None,
) -> list[Outcome]:
    with PrefetchQueue(items, max_items=100_000) as queue:
        queue.wait_for_items(100_000, 60.0)
        scheduler = StageScheduler(
            executor,
            AdaptiveThrottle(BulkPolicy()),
            is_empty,
            _only_items,
            deferred=DeferredImages() if deferred is None else deferred,
        )
        return [outcome for batch in scheduler.run(queue) for outcome in batch.get_outcomes()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1000])
def test_every_image_comes_out_once(seed: int, count: int) -> None:
    outcomes = _run(FakeExecutor(random=random.Random(seed)), _items(count))
    assert sorted(o.item.uri for o in outcomes) == sorted(f"mem:{i}" for i in range(count))


def test_unchanged_images_end_after_the_check() -> None:
    executor = FakeExecutor(unchanged=frozenset(f"mem:{i}" for i in range(0, 600, 2)))
    outcomes = _run(executor, _items(600), is_empty=False)
    assert sorted(o.item.uri for o in outcomes if o.kind == "unchanged") == sorted(executor.unchanged)
    assert len(outcomes) == 600
    prepared = [len(b.images) for kind, batches in executor.tasks.values() if kind == "prepare" for b in batches]
    assert sum(prepared) == 300
    assert sum(size < executor.batch_images for size in prepared) <= 2  # full batches, though half of each check falls away


def test_encoders_have_at_most_two_batches() -> None:
    executor = FakeExecutor()
    _run(executor, _items(20_000))
    assert executor.busiest_encoder == 2
    assert executor.most_on_their_way < 6_000


def test_images_that_carry_their_bytes_are_few_while_the_cluster_is_slow() -> None:
    class SlowWrites(FakeExecutor):
        def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
            quick = [task for task in tasks if isinstance(task, int) and self.tasks[task][0] != "write"]
            return super().wait_any(quick or tasks, timeout_s)

    heavy = InlineBytes(bytes(1 << 20))
    executor = SlowWrites()
    outcomes = _run(executor, (SourceItem(f"mem:{i}", "mem:", heavy) for i in range(1000)))
    assert len(outcomes) == 1000
    assert executor.most_on_their_way < 400


def test_only_the_image_that_kills_its_worker_fails() -> None:
    executor = FakeExecutor(killing=frozenset({"mem:17", "mem:40"}))
    outcomes = _run(executor, _items(100))
    assert {o.item.uri: o.kind for o in outcomes} == {f"mem:{i}": "failed" if i in (17, 40) else "written" for i in range(100)}
    assert len(outcomes) == 100
    assert all("signal 11" in o.reason for o in outcomes if o.kind == "failed")


def test_interrupted_sources_fail_the_run_after_their_items() -> None:
    def breaking() -> Iterator[SourceItem | ListingFailure]:
        yield from _items(10)
        raise SourceError("the store went away")

    seen: list[Outcome] = []
    with PrefetchQueue(breaking(), max_items=100) as queue:
        scheduler = StageScheduler(FakeExecutor(), AdaptiveThrottle(BulkPolicy()), is_empty=True, accept_listed=_only_items)
        with pytest.raises(SourceError, match="went away"):
            seen.extend(outcome for batch in scheduler.run(queue) for outcome in batch.get_outcomes())
    assert len(seen) == 10


def test_duplicates_delay_no_others() -> None:
    class Watched(FakeExecutor):
        def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
            taken.append(listed)
            return super().wait_any(tasks, timeout_s)

    listed, taken, seen = 0, [0], set[str]()

    def admit(found: SourceItem | ListingFailure) -> SourceItem | None:
        nonlocal listed
        listed += 1
        first = found.uri not in seen
        seen.add(found.uri)
        return _only_items(found) if first else None

    with PrefetchQueue(chain.from_iterable(_items(100) for _ in range(201)), max_items=100_000) as queue:
        queue.wait_for_items(100_000, 60.0)
        scheduler = StageScheduler(Watched(), AdaptiveThrottle(BulkPolicy()), is_empty=True, accept_listed=admit)
        assert sum(len(batch.get_outcomes()) for batch in scheduler.run(queue)) == 100
    assert listed == 20_100
    assert max(after - before for before, after in pairwise(taken)) <= MAX_TAKES * CHECK_IMAGES


def test_a_failed_write_fails_the_run() -> None:
    with pytest.raises(ClusterError, match="gone"):
        _run(FakeExecutor(failing_writes=1), _items(10))


class BusyHostExecutor(FakeExecutor):
    """Each image of a.test is refused at first, and its host asks to wait; the clock moves when somebody sleeps."""

    now = 0.0
    refusals = 0
    always = False

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def deferred(self) -> DeferredImages:
        return DeferredImages(600.0, lambda: self.now)

    def _write(self, task: int) -> tuple[list[Batch], list[BulkRequestStats]]:
        batches, sent = super()._write(task)
        return [Batch([self._seen(get_image_item(state)) for state in batch.images], batch.seconds) for batch in batches], sent

    def _seen(self, item: SourceItem) -> ImageState:
        if "a.test" not in item.uri or not (self.always or self.now == 0.0):
            return _written(item)
        self.refusals += 1
        return Deferred(item, "a.test", 40.0, "a.test: 429 Too Many Requests, asks to wait 40 s")


def _urls(count: int) -> Iterator[SourceItem | ListingFailure]:
    for number in range(count):
        url = f"https://{'ab'[number % 2]}.test/{number}.jpg"
        yield SourceItem(url, "list:", UrlLocator(url))


@pytest.mark.parametrize("is_empty", [True, False])
def test_images_of_busy_hosts_come_last_and_complete(monkeypatch: pytest.MonkeyPatch, is_empty: bool) -> None:
    executor = BusyHostExecutor()
    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", executor.sleep)
    outcomes = _run(executor, _urls(5000), is_empty=is_empty, deferred=executor.deferred())
    assert sorted(outcome.item.uri for outcome in outcomes) == sorted(item.uri for item in _urls(5000))
    assert {outcome.kind for outcome in outcomes} == {"written"}
    assert all("b.test" in outcome.item.uri for outcome in outcomes[:2500])
    assert executor.now == pytest.approx(40.0)
    assert executor.refusals < 300  # those that were under way before it was known


def test_too_many_deferred_images_stop_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = BusyHostExecutor()
    monkeypatch.setattr("stair_es.ingest.deferred.MAX_DEFERRED_IMAGES", 100)
    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", executor.sleep)
    listed, at_rest = 0, 0

    def admit(found: SourceItem | ListingFailure) -> SourceItem | None:
        nonlocal listed
        listed += 1
        return found if isinstance(found, SourceItem) else None

    with PrefetchQueue(_urls(5000), max_items=100_000) as queue:
        queue.wait_for_items(5000, 60.0)
        scheduler, seen = (
            StageScheduler(
                executor, AdaptiveThrottle(BulkPolicy()), is_empty=True, accept_listed=admit, deferred=executor.deferred()
            ),
            0,
        )
        for batch in scheduler.run(queue):
            seen += len(batch.get_outcomes())
            if executor.now == 0.0 and not batch.images:
                at_rest = listed
    assert 100 < at_rest < 2000
    assert seen == 5000


def test_images_of_failed_hosts_delay_no_others() -> None:
    deferred = DeferredImages(0.5, lambda: 1.0)
    for found in islice(_urls(100), 0, 2 * MAX_REFUSALS, 2):
        assert isinstance(found, SourceItem)
        deferred.observe_result(Pending(found), Deferred(found, "a.test", 40.0, "a.test: 429 Too Many Requests"))
    gone = (found for found in _urls(20_000) if "a.test" in found.uri)
    with PrefetchQueue(chain(_urls(200), gone), max_items=100_000) as queue:
        queue.wait_for_items(100_000, 60.0)
        scheduler = StageScheduler(
            FakeExecutor(), AdaptiveThrottle(BulkPolicy()), is_empty=True, accept_listed=_only_items, deferred=deferred
        )
        kinds = [[outcome.kind for outcome in batch.get_outcomes()] for batch in scheduler.run(queue)]
    in_order = list(chain.from_iterable(kinds))
    assert (in_order.count("written"), in_order.count("failed")) == (100, 10_100)
    assert max(map(len, kinds)) < 2 * CHECK_IMAGES
    assert in_order.index("written") < 5_000


def test_deferred_images_count_as_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneHost(BusyHostExecutor):
        def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
            if stage == "prepare":
                queued_bytes.append(scheduler._queued.size)
            return super().submit(stage, *inputs, encoder=encoder)

    executor, queued_bytes = OneHost(), list[int]()
    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", executor.sleep)
    with PrefetchQueue(_urls(1000), max_items=100_000) as queue:
        scheduler = StageScheduler(
            executor, AdaptiveThrottle(BulkPolicy()), is_empty=True, accept_listed=_only_items, deferred=executor.deferred()
        )
        assert sum(len(batch.get_outcomes()) for batch in scheduler.run(queue)) == 1000
    assert (min(queued_bytes), scheduler._queued.size) == (0, 0)


def test_endless_retry_after_fails_images_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = BusyHostExecutor()
    executor.always = True
    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", executor.sleep)
    outcomes = _run(executor, _urls(5000), deferred=executor.deferred())
    assert sorted(outcome.item.uri for outcome in outcomes) == sorted(item.uri for item in _urls(5000))
    assert {(outcome.kind, outcome.item.uri[8]) for outcome in outcomes} == {("failed", "a"), ("written", "b")}
    assert executor.now == pytest.approx(600.0)
