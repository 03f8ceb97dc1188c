"""The ingest pipeline: list the sources, open the sink, run the stages, account for each image."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.client.connection import Connection
from stair_es.errors import IngestError, StairError
from stair_es.ingest.accounting.dead_letters import DeadLetters, default_dead_letters_path
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.deferred import DeferredImages
from stair_es.ingest.executors.base import StageExecutor
from stair_es.ingest.executors.ray import open_ray_executor, start_ray
from stair_es.ingest.executors.threads import open_thread_executor
from stair_es.ingest.options import (
    LISTING_WAIT_S,
    RAY_MIN_IMAGES,
    IngestOptions,
    build_sink_plan,
    build_worker_config,
    choose_runner,
    load_sink_kind,
)
from stair_es.ingest.prefetch import PrefetchQueue
from stair_es.ingest.resync import remove_stale_documents
from stair_es.ingest.scheduler import StageScheduler
from stair_es.ingest.sinks.base import RunCoverage, SinkResult, SinkSession
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.stages import WorkerConfig, describe_losses
from stair_es.ingest.state import Batch, Outcome, estimate_listed_bytes, get_timestamp
from stair_es.sources.base import ListingFailure, Source, SourceItem
from stair_es.system.ray_session import mask_ray_address

logger = logging.getLogger(__name__)

_LIST_AHEAD = 20_000
"""Maximum number of listed images that wait for the stages."""
_LIST_AHEAD_BYTES = 256 * 1024 * 1024
"""Maximum total size of listed images: fields, long URLs, and bytes of streams that can't be read twice."""


ProgressCallback: TypeAlias = Callable[[RunAccounting], None]


def run_ingest(
    sources: Sequence[Source],
    connection: Connection | None,
    options: IngestOptions,
    *,
    progress: ProgressCallback,
    on_start: Callable[[RunAccounting], None] = lambda _: None,
    on_batch: Callable[[Batch], None] = lambda _: None,
) -> IngestReport:
    """Ingest the images of `sources` into the index behind `options.alias`.

    Args:
        sources: Sources as opened by `sources.registry.open_source`.
        connection: The cluster, for a sink that writes into one.
        options: Options of the ingest.
        progress: Called with the accounting after each finished batch.
        on_start: Called once with the accounting at the start, so that the caller has the counts of a failed run.
        on_batch: Called with each finished batch.

    Raises:
        StairError: If the run failed as a whole. What was written stays, and the next run resumes from there.
    """
    with ExitStack() as stack:
        manifest = stack.enter_context(Manifest(keep_uris=options.document.id == "content"))
        kept = RunAccounting(
            manifest, DeadLetters(options.dead_letters or default_dead_letters_path(options.alias), options.alias)
        )
        on_start(kept)
        kept.dead_letters.check_writable()
        began, streams = get_timestamp(), SourceStream(sources)
        ahead = stack.enter_context(PrefetchQueue(streams, _LIST_AHEAD, estimate_listed_bytes, _LIST_AHEAD_BYTES))
        ready, over = ahead.wait_for_items(RAY_MIN_IMAGES if options.runner == "auto" else 1, LISTING_WAIT_S)
        if over and not ready:
            ahead.raise_error()
            raise _build_empty_error(streams)
        runner, why = choose_runner(options, ready, all_listed=over)
        logger.info("runner: %s (%s)", runner, why)
        if runner == "local" and options.ray.address:
            logger.warning("the Ray cluster at %s is not used", mask_ray_address(options.ray.address))
        if runner == "ray":
            stack.enter_context(start_ray(options.ray))  # before an index is created: it may fail
        session = load_sink_kind(options).open(build_sink_plan(options, connection, began))
        logger.info("%s: %s for %s on %s", "new index" if session.fresh else "index", session.index, options.alias, session.label)
        kept.dead_letters.prepare_file()
        return _IngestRun(streams, options, session, kept, progress, on_batch).run(runner, ahead)


