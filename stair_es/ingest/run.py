"""One ingest from sources to report: list, open the sink, run the stages, keep the books."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from stair_es import plugins
from stair_es.cluster.bulk import BulkPolicy
from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.index import Identity
from stair_es.cluster.pace import Pace
from stair_es.config import Home
from stair_es.errors import IngestError, ResourceError, StairError, UsageError
from stair_es.ingest.ahead import Ahead
from stair_es.ingest.batch import Outcome
from stair_es.ingest.dead_letters import DeadLetters
from stair_es.ingest.enrich import EnricherSpec, build
from stair_es.ingest.lanes import Lanes
from stair_es.ingest.manifest import Manifest
from stair_es.ingest.pump import Pump
from stair_es.ingest.report import Books, Report
from stair_es.ingest.resync import remove_gone
from stair_es.ingest.run_local import local_lanes
from stair_es.ingest.run_ray import RayOptions, ray_lanes
from stair_es.ingest.sink import Completion, Coverage, Say, Session, SinkKind, SinkPlan
from stair_es.ingest.stages import Job
from stair_es.ingest.streams import Streams
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.sources.decode import DecodeLimits
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.places import Inline
from stair_es.types import Json

Runner: TypeAlias = Literal["auto", "local", "ray"]

RAY_FROM_IMAGES = 5_000
"""`auto` takes Ray from here on: below, starting it costs more than it brings."""
_LIST_AHEAD = 20_000
"""Images that listing may be ahead of the stages, at some hundred bytes each."""
_LIST_AHEAD_BYTES = 256 * 1024 * 1024
"""The same for images that are listed with their bytes, from streams that can't be asked twice."""
_PEEK_S = 5.0
"""How long to wait for a slow listing before the runner is chosen."""


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How an ingest goes about it."""

    alias: str
    model: ModelSpec
    runner: Runner = "auto"
    ray: RayOptions = field(default_factory=RayOptions)
    batch_images: int = 0
    """How many images an encoder takes at once; 0 for what suits the device."""
    document: DocumentSettings = field(default_factory=DocumentSettings)
    source: SourceOptions = field(default_factory=SourceOptions)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    enrichers: tuple[EnricherSpec, ...] = ()
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    sink: str = "cluster"
    sink_options: dict[str, str] = field(default_factory=dict)
    resync: bool = False
    """Remove the documents whose image is no longer in the sources."""
    dead_letters: Path | None = None


Progress: TypeAlias = Callable[[Books], None]


def choose_runner(options: IngestOptions, images: int, *, all_listed: bool) -> tuple[Literal["local", "ray"], str]:
    """The runner and the reason, for people."""
    if options.runner != "auto":
        return options.runner, "asked for by --runner"
    if options.ray.address:
        return "ray", "--ray-address is given"
    if find_spec("ray") is None:
        return "local", "Ray isn't installed"
    if images >= RAY_FROM_IMAGES:
        return "ray", f"{RAY_FROM_IMAGES:,} images or more"
    if not all_listed:
        return "local", f"fewer than {RAY_FROM_IMAGES:,} images listed in the first {_PEEK_S:.0f} s"
    return "local", f"fewer than {RAY_FROM_IMAGES:,} images: starting Ray would cost more than it brings"


def ingest(
    sources: Sequence[Source],
    connection: Connection | None,
    options: IngestOptions,
    *,
    say: Say,
    progress: Progress,
    books: Callable[[Books], None] = lambda _: None,
) -> Report:
    """Bring the images of `sources` into the index behind `options.alias`.

    Args:
        sources: What `sources.registry.open_source` made of the arguments.
        connection: The cluster, for a sink that writes into one.
        options: How.
        say: Gets remarks for people.
        progress: Is called with the books whenever a batch is through.
        books: Is called once with the books of the run, so that a caller has the counts of a failed run too.

    Raises:
        StairError: The run failed as a whole. What was written stays, and the next run goes on from there.
    """
    with ExitStack() as stack:
        manifest = stack.enter_context(Manifest(keep_uris=options.document.id == "content"))
        kept = Books(manifest, DeadLetters(options.dead_letters or _default_dead_letters(options.alias)))
        books(kept)
        streams = Streams(sources)
        ahead = stack.enter_context(Ahead(streams, _LIST_AHEAD, _bytes_of, _LIST_AHEAD_BYTES))
        ready, over = ahead.wait_for(RAY_FROM_IMAGES if options.runner == "auto" else 1, _PEEK_S)
        if over and not ready:
            ahead.check()
            raise _nothing_found(streams)
        runner, why = choose_runner(options, ready, all_listed=over)
        say(f"runner: {runner} ({why})")
        if runner == "local" and options.ray.address:
            say(f"the Ray cluster at {options.ray.address} is not used")
        session = sink_kind(options).open(plan(options, connection), say)
        say(f"{'new index' if session.fresh else 'index'}: {session.index} for {options.alias} on {session.label}")
        kept.dead_letters.prepare()
        return _Run(sources, streams, options, session, kept, say, progress).through(runner, ahead)


@dataclass
class _Run:
    sources: Sequence[Source]
    streams: Streams
    options: IngestOptions
    session: Session
    books: Books
    say: Say
    progress: Progress

    def through(self, runner: Literal["local", "ray"], ahead: Ahead[Item | Unlisted]) -> Report:
        start = time.perf_counter()
        job = job_of(self.options, self.session)
        policy = self.options.bulk
        try:
            with self.session.load(), _lanes(runner, job, self.options) as lanes:
                pump = Pump(lanes, Pace(policy), job.fresh, self._admit)
                self._pump(pump, ahead)
            removed = remove_gone(self.session, self.books.manifest, self.streams, self.say) if self.options.resync else 0
        except StairError:
            self.say(
                f"the run stopped with {self.books.done:,} of {self.books.listed:,} images done; the next one goes on from there"
            )
            raise
        finally:
            self.books.dead_letters.close()
        self.books.close()
        coverage = Coverage(sources=frozenset(self.streams.complete), fate=self.books.manifest.fate)
        return self._report(job, runner, pump, removed, self.session.complete(coverage), time.perf_counter() - start)

    def _pump(self, pump: Pump, ahead: Ahead[Item | Unlisted]) -> None:
        told_busy = told_listed = False
        for batch in pump.run(ahead):
            self.books.enter(batch)
            self.books.listing_done = ahead.exhausted
            self.progress(self.books)
            if pump.busy and not told_busy:
                told_busy = True
                self.say("the cluster is busy or away at times: requests are repeated, more slowly")
            if ahead.exhausted and not told_listed:
                told_listed = True
                self._say_listed()
        if not told_listed:
            self._say_listed()

    def _say_listed(self) -> None:
        ignored = sum(self.streams.ignored.values())
        self.say(f"{self.books.listed:,} images found" + (f", {ignored:,} other files ignored" if ignored else ""))

    def _admit(self, found: Item | Unlisted) -> Item | None:
        """The image, if it is the first time that the run comes across it; what couldn't be listed is dead at once."""
        if not self.books.list(found.uri):
            return None
        if isinstance(found, Item):
            return found
        self.books.enter_outcomes([Outcome(found.as_item(), "dead", "list", found.reason)])
        return None

    def _report(self, job: Job, runner: str, pump: Pump, removed: int, completion: Completion, seconds: float) -> Report:
        counts = self.books.counts()
        return Report(
            seen=counts["seen"],
            written=counts["written"],
            unchanged=counts["unchanged"],
            dead=counts["dead"],
            removed=removed,
            documents=self.books.manifest.documents(),
            seconds=seconds,
            stage_seconds=dict(self.books.stage_seconds),
            encoder_idle=pump.clock.idle_share,
            bulk_requests=pump.sent,
            bulk_busy=pump.busy,
            index=self.session.index,
            alias=self.options.alias,
            swapped=completion.swapped,
            unfinished=completion.unfinished,
            pruned=completion.pruned,
            model=job.model_id,
            runner=runner,
            dead_letters=str(self.books.dead_letters.path) if self.books.dead_letters.count else None,
        )


