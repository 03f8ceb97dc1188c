"""The scheduler of stages against executors that finish in a random order: no image lost or doubled, few in flight."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any, TypeAlias

import pytest
from support.corpora.ingest_sources import accept_items
from support.errors import expect_error

from stair_es.cluster.bulk.throttle import AdaptiveThrottle, BulkPolicy
from stair_es.errors import ClusterError, SourceError
from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import MAX_REFUSALS, DeferredImages
from stair_es.ingest.executors.base import Stage, StageTask, WorkerDied
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import MAX_TAKES, TAKEN_IMAGES, Intake
from stair_es.ingest.stage_scheduler import StageScheduler
from stair_es.ingest.state import Batch, Deferred, ImageState, Outcome, Pending, get_image_item
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import InlineBytes
from stair_es.store import BulkRequestStats

Found: TypeAlias = "SourceItem | ListingFailure"


@dataclass
class FakeExecutor:
    """Tasks finish when they are waited for, in a random order."""

    encoders: int = 2
    workers: int = 2
    batch_images: int = 4
    fatal_images: frozenset[str] = frozenset()
    """Images that kill their worker."""
    unchanged: frozenset[str] = frozenset()
    failing_writes: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    tasks: dict[int, tuple[str, list[Batch]]] = field(default_factory=dict)
    images_in_flight: int = 0
    max_images_in_flight: int = 0
    encoding: dict[int, int] = field(default_factory=dict)
    max_encoder_batches: int = 0

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        batches = [value for value in inputs if isinstance(value, Batch)]
        if stage == "write":
            inputs = inputs[1:]  # without the bytes of a request
        batches += [batch for task in inputs if isinstance(task, int) for batch in self.tasks[task][1]]
        number = len(self.tasks)
        self.tasks[number] = (stage, batches)
        if stage == "prepare":
            self.images_in_flight += len(batches[0].images)
            self.max_images_in_flight = max(self.max_images_in_flight, self.images_in_flight)
        elif stage == "encode":
            self.encoding[number] = encoder
            loads = [list(self.encoding.values()).count(i) for i in range(self.encoders)]
            self.max_encoder_batches = max(self.max_encoder_batches, *loads)
        return number

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        done = self.random.sample(sorted(task for task in tasks if isinstance(task, int)), k=1)
        for task in done:
            self.encoding.pop(task, None)
        return list(done)

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        assert isinstance(task, int)
        return self._check_batch(task) if self.tasks[task][0] == "check" else self._write_batches(task)

    def _check_batch(self, task: int) -> Batch:
        [batch] = self.tasks[task][1]
        items = [get_image_item(state) for state in batch.images]
        return Batch([Outcome(i, "unchanged", "check", id=i.uri) if i.uri in self.unchanged else Pending(i) for i in items])

    def _write_batches(self, task: int) -> tuple[list[Batch], list[BulkRequestStats]]:
        batches = self.tasks[task][1]
        items = [get_image_item(state) for batch in batches for state in batch.images]
        self.images_in_flight -= len(items)
        if self.fatal_images & {item.uri for item in items}:
            raise WorkerDied("signal 11")
        if self.failing_writes:
            raise ClusterError("gone")
        done = [Batch([self._write_item(get_image_item(state)) for state in b.images], {"encode": 0.1}) for b in batches]
        return done, [BulkRequestStats(1000 * len(items), len(items), 0.01, busy=False)]

    def _write_item(self, item: SourceItem) -> ImageState:
        return Outcome(item, "written", "write", id=item.uri)


class BusyHostExecutor(FakeExecutor):
    """Refuses each image of a.test at first, whose host asks to wait; the clock moves when the scheduler sleeps."""

    now = 0.0
    refusals = 0
    always_refuses = False

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def create_deferred_images(self) -> DeferredImages:
        return DeferredImages(600.0, lambda: self.now)

    def _write_item(self, item: SourceItem) -> ImageState:
        if "a.test" not in item.uri or not (self.always_refuses or self.now == 0.0):
            return super()._write_item(item)
        self.refusals += 1
        return Deferred(item, "a.test", 40.0, "a.test: 429 Too Many Requests, asks to wait 40 s")


@pytest.fixture
def busy_executor(monkeypatch: pytest.MonkeyPatch) -> BusyHostExecutor:
    executor = BusyHostExecutor()
    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", executor.sleep)
    return executor


def yield_items(count: int) -> Iterator[Found]:
    for i in range(count):
        yield SourceItem(f"mem:{i}", "mem:", InlineBytes(b""))


def yield_urls(count: int) -> Iterator[Found]:
    """Yield URLs of a.test and b.test in turn."""
    for number in range(count):
        url = f"https://{'ab'[number % 2]}.test/{number}.jpg"
        yield SourceItem(url, "list:", UrlLocator(url))


def create_scheduler(
    executor: FakeExecutor,
    *,
    is_empty: bool = True,
    accept_listed: Callable[[Sequence[Found]], list[SourceItem]] = accept_items,
    deferred: DeferredImages | None = None,
) -> StageScheduler:
    if deferred is None:
        deferred = executor.create_deferred_images() if isinstance(executor, BusyHostExecutor) else DeferredImages()
    return StageScheduler(
        executor, AdaptiveThrottle(BulkPolicy()), Intake(accept_listed, deferred, BulkStats()), is_empty=is_empty
    )


def iterate_batches(scheduler: StageScheduler, items: Iterator[Found]) -> Iterator[Batch]:
    """Run the scheduler on items that are all listed before it starts."""
    with PrefetchQueue(items, max_items=100_000) as queue:
        queue.wait_for_items(100_000)
        yield from scheduler.run(queue)


def run_scheduler(
    executor: FakeExecutor,
    items: Iterator[Found],
    *,
    is_empty: bool = True,
    accept_listed: Callable[[Sequence[Found]], list[SourceItem]] = accept_items,
) -> list[Outcome]:
    batches = iterate_batches(create_scheduler(executor, is_empty=is_empty, accept_listed=accept_listed), items)
    return [outcome for batch in batches for outcome in batch.get_outcomes()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1000])
def test_every_image_comes_out_once(seed: int, count: int) -> None:
    outcomes = run_scheduler(FakeExecutor(random=random.Random(seed)), yield_items(count))
    assert sorted(o.item.uri for o in outcomes) == sorted(f"mem:{i}" for i in range(count))


def test_unchanged_images_end_after_the_check() -> None:
    executor = FakeExecutor(unchanged=frozenset(f"mem:{i}" for i in range(0, 600, 2)))
    outcomes = run_scheduler(executor, yield_items(600), is_empty=False)
    assert sorted(o.item.uri for o in outcomes if o.kind == "unchanged") == sorted(executor.unchanged)
    assert len(outcomes) == 600
    prepared = [len(b.images) for stage, batches in executor.tasks.values() if stage == "prepare" for b in batches]
    assert sum(prepared) == 300
    assert sum(size < executor.batch_images for size in prepared) <= 2  # full batches, though half of each check falls away


def test_encoders_have_at_most_two_batches() -> None:
    executor = FakeExecutor()
    run_scheduler(executor, yield_items(20_000))
    assert executor.max_encoder_batches == 2
    assert executor.max_images_in_flight < 6_000


def test_few_images_with_bytes_wait_for_a_slow_cluster() -> None:
    class SlowWrites(FakeExecutor):
        def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
            quick = [task for task in tasks if isinstance(task, int) and self.tasks[task][0] != "write"]
            return super().wait_any(quick or tasks, timeout_s)

    large = InlineBytes(bytes(1 << 20))
    executor = SlowWrites()
    assert len(run_scheduler(executor, (SourceItem(f"mem:{i}", "mem:", large) for i in range(1000)))) == 1000
    assert executor.max_images_in_flight < 400


def test_only_the_image_that_kills_its_worker_fails() -> None:
    executor = FakeExecutor(fatal_images=frozenset({"mem:17", "mem:40"}))
    outcomes = run_scheduler(executor, yield_items(100))
    assert {o.item.uri: o.kind for o in outcomes} == {f"mem:{i}": "failed" if i in (17, 40) else "written" for i in range(100)}
    assert len(outcomes) == 100
    assert all("signal 11" in o.reason for o in outcomes if o.kind == "failed")


def test_interrupted_sources_fail_the_run_after_their_items() -> None:
    def yield_then_fail() -> Iterator[Found]:
        yield from yield_items(10)
        raise SourceError("the store went away", code="listing-failed")

    outcomes: list[Outcome] = []
    with expect_error("listing-failed", SourceError):
        for batch in iterate_batches(create_scheduler(FakeExecutor()), yield_then_fail()):
            outcomes += batch.get_outcomes()
    assert len(outcomes) == 10


def test_duplicates_delay_no_others() -> None:
    class WatchingExecutor(FakeExecutor):
        def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
            listed_at_waits.append(listed)
            return super().wait_any(tasks, timeout_s)

    listed, listed_at_waits, uris = 0, [0], set[str]()

    def accept_first(found: Sequence[Found]) -> list[SourceItem]:
        nonlocal listed
        listed += len(found)
        first = {item.uri: item for item in accept_items(found) if item.uri not in uris}
        uris.update(first)
        return list(first.values())

    items = chain.from_iterable(yield_items(100) for _ in range(201))
    assert len(run_scheduler(WatchingExecutor(), items, accept_listed=accept_first)) == 100
    assert listed == 20_100
    assert max(after - before for before, after in pairwise(listed_at_waits)) <= MAX_TAKES * TAKEN_IMAGES


def test_a_failed_write_fails_the_run() -> None:
    with pytest.raises(ClusterError, match="gone"):
        run_scheduler(FakeExecutor(failing_writes=1), yield_items(10))


@pytest.mark.parametrize("is_empty", [True, False])
def test_images_of_busy_hosts_come_last_and_complete(busy_executor: BusyHostExecutor, is_empty: bool) -> None:
    outcomes = run_scheduler(busy_executor, yield_urls(5000), is_empty=is_empty)
    assert sorted(outcome.item.uri for outcome in outcomes) == sorted(item.uri for item in yield_urls(5000))
    assert {outcome.kind for outcome in outcomes} == {"written"}
    assert all("b.test" in outcome.item.uri for outcome in outcomes[:2500])
    assert busy_executor.now == pytest.approx(40.0)
    assert busy_executor.refusals < 300  # those that were in flight before it was known


def test_too_many_deferred_images_stop_the_listing(busy_executor: BusyHostExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.ingest.deferred.MAX_DEFERRED_IMAGES", 100)
    listed, listed_before_sleep, outcomes = 0, 0, 0

    def count_listed(found: Sequence[Found]) -> list[SourceItem]:
        nonlocal listed
        listed += len(found)
        return accept_items(found)

    for batch in iterate_batches(create_scheduler(busy_executor, accept_listed=count_listed), yield_urls(5000)):
        outcomes += len(batch.get_outcomes())
        if busy_executor.now == 0.0 and not batch.images:
            listed_before_sleep = listed
    assert 100 < listed_before_sleep < 2000
    assert outcomes == 5000


def test_images_of_failed_hosts_delay_no_others() -> None:
    deferred = DeferredImages(0.5, lambda: 1.0)
    for found in islice(yield_urls(100), 0, 2 * MAX_REFUSALS, 2):
        assert isinstance(found, SourceItem)
        deferred.observe_result(Pending(found), Deferred(found, "a.test", 40.0, "a.test: 429 Too Many Requests"))
    of_failed_host = (found for found in yield_urls(20_000) if "a.test" in found.uri)
    batches = iterate_batches(create_scheduler(FakeExecutor(), deferred=deferred), chain(yield_urls(200), of_failed_host))
    kinds = [[outcome.kind for outcome in batch.get_outcomes()] for batch in batches]
    in_order = list(chain.from_iterable(kinds))
    assert (in_order.count("written"), in_order.count("failed")) == (100, 10_100)
    assert max(map(len, kinds)) < 2 * TAKEN_IMAGES
    assert in_order.index("written") < 5_000


def test_deferred_images_count_as_pending(busy_executor: BusyHostExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, queued_bytes = busy_executor.submit, list[int]()

    def record_queued_bytes(stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        if stage == "prepare":
            queued_bytes.append(scheduler._queued.size)
        return submit(stage, *inputs, encoder=encoder)

    monkeypatch.setattr(busy_executor, "submit", record_queued_bytes)
    scheduler = create_scheduler(busy_executor)
    with PrefetchQueue(yield_urls(1000), max_items=100_000) as queue:
        assert sum(len(batch.get_outcomes()) for batch in scheduler.run(queue)) == 1000
    assert (min(queued_bytes), scheduler._queued.size) == (0, 0)


def test_endless_retry_after_fails_images_in_bounded_time(busy_executor: BusyHostExecutor) -> None:
    busy_executor.always_refuses = True
    outcomes = run_scheduler(busy_executor, yield_urls(5000))
    assert sorted(outcome.item.uri for outcome in outcomes) == sorted(item.uri for item in yield_urls(5000))
    assert {(outcome.kind, outcome.item.uri[8]) for outcome in outcomes} == {("failed", "a"), ("written", "b")}
    assert busy_executor.now == pytest.approx(600.0)
