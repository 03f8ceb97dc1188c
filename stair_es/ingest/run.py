"""The ingest pipeline: list the sources, open the sink, run the stages, account for each image."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from stair_es.cluster.connect import Connection
from stair_es.cluster.pace import Pace
from stair_es.errors import IngestError, StairError
from stair_es.ingest.ahead import Ahead
from stair_es.ingest.batch import Batch, Outcome, bytes_of, now
from stair_es.ingest.dead_letters import DeadLetters, default_path
from stair_es.ingest.deferred import DeferredImages
from stair_es.ingest.lanes import Lanes
from stair_es.ingest.manifest import Manifest
from stair_es.ingest.options import PEEK_S, RAY_FROM_IMAGES, IngestOptions, choose_runner, job_of, plan, sink_kind
from stair_es.ingest.pump import Pump
from stair_es.ingest.report import Report
from stair_es.ingest.resync import remove_gone
from stair_es.ingest.run_accounting import Books
from stair_es.ingest.run_local import local_lanes
from stair_es.ingest.run_ray import ray_lanes, start_ray
from stair_es.ingest.sink import Completion, Coverage, Say, Session
from stair_es.ingest.stages import Job, describe_losses
from stair_es.ingest.streams import Streams
from stair_es.ray_session import mask_address
from stair_es.sources.item import Item, Source, Unlisted

_LIST_AHEAD = 20_000
"""Maximum number of listed images that wait for the stages."""
_LIST_AHEAD_BYTES = 256 * 1024 * 1024
"""Maximum total size of listed images: fields, long URLs, and bytes of streams that can't be read twice."""


Progress: TypeAlias = Callable[[Books], None]


def ingest(
    sources: Sequence[Source],
    connection: Connection | None,
    options: IngestOptions,
    *,
    say: Say,
    progress: Progress,
    books: Callable[[Books], None] = lambda _: None,
    through: Callable[[Batch], None] = lambda _: None,
) -> Report:
    """Ingest the images of `sources` into the index behind `options.alias`.

    Args:
        sources: Sources as opened by `sources.registry.open_source`.
        connection: The cluster, for a sink that writes into one.
        options: Options of the ingest.
        say: Receives messages for the user.
        progress: Called with the accounting after each finished batch.
        books: Called once with the accounting at the start, so that the caller has the counts of a failed run.
        through: Called with each finished batch.

    Raises:
        StairError: If the run failed as a whole. What was written stays, and the next run resumes from there.
    """
    with ExitStack() as stack:
        manifest = stack.enter_context(Manifest(keep_uris=options.document.id == "content"))
        kept = Books(manifest, DeadLetters(options.dead_letters or default_path(options.alias), options.alias))
        books(kept)
        kept.dead_letters.check()
        began, streams = now(), Streams(sources)
        ahead = stack.enter_context(Ahead(streams, _LIST_AHEAD, bytes_of, _LIST_AHEAD_BYTES))
        ready, over = ahead.wait_for(RAY_FROM_IMAGES if options.runner == "auto" else 1, PEEK_S)
        if over and not ready:
            ahead.check()
            raise _nothing_found(streams)
        runner, why = choose_runner(options, ready, all_listed=over)
        say(f"runner: {runner} ({why})")
        if runner == "local" and options.ray.address:
            say(f"the Ray cluster at {mask_address(options.ray.address)} is not used")
        if runner == "ray":
            stack.enter_context(start_ray(options.ray))  # before an index is created: it may fail
        session = sink_kind(options).open(plan(options, connection, began), say)
        say(f"{'new index' if session.fresh else 'index'}: {session.index} for {options.alias} on {session.label}")
        kept.dead_letters.prepare()
        return _Run(streams, options, session, kept, say, progress, through).work(runner, ahead)


