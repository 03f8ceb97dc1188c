"""One ingest from sources to report: list, open the index, run the stages, keep the books."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from stair_es import resources
from stair_es.cluster.bulk import BulkPolicy
from stair_es.cluster.connect import Connection, probe
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.index import index_body, open_index, refresh
from stair_es.config import Home
from stair_es.errors import IngestError, StairError
from stair_es.ingest.report import Books, DeadLetters, Report
from stair_es.ingest.run_local import run_local
from stair_es.ingest.run_ray import run_ray
from stair_es.ingest.stages import Batch, Job, Outcome, batches
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.sources.decode import DecodeLimits
from stair_es.sources.listing import Listing, list_images

Runner: TypeAlias = Literal["auto", "local", "ray"]

RAY_FROM_IMAGES = 5_000
"""`auto` takes Ray from here on: below, starting it costs more than it brings."""
BATCH_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How an ingest goes about it."""

    alias: str
    model: ModelSpec
    runner: Runner = "auto"
    ray_address: str | None = None
    document: DocumentSettings = field(default_factory=DocumentSettings)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    mapping: Path | None = None
    """A user's own index body."""
    dead_letters: Path | None = None


Progress: TypeAlias = Callable[[Books], None]


def choose_runner(options: IngestOptions, images: int) -> tuple[Literal["local", "ray"], str]:
    """The runner and the reason, for people."""
    if options.runner != "auto":
        return options.runner, "asked for by --runner"
    if options.ray_address:
        return "ray", "--ray-address is given"
    if find_spec("ray") is None:
        return "local", "Ray isn't installed"
    if images < RAY_FROM_IMAGES:
        return "local", f"fewer than {RAY_FROM_IMAGES:,} images: starting Ray would cost more than it brings"
    return "ray", f"{RAY_FROM_IMAGES:,} images or more"


def list_sources(sources: Sequence[str]) -> Listing:
    """The images of `sources`; at least one, or a folder that couldn't be looked into.

    Raises:
        UsageError: A source doesn't exist.
        IngestError: There is not one image in them.
    """
    listing = list_images(sources)
    if not listing.images and not listing.unlisted:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in listing.ignored.most_common(5))
        raise IngestError(
            f"no images in {', '.join(map(repr, sources))}" + (f" (other files: {others})" if others else " (nothing there)"),
            "Folders and globs are searched for .jpg .png .webp .gif .tif .avif ...; name a file itself to take it as it is.",
        )
    return listing


def ingest(
    listing: Listing,
    connection: Connection,
    options: IngestOptions,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Bring the images of `listing` into the index behind `options.alias`.

    Raises:
        StairError: The run failed as a whole. What was written stays, and the next run goes on from there.
    """
    runner, why = choose_runner(options, len(listing.images))
    say(f"runner: {runner} ({why})")
    job = _prepare(connection, options, say)
    books = Books(
        expected={ref.uri for ref in listing.images} | {ref.uri for ref, _ in listing.unlisted},
        dead_letters=DeadLetters(options.dead_letters or _default_dead_letters(options.alias)),
    )
    books.dead_letters.prepare()
    start = time.perf_counter()
    books.enter_outcomes(Outcome(ref, "dead", "list", reason) for ref, reason in listing.unlisted)
    try:
        for batch in _run(runner, job, batches(listing.images, BATCH_IMAGES), options):
            books.enter(batch)
            progress(books)
    except StairError:
        say(f"the run stopped with {books.done:,} of {len(books.expected):,} images done; the next one goes on from there")
        raise
    finally:
        books.dead_letters.close()
    books.close()
    with closing(connection.client()) as client:
        refresh(client, connection, job.index)
    return _report(books, job, runner, time.perf_counter() - start)


def _prepare(connection: Connection, options: IngestOptions, say: Callable[[str], None]) -> Job:
    card = catalogue.resolve(options.model.name)
    body = index_body(resources.load("mappings", "image", options.mapping), model_name=options.model.name, model_id=card.model_id)
    with closing(connection.client()) as client:
        target = probe(client, connection)
        index = open_index(client, connection, options.alias, body)
    say(f"{'new index' if index.created else 'index'}: {index.name} behind alias {options.alias} on {target.label}")
    return Job(
        connection=connection,
        alias=options.alias,
        index=index.name,
        fresh=index.created,
        model=options.model,
        model_id=card.model_id,
        image_spec=card.image_spec,
        document=options.document,
        limits=options.limits,
        bulk=options.bulk,
    )


def _run(runner: Literal["local", "ray"], job: Job, todo: list[Batch], options: IngestOptions) -> Iterator[Batch]:
    if not todo:
        return iter(())
    return run_local(job, todo) if runner == "local" else run_ray(job, todo, options.ray_address)


def _report(books: Books, job: Job, runner: str, seconds: float) -> Report:
    counts: dict[str, Any] = {kind: books.kinds[kind] for kind in ("written", "unchanged", "dead")}
    if sum(counts.values()) != len(books.expected):
        raise IngestError(f"the counts don't add up: {counts} of {len(books.expected)} images")
    return Report(
        seen=len(books.expected),
        **counts,
        seconds=seconds,
        stage_seconds=dict(books.stage_seconds),
        index=job.index,
        alias=job.alias,
        model=job.model_id,
        runner=runner,
        dead_letters=str(books.dead_letters.path) if books.dead_letters.count else None,
    )


def _default_dead_letters(alias: str) -> Path:
    now = datetime.now(timezone.utc)
    return Home.from_env().path / "dead-letters" / f"{alias}-{now:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