@dataclass
class _IngestRun:
    streams: SourceStream
    options: IngestOptions
    session: SinkSession
    accounting: RunAccounting
    progress: ProgressCallback
    on_batch: Callable[[Batch], None]
    losses: Counter[str] = field(default_factory=Counter)
    """Number of images by kind of loss; see `describe_loss`."""

    def run(self, runner: Literal["local", "ray"], ahead: PrefetchQueue[SourceItem | ListingFailure]) -> IngestReport:
        start = time.perf_counter()
        job = build_worker_config(self.options, self.session)
        if job.policy:
            logger.info("token policy: %s", job.policy.label)
        policy = self.options.bulk
        try:
            with self.session.load(), _open_executor(runner, job, self.options) as lanes:
                deferred = DeferredImages(job.reading.url_policy.patience_s)
                pump = StageScheduler(
                    lanes, AdaptiveThrottle(policy), job.fresh, self._record_listed, self.accounting.bulk_stats, deferred
                )
                self._run_stages(pump, ahead)
            for sentence in describe_losses(self.losses, "image"):
                logger.info(sentence)
            self.accounting.removed = self._remove_stale_documents() if self.options.resync else 0
        except StairError:
            logger.info(self.accounting.describe_stop("images"))
            raise
        finally:
            self.accounting.dead_letters.close()
        self.accounting.close()
        coverage = RunCoverage(sources=self.streams.fully_listed, get_status=self.accounting.manifest.get_status)
        return self._build_report(job, runner, self.session.complete(coverage), time.perf_counter() - start)

    def _remove_stale_documents(self) -> int:
        by_content = self.options.document.id == "content"
        return remove_stale_documents(self.session, self.accounting.manifest, self.streams, by_content=by_content)

    def _run_stages(self, pump: StageScheduler, ahead: PrefetchQueue[SourceItem | ListingFailure]) -> None:
        told_busy = told_listed = False
        for batch in pump.run(ahead):
            self.accounting.record_batch(batch)
            self.losses.update(outcome.reason for outcome in batch.get_outcomes() if outcome.kind == "written" and outcome.reason)
            self.accounting.listing_done, self.accounting.encoder_idle = ahead.is_exhausted, pump.encoder_clock.idle_share
            self.accounting.waiting_message = pump.deferred.describe_waiting()
            self.on_batch(batch)
            self.progress(self.accounting)
            if self.accounting.bulk_stats.retried and not told_busy:
                told_busy = True
                logger.warning("the cluster is busy or unreachable at times: requests are retried, more slowly")
            if ahead.is_exhausted and not told_listed:
                told_listed = True
                self._report_listed()
        if not told_listed:
            self._report_listed()

    def _report_listed(self) -> None:
        ignored = sum(self.streams.ignored.values())
        others = f", {ignored:,} other files ignored" if ignored else ""
        logger.info("%s images found%s", f"{self.accounting.listed:,}", others)
        if left_out := self.streams.describe_left_out():
            logger.info(left_out)
        if self.streams.dropped_columns:
            names = ", ".join(sorted(self.streams.dropped_columns))
            logger.info(
                "columns left out, since their names are reserved or can't be field names: %s."
                " To keep one, give its field another name: --map FIELD=COLUMN",
                names,
            )

    def _record_listed(self, found: SourceItem | ListingFailure) -> SourceItem | None:
        """Return the image if it is new to the run. A listing error becomes a failed image immediately."""
        if not self.accounting.record_listed(found.uri, found.source):
            return None
        if isinstance(found, SourceItem):
            return found
        self.accounting.record_outcomes([Outcome(found.to_item(), "dead", "list", found.reason)])
        return None

    def _build_report(self, job: WorkerConfig, runner: str, completion: SinkResult, seconds: float) -> IngestReport:
        counts = self.accounting.get_counts()
        return IngestReport(
            seen=counts["seen"],
            written=counts["written"],
            unchanged=counts["unchanged"],
            dead=counts["dead"],
            removed=self.accounting.removed,
            documents=self.accounting.manifest.count_documents(),
            seconds=seconds,
            stage_seconds=dict(self.accounting.stage_seconds),
            encoder_idle=self.accounting.encoder_idle,
            bulk_requests=self.accounting.bulk_stats.requests,
            bulk_busy=self.accounting.bulk_stats.retried,
            index=self.session.index,
            alias=self.options.alias,
            swapped=completion.swapped,
            unfinished=completion.not_swapped_reason,
            pruned=completion.deleted_indices,
            model=job.model_id,
            runner=runner,
            dead_letters=str(self.accounting.dead_letters.path) if self.accounting.dead_letters.count else None,
            dead_reasons=self.accounting.get_failure_reasons(),
            words_index=completion.token_index,
        )


def _open_executor(
    runner: Literal["local", "ray"], job: WorkerConfig, options: IngestOptions
) -> AbstractContextManager[StageExecutor]:
    if runner == "local":
        return open_thread_executor(job, options.batch_images, options.bulk.max_concurrency)
    return open_ray_executor(job, options.ray, options.batch_images)


def _build_empty_error(streams: SourceStream) -> IngestError:
    common = sorted(streams.ignored.items(), key=lambda pair: -pair[1])[:5]
    others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in common)
    return IngestError(
        f"no images in {', '.join(streams.source_uris)}"
        + (f" (other files: {others})" if others else " (nothing there)")
        + (f"; {left_out}" if (left_out := streams.describe_left_out()) else ""),
        "Folders and globs yield files with image suffixes (.jpg .png .webp .gif .tif .avif ...), tables and lists rows that name"
        " an image (--image-column). A folder of tables requires --format, a saved data set hf-dataset:///FOLDER.",
    )
