"""The scheduler of portions against workers that die, freeze, join late and refuse: no image lost or doubled, few in flight."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from support.corpora.ingest_sources import accept_items
from support.errors import expect_error

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.errors import ClusterError, IngestError, SourceError, StairError
from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import DeferredImages
from stair_es.ingest.executors.base import PortionDeferral, PortionOutcome, PortionResult, StageTask, WorkerDied
from stair_es.ingest.portion_scheduler import MAX_PORTION_IMAGES, PortionScheduler
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import BACKLOG_BYTES, Intake
from stair_es.ingest.state import Outcome
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import InlineBytes
from stair_es.store import BulkRequestStats


@dataclass
class FakePool:
    """Workers that finish a random portion whenever they are waited for; a second passes each time."""

    workers: int = 3
    encoders: int = 1
    batch_images: int = 4
    fatal_images: frozenset[str] = frozenset()
    """Images that kill their worker, with everything that it has."""
    frozen: set[int] = field(default_factory=set)
    """Workers that don't answer."""
    late: dict[int, int] = field(default_factory=dict)
    """Worker -> when it becomes ready, in seconds."""
    random_deaths: float = 0.0
    error: StairError | None = None
    now_s: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    running: dict[int, tuple[int, list[SourceItem]]] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    """Tasks whose worker died."""
    lost_images: set[str] = field(default_factory=set)
    restarting: set[int] = field(default_factory=set)
    sent: list[tuple[int, int, int]] = field(default_factory=list)
    """Worker, number of images and of bulk requests of each portion, in the order in which they were sent."""
    max_bytes: int = 0

    def list_ready(self) -> Sequence[int]:
        return [
            worker for worker in range(self.workers) if worker not in self.restarting and self.late.get(worker, 0) <= self.now_s
        ]

    def submit(self, worker: int, items: Sequence[SourceItem], writers: int) -> StageTask:
        assert worker in self.list_ready()
        task = len(self.sent)
        self.sent.append((worker, len(items), writers))
        self.running[task] = (worker, list(items))
        assert Counter(worker for worker, _ in self.running.values())[worker] <= 2
        held = [item.locator for _, items in self.running.values() for item in items]
        self.max_bytes = max(self.max_bytes, sum(len(locator.data) for locator in held if isinstance(locator, InlineBytes)))
        return task

    def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
        self.now_s += 1.0
        self.restarting.clear()
        answering = [task for task, (worker, _) in self.running.items() if worker not in self.frozen]
        if not answering:
            return []
        task = self.random.choice(answering)
        worker, items = self.running[task]
        if self.random.random() < self.random_deaths or self.fatal_images & {item.uri for item in items}:
            died = [task for task, (other, _) in self.running.items() if other == worker]
            self.dead.update(died)
            self.lost_images.update(item.uri for task in died for item in self.running[task][1])
            self.restarting.add(worker)
            return died
        return [task]

    def get_result(self, task: StageTask) -> PortionResult:
        assert isinstance(task, int)
        _, items = self.running.pop(task)
        if task in self.dead:
            raise WorkerDied("signal 9")
        if self.error:
            raise self.error
        states = [self._finish_item(item) for item in items]
        return PortionResult(states, {"encode": 0.1}, {"encode": 1}, [BulkRequestStats(1000, len(items), 0.01, busy=False)])

    def _finish_item(self, item: SourceItem) -> PortionOutcome | PortionDeferral:
        return PortionOutcome("written", "write", "", item.uri)

    def describe_worker(self, worker: int) -> str:
        return f"host {worker}"


class BusyHostPool(FakePool):
    """Refuses each image of a.test in the first seconds, whose host asks to wait."""

    def _finish_item(self, item: SourceItem) -> PortionOutcome | PortionDeferral:
        if "a.test" in item.uri and self.now_s < 20:
            return PortionDeferral("a.test", 40.0, "a.test: 429 Too Many Requests", was_requested=True)
        return super()._finish_item(item)


def yield_items(count: int, size_bytes: int = 0) -> Iterator[SourceItem | ListingFailure]:
    for i in range(count):
        yield SourceItem(f"mem:{i}", "mem:", InlineBytes(bytes(size_bytes)))


