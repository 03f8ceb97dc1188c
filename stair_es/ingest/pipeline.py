"""The ingest of images and texts: list the sources, open the sink, run the stages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from stair_es import plugins
from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.config.settings import resolve_settings
from stair_es.errors import IngestError, UsageError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.deferred import DeferredImages, HeldImages
from stair_es.ingest.executors.ray import RayWorkers, open_ray_workers
from stair_es.ingest.executors.threads import open_thread_executor
from stair_es.ingest.options import IngestOptions, choose_runner
from stair_es.ingest.portion_scheduler import PortionScheduler
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.resync import remove_stale_documents
from stair_es.ingest.run import IngestRun, RunProgressCallback, open_run_accounting
from stair_es.ingest.scheduler import ImageScheduler, Intake, ListedItems
from stair_es.ingest.sinks.base import SinkKind, SinkPlan, SinkSession
from stair_es.ingest.sinks.cluster_options import ClusterPlan, ClusterSinkOptions
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.stage_scheduler import StageScheduler
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Batch, estimate_listed_bytes
from stair_es.ingest.texts import EqualTexts
from stair_es.model import hub
from stair_es.model.registry import Model, locate_model, resolve_model
from stair_es.sources.base import Source
from stair_es.system.garbage import collect_garbage_rarely
from stair_es.system.ray_session import mask_ray_address

logger = logging.getLogger(__name__)

_MAX_LISTED_IMAGES = 20_000
"""Maximum number of listed images that wait for the stages."""
_MAX_LISTED_BYTES = 256 * 1024 * 1024
"""Maximum total size of listed images: fields, long URLs, and bytes of streams that can't be read twice."""


def run_ingest(
    sources: Sequence[Source],
    connection: Connection | None,
    options: IngestOptions,
    *,
    progress: RunProgressCallback,
    accounting: RunAccounting | None = None,
    on_batch: Callable[[Batch], None] = lambda _: None,
    model: Model | None = None,
) -> IngestReport:
    """Ingest the images, or the texts, of `sources` into the index that `options.alias` points to.

    Args:
        sources: Sources as opened by `sources.registry.open_source`; for texts, by `ingest.texts.open_text_source`.
        connection: The cluster, for a sink that writes into one.
        options: Options of the ingest; those of texts are `TextIngestOptions`.
        progress: Called with the accounting after each finished batch.
        accounting: The accounting of the run, from `open_run_accounting`: pass it to have the counts of a failed run.
        on_batch: Called with each finished batch.
        model: The model of the options, if it is resolved already.

    Raises:
        StairError: If the run failed as a whole. What was written stays, and the next run resumes from there.
    """
    with ExitStack() as stack:
        accounting = accounting or stack.enter_context(open_run_accounting(options))
        accounting.dead_letters.check_writable()
        if options.noun == "image":
            accounting.dead_letters.set_sources(sources, options.source)
        kind, model = load_sink_kind(options), model or resolve_ingest_model(options)
        plan = build_sink_plan(options, model, connection)
        before = kind.open_readonly(plan) if options.resync else None
        stream = SourceStream(sources, options.untyped_columns)
        opening = PrefetchQueue(stream, _MAX_LISTED_IMAGES, estimate_listed_bytes, _MAX_LISTED_BYTES)
        queue = stack.enter_context(opening)
        queue.wait_for_items()
        if queue.is_exhausted:
            queue.raise_error()
            raise _build_empty_error(stream, options)
        workers = _open_workers(options, stack)  # before an index is created: it may fail
        session = kind.open(plan)
        config = build_worker_config(options, model, session)
        run = IngestRun(
            options=options,
            stream=stream,
            session=session,
            accounting=accounting,
            model_id=config.model_id,
            runner="ray" if workers else "local",
            progress=progress,
            on_batch=on_batch,
        )
        scheduling = _schedule_portions(workers, config, options) if workers else _schedule_stages(config, model, options)
        batches = _run_scheduler(scheduling, config, accounting, queue)
        if before is None or before.index != session.index:  # everything in the index is newer than the listing
            return run.run(batches)
        by_content = options.document.id == "content-hash"
        return run.run(batches, partial(remove_stale_documents, before, accounting.manifest, stream, by_content=by_content))


def load_sink_kind(options: IngestOptions) -> SinkKind:
    """Load the sink kind that the options name or hold."""
    if isinstance(options.sink, SinkKind):
        return options.sink
    plugin = plugins.get_plugin("sinks", options.sink)
    if plugin is None:
        names = ", ".join(plugins.list_plugin_names("sinks"))
        raise UsageError(
            f"unknown sink {options.sink!r}", f"Known sinks: {names or 'none: reinstall stair-es'}.", code="unknown-sink"
        )
    kind: SinkKind = plugin.load(SinkKind)
    return kind


def check_ingest_model(options: IngestOptions) -> None:
    """Raise MissingExtra if the model is on the hub and its libraries aren't installed, before anything is started."""
    if _loads_model_here(options):
        locate_model(options.model.name).check_hub_libraries()


def resolve_ingest_model(options: IngestOptions) -> Model:
    """Resolve the model of an ingest."""
    return resolve_model(options.model, runs_here=_loads_model_here(options))