def plan(options: IngestOptions, connection: Connection | None) -> SinkPlan:
    """What a run with these options wants of its sink."""
    card = catalogue.resolve(options.model.name)
    settings: dict[str, Json] = {
        **asdict(options.document),
        "enrichers": [*_enricher_versions(options)],
        "mapping": _digest_of(options.sink_options.get("mapping")),
    }
    return SinkPlan(
        alias=options.alias,
        identity=Identity(model_name=options.model.name, model_id=card.model_id, settings=settings),
        document=options.document,
        bulk=options.bulk,
        connection=connection,
        options=options.sink_options,
    )


def _digest_of(mapping: str | None) -> str | None:
    """So that another body of the user's own is another index, whatever differs in it."""
    try:
        return hashlib.sha256(Path(mapping).read_bytes()).hexdigest()[:16] if mapping else None
    except OSError as error:
        raise ResourceError(f"can't read the mapping {mapping}: {error.strerror}", "Name a readable file.") from error


def job_of(options: IngestOptions, session: Session) -> Job:
    """What the workers of a run with these options need."""
    card = catalogue.resolve(options.model.name)
    return Job(
        writer=session.writer,
        fresh=session.fresh,
        model=options.model,
        model_id=card.model_id,
        image_spec=card.image_spec,
        document=options.document,
        reading=options.source.reading,
        limits=options.limits,
        enrichers=options.enrichers,
        enricher_versions=_enricher_versions(options),
    )


def _enricher_versions(options: IngestOptions) -> tuple[str, ...]:
    return tuple(f"{spec.name}={build(spec).version}" for spec in options.enrichers)


def _lanes(runner: Literal["local", "ray"], job: Job, options: IngestOptions) -> AbstractContextManager[Lanes]:
    if runner == "local":
        return local_lanes(job, options.batch_images, options.bulk.max_concurrency)
    return ray_lanes(job, options.ray, options.batch_images)


def sink_kind(options: IngestOptions) -> SinkKind:
    """The sink that the options name.

    Raises:
        UsageError: There is none of this name.
        PluginError: It can't be loaded.
    """
    plugin = plugins.named("sinks", options.sink)
    if plugin is None:
        known = ", ".join(sorted({plugin.name for plugin in plugins.found("sinks")}))
        raise UsageError(f"unknown sink {options.sink!r}", f"Known sinks: {known or 'none: reinstall stair-es'}.")
    kind: SinkKind = plugin.load()
    return kind


def _bytes_of(found: Item | Unlisted) -> int:
    return len(found.place.data) if isinstance(found, Item) and isinstance(found.place, Inline) else 0


def _nothing_found(streams: Streams) -> IngestError:
    common = sorted(streams.ignored.items(), key=lambda pair: -pair[1])[:5]
    others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in common)
    return IngestError(
        f"no images in {', '.join(streams.names)}" + (f" (other files: {others})" if others else " (nothing there)"),
        "Folders and globs are searched for .jpg .png .webp .gif .tif .avif ...; name a file itself to take it as it is.",
    )


def _default_dead_letters(alias: str) -> Path:
    now = datetime.now(timezone.utc)
    return Home.from_env().path / "dead-letters" / f"{alias}-{now:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