def run_scheduler(
    pool: FakePool, items: Iterator[SourceItem | ListingFailure], deferred: DeferredImages | None = None
) -> list[Outcome]:
    intake = Intake(accept_items, DeferredImages() if deferred is None else deferred, BulkStats())
    scheduler = PortionScheduler(pool, intake, BulkPolicy(), clock=lambda: pool.now_s)
    outcomes = list[Outcome]()
    with PrefetchQueue(items, max_items=100_000) as queue:
        queue.wait_for_items(100_000)
        for batch in scheduler.run(queue):
            assert len(batch.get_outcomes()) == len(batch.images)
            outcomes += batch.get_outcomes()
    return outcomes


def count_kinds(outcomes: Sequence[Outcome]) -> dict[str, int]:
    assert len({outcome.item.uri for outcome in outcomes}) == len(outcomes)
    return Counter(outcome.kind for outcome in outcomes)


@pytest.mark.parametrize("count", [0, 1, 5, 3000])
@pytest.mark.parametrize("workers", [1, 3, 64])
def test_every_image_comes_out_once(workers: int, count: int) -> None:
    pool = FakePool(workers)
    assert count_kinds(run_scheduler(pool, yield_items(count))) == ({"written": count} if count else {})
    assert all(writers == max(1, 4 // workers) for _, _, writers in pool.sent)


def test_portions_grow_with_the_speed_and_end_small() -> None:
    class FastPool(FakePool):
        def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
            done = super().wait_any(timeout_s)
            self.now_s -= 0.99
            return done

    pool = FastPool(2)
    run_scheduler(pool, yield_items(20_000))
    sizes = [size for _, size, _ in pool.sent]
    assert (sizes[0], max(sizes)) == (4, MAX_PORTION_IMAGES)
    assert sizes[-1] < MAX_PORTION_IMAGES / 2


def test_a_worker_with_eight_gpus_gets_no_larger_portions() -> None:
    pool = FakePool(2, encoders=16, batch_images=256)
    run_scheduler(pool, yield_items(20_000))
    assert max(size for _, size, _ in pool.sent) == MAX_PORTION_IMAGES


def test_answers_that_come_together_dont_make_portions_large() -> None:
    class SteadyPool(FakePool):
        def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
            self.now_s += sum(len(items) for _, items in self.running.values()) / 16
            return list(self.running)

    pool = SteadyPool(1)
    run_scheduler(pool, yield_items(2000))
    assert max(size for _, size, _ in pool.sent) == 32  # of two, in the four seconds that an answer should take


def test_images_that_have_their_bytes_are_few_at_a_time() -> None:
    pool = FakePool(8, batch_images=64)
    assert count_kinds(run_scheduler(pool, yield_items(1000, 1 << 20))) == {"written": 1000}
    assert pool.max_bytes <= BACKLOG_BYTES
    assert max(size for _, size, _ in pool.sent) <= 8
    assert {worker for worker, _, _ in pool.sent[:8]} == set(range(8))


def test_images_of_a_lost_worker_are_not_left_for_the_end() -> None:
    class LosingPool(FakePool):
        def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
            self.random_deaths = 1.0 if len(self.sent) == 20 else 0.0
            return super().wait_any(timeout_s)

    pool = LosingPool(4)
    outcomes = run_scheduler(pool, yield_items(5000))
    assert count_kinds(outcomes) == {"written": 5000}
    assert pool.dead
    lost = [place for place, outcome in enumerate(outcomes) if outcome.item.uri in pool.lost_images]
    assert max(lost) < 2500


@pytest.mark.parametrize("silence_s", [50, 100_000])
def test_a_frozen_worker_hides_no_image_that_kills(silence_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.ingest.portion_scheduler._SILENCE_S", silence_s)
    pool = FakePool(3, frozen={0}, fatal_images=frozenset({"mem:1"}))
    assert count_kinds(run_scheduler(pool, yield_items(4))) == {"written": 3, "failed": 1}
    assert pool.now_s < 1000


def test_a_portion_is_with_three_workers_at_most() -> None:
    class HangingPool(FakePool):
        def submit(self, worker: int, items: Sequence[SourceItem], writers: int) -> StageTask:
            if any(item.uri == "mem:1" for item in items):
                self.frozen.add(worker)
            return super().submit(worker, items, writers)

    pool = HangingPool(40, batch_images=1)
    assert count_kinds(run_scheduler(pool, yield_items(2))) == {"written": 1, "failed": 1}
    assert Counter(size for _, size, _ in pool.sent)[2] <= 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 4])
def test_only_the_image_that_kills_its_worker_fails(workers: int, seed: int) -> None:
    pool = FakePool(workers, fatal_images=frozenset({"mem:17", "mem:400"}), random=random.Random(seed))
    outcomes = run_scheduler(pool, yield_items(500))
    assert count_kinds(outcomes) == {"written": 498, "failed": 2}
    failed = {outcome.item.uri: outcome for outcome in outcomes if outcome.kind == "failed"}
    assert failed.keys() == pool.fatal_images
    assert all("signal 9" in outcome.reason and outcome.stage == "decode" for outcome in failed.values())


@pytest.mark.parametrize("seed", range(3))
def test_dying_workers_lose_nothing(seed: int) -> None:
    pool = FakePool(4, random_deaths=0.1, random=random.Random(seed))
    assert count_kinds(run_scheduler(pool, yield_items(1000))) == {"written": 1000}


@pytest.mark.parametrize("frozen", [{0}, {0, 2}])
def test_images_of_a_frozen_worker_go_elsewhere(frozen: set[int], caplog: pytest.LogCaptureFixture) -> None:
    pool = FakePool(3, frozen=frozen)
    assert count_kinds(run_scheduler(pool, yield_items(300))) == {"written": 300}
    assert pool.now_s > 60
    assert {pool.sent[task][0] for task in pool.running} == frozen
    assert all(f"host {worker}" in caplog.text for worker in frozen)


def test_an_answer_that_comes_late_counts_once() -> None:
    class ThawingPool(FakePool):
        def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
            if len(self.sent) > 20:
                self.frozen.clear()
            return super().wait_any(timeout_s)

    pool = ThawingPool(3, frozen={0}, late={1: 90, 2: 90})
    assert count_kinds(run_scheduler(pool, yield_items(2000))) == {"written": 2000}
    assert {worker for worker, _, _ in pool.sent[-10:]} == {0, 1, 2}


def test_late_workers_get_portions() -> None:
    pool = FakePool(3, late={0: 5, 1: 5, 2: 40})
    assert count_kinds(run_scheduler(pool, yield_items(3000))) == {"written": 3000}
    assert {worker for worker, _, _ in pool.sent} == {0, 1, 2}


def test_deferred_images_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = BusyHostPool(2)

    def pass_time(seconds: float) -> None:
        pool.now_s += seconds

    monkeypatch.setattr("stair_es.ingest.scheduler.time.sleep", pass_time)
    urls = (f"https://{'ab'[i % 2]}.test/{i}.jpg" for i in range(200))
    items = (SourceItem(url, "list:", UrlLocator(url)) for url in urls)
    outcomes = run_scheduler(pool, items, DeferredImages(600.0, lambda: pool.now_s))
    assert count_kinds(outcomes) == {"written": 200}
    assert pool.now_s >= 40
    assert all("b.test" in outcome.item.uri for outcome in outcomes[:50])


@pytest.mark.parametrize(
    ("error", "code"), [(ClusterError("gone", code="index-gone"), "index-gone"), (IngestError("none", code="no-more"), "no-more")]
)
def test_a_failed_stage_fails_the_run(error: StairError, code: str) -> None:
    with expect_error(code):
        run_scheduler(FakePool(error=error), yield_items(10))


def test_interrupted_sources_fail_the_run_after_their_items() -> None:
    def yield_then_fail() -> Iterator[SourceItem | ListingFailure]:
        yield from yield_items(10)
        raise SourceError("the store went away", code="listing-failed")

    pool = FakePool()
    with expect_error("listing-failed", SourceError):
        run_scheduler(pool, yield_then_fail())
    assert sum(size for _, size, _ in pool.sent) == 10