def _loads_model_here(options: IngestOptions) -> bool:
    """Return whether this process loads the model. On Ray the workers do, and they may have other libraries."""
    return options.runner != "ray" and options.ray.address is None


def build_sink_plan(options: IngestOptions, model: Model, connection: Connection | None) -> SinkPlan:
    """Build the plan for the sink of a run."""
    model.check_indexable()
    index_spec = IndexSpec(
        model_name=model.portable_name,
        model_id=model.card.model_id,
        fit=model.card.image_spec.fit,
        settings=options.settings,
    )
    plan = SinkPlan(
        alias=options.alias,
        digest=index_spec.digest,
        options=options.sink_options,
        policy=options.policy,
        connection=connection,
        include_forgotten=options.include_forgotten,
        resync=options.resync,
    )
    if not isinstance(options.sink_options, ClusterSinkOptions):
        return plan
    return ClusterPlan(
        **vars(plan),
        index_spec=index_spec,
        document=options.document,
        field_types=options.field_types,
        bulk=options.bulk,
        settings=options.model.settings,
    )


def build_worker_config(options: IngestOptions, model: Model, session: SinkSession) -> WorkerConfig:
    """Build the configuration of the workers."""
    return WorkerConfig(
        writer=session.writer,
        is_empty=session.is_empty,
        model=model.portable_spec,  # workers may have another working directory
        model_id=model.card.model_id,
        image_spec=model.card.image_spec,
        document=options.document,
        read_limits=replace(options.source.read_limits, defer=options.source.read_limits.url_policy.patience_s > 0),
        decode_limits=options.decode_limits,
        is_text=options.noun == "text",
        enrichers=options.enrichers,
        enricher_versions=options.enricher_versions,
        policy=session.choose_policy(options.policy),
        labels_policy=session.labels_policy,
        forgotten=session.forgotten,
        bulk=options.bulk,
        hub_revisions=hub.get_revisions(),
        trusted_code=resolve_settings(model.spec.settings).trusted_code,
    )


def _open_workers(options: IngestOptions, stack: ExitStack) -> RayWorkers | None:
    """Open the workers on Ray until the stack is closed; return None if this process runs the stages itself."""
    runner, reason = choose_runner(options)
    workers = None
    if runner == "ray":
        try:
            workers = stack.enter_context(open_ray_workers(options.ray))
        except IngestError as error:
            if options.runner != "auto" or options.ray.address:
                raise
            reason = f"{reason}, but {error.message}"
    if options.noun == "image":
        logger.info("runner: %s (%s)", "ray" if workers else "local", reason)
    if not workers and options.ray.address:
        logger.warning("the Ray cluster at %s is not used", mask_ray_address(options.ray.address))
    return workers


_SchedulerFactory: TypeAlias = Callable[[Intake], ImageScheduler]


@contextmanager
def _schedule_stages(config: WorkerConfig, model: Model, options: IngestOptions) -> Iterator[_SchedulerFactory]:
    """Yield a function that creates the scheduler for the threads of this process."""
    with open_thread_executor(config, model, options.batch_images, options.bulk.choose_concurrency()) as executor:
        yield lambda intake: StageScheduler(executor, AdaptiveThrottle(options.bulk), intake, is_empty=config.skips_check)


@contextmanager
def _schedule_portions(workers: RayWorkers, config: WorkerConfig, options: IngestOptions) -> Iterator[_SchedulerFactory]:
    """Yield a function that creates the scheduler for workers on Ray."""
    workers.start(replace(config, packages=plugins.list_package_versions()), options.batch_images)
    with collect_garbage_rarely():
        yield lambda intake: PortionScheduler(workers, intake, options.bulk)


def _run_scheduler(
    scheduling: AbstractContextManager[_SchedulerFactory],
    config: WorkerConfig,
    accounting: RunAccounting,
    queue: ListedItems,
) -> Generator[Batch]:
    with scheduling as create_scheduler:
        deferred: HeldImages
        if config.is_text:
            deferred = EqualTexts(accounting.manifest.has_document)
        else:
            deferred = DeferredImages(config.read_limits.url_policy.patience_s)
        scheduler = create_scheduler(Intake(accounting.accept_listed, deferred, accounting.bulk_stats))
        for batch in scheduler.run(queue):
            accounting.listing_done, accounting.encoder_idle = queue.is_exhausted, scheduler.encoder_utilization.idle_share
            accounting.waiting_message = deferred.describe_waiting()
            yield batch


def _build_empty_error(stream: SourceStream, options: IngestOptions) -> IngestError:
    if options.noun == "text":
        return IngestError(
            f"no texts in {', '.join(stream.source_uris)}", "Specify a file with one text per line, or a table.", code="no-texts"
        )
    others = stream.describe_ignored()
    return IngestError(
        f"no images in {', '.join(stream.source_uris)}"
        + (f" (other files: {others})" if others else " (nothing there)")
        + "".join(f"; {each}" for each in (stream.describe_left_out(), *stream.remarks) if each),
        "Folders and globs yield files with image suffixes (.jpg .png .webp .gif .tif .avif ...), tables and lists rows that name"
        " an image (--image-column). A folder of tables requires --format, a saved data set hf-dataset:///FOLDER.",
        code="no-images",
    )