@dataclass
class _Run:
    streams: Streams
    options: IngestOptions
    session: Session
    books: Books
    say: Say
    progress: Progress
    through: Callable[[Batch], None]
    losses: Counter[str] = field(default_factory=Counter)
    """Number of images by kind of loss; see `describe_loss`."""

    def work(self, runner: Literal["local", "ray"], ahead: Ahead[Item | Unlisted]) -> Report:
        start = time.perf_counter()
        job = job_of(self.options, self.session)
        if job.policy:
            self.say(f"token policy: {job.policy.label}")
        policy = self.options.bulk
        try:
            with self.session.load(), _lanes(runner, job, self.options) as lanes:
                deferred = DeferredImages(job.reading.urls.patience_s)
                pump = Pump(lanes, Pace(policy), job.fresh, self._admit, self.books.traffic, deferred)
                self._pump(pump, ahead)
            for sentence in describe_losses(self.losses, "image"):
                self.say(sentence)
            self.books.removed = self._remove_gone() if self.options.resync else 0
        except StairError:
            self.say(self.books.describe_stop("images"))
            raise
        finally:
            self.books.dead_letters.close()
        self.books.close()
        coverage = Coverage(sources=self.streams.whole, fate=self.books.manifest.fate)
        return self._report(job, runner, self.session.complete(coverage), time.perf_counter() - start)

    def _remove_gone(self) -> int:
        by_content = self.options.document.id == "content"
        return remove_gone(self.session, self.books.manifest, self.streams, self.say, by_content=by_content)

    def _pump(self, pump: Pump, ahead: Ahead[Item | Unlisted]) -> None:
        told_busy = told_listed = False
        for batch in pump.run(ahead):
            self.books.enter(batch)
            self.losses.update(outcome.reason for outcome in batch.outcomes() if outcome.kind == "written" and outcome.reason)
            self.books.listing_done, self.books.encoder_idle = ahead.exhausted, pump.clock.idle_share
            self.books.waiting = pump.deferred.describe()
            self.through(batch)
            self.progress(self.books)
            if self.books.traffic.busy and not told_busy:
                told_busy = True
                self.say("the cluster is busy or unreachable at times: requests are retried, more slowly")
            if ahead.exhausted and not told_listed:
                told_listed = True
                self._say_listed()
        if not told_listed:
            self._say_listed()

    def _say_listed(self) -> None:
        ignored = sum(self.streams.ignored.values())
        self.say(f"{self.books.listed:,} images found" + (f", {ignored:,} other files ignored" if ignored else ""))
        if left_out := self.streams.describe_left_out():
            self.say(left_out)
        if self.streams.dropped:
            names = ", ".join(sorted(self.streams.dropped))
            self.say(
                f"columns left out, since their names are reserved or can't be field names: {names}."
                " To keep one, give its field another name: --map FIELD=COLUMN"
            )

    def _admit(self, found: Item | Unlisted) -> Item | None:
        """Return the image if it is new to the run. A listing error becomes a failed image immediately."""
        if not self.books.list(found.uri, found.source):
            return None
        if isinstance(found, Item):
            return found
        self.books.enter_outcomes([Outcome(found.as_item(), "dead", "list", found.reason)])
        return None

    def _report(self, job: Job, runner: str, completion: Completion, seconds: float) -> Report:
        counts = self.books.counts()
        return Report(
            seen=counts["seen"],
            written=counts["written"],
            unchanged=counts["unchanged"],
            dead=counts["dead"],
            removed=self.books.removed,
            documents=self.books.manifest.documents(),
            seconds=seconds,
            stage_seconds=dict(self.books.stage_seconds),
            encoder_idle=self.books.encoder_idle,
            bulk_requests=self.books.traffic.requests,
            bulk_busy=self.books.traffic.busy,
            index=self.session.index,
            alias=self.options.alias,
            swapped=completion.swapped,
            unfinished=completion.unfinished,
            pruned=completion.pruned,
            model=job.model_id,
            runner=runner,
            dead_letters=str(self.books.dead_letters.path) if self.books.dead_letters.count else None,
            dead_reasons=self.books.dead_reasons(),
            words_index=completion.words_index,
        )


def _lanes(runner: Literal["local", "ray"], job: Job, options: IngestOptions) -> AbstractContextManager[Lanes]:
    if runner == "local":
        return local_lanes(job, options.batch_images, options.bulk.max_concurrency)
    return ray_lanes(job, options.ray, options.batch_images)


def _nothing_found(streams: Streams) -> IngestError:
    common = sorted(streams.ignored.items(), key=lambda pair: -pair[1])[:5]
    others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in common)
    return IngestError(
        f"no images in {', '.join(streams.names)}"
        + (f" (other files: {others})" if others else " (nothing there)")
        + (f"; {left_out}" if (left_out := streams.describe_left_out()) else ""),
        "Folders and globs yield files with image suffixes (.jpg .png .webp .gif .tif .avif ...), tables and lists rows that name"
        " an image (--image-column). A folder of tables requires --format, a saved data set hf-dataset:///FOLDER.",
    )
