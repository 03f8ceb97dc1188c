"""`stair-es ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config import DEFAULT_INDEX, DEFAULT_MODEL, MAX_BYTES, MAX_PIXELS, THUMBNAIL_PX
from stair_es.errors import StairError

from . import options
from .output import emit_json, note, stdout
from .progress import image_progress

if TYPE_CHECKING:
    from stair_es.ingest.report import Report

SOME_DEAD = 3
"""Exit code of a run that went through, but left some images dead."""


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files, folders (with all below them), globs, file:// URIs.")
    ],
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: options.Model = DEFAULT_MODEL,
    runner: Annotated[
        Literal["auto", "local", "ray"], typer.Option("--runner", help="Where the stages run: this process, or Ray.")
    ] = "auto",
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", envvar="RAY_ADDRESS", show_envvar=True, help="A running Ray cluster to join.")
    ] = None,
    backend: options.BackendOption = "auto",
    thumbnail_px: Annotated[
        int, typer.Option("--thumbnail-px", min=0, max=512, help="Longer side of the stored thumbnail; 0 for none.")
    ] = THUMBNAIL_PX,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Refuse images with more pixels (decompression bombs).")
    ] = MAX_PIXELS,
    max_bytes: Annotated[int, typer.Option("--max-bytes", min=1, help="Refuse larger files.")] = MAX_BYTES,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            exists=True,
            dir_okay=False,
            help="Your own index body (JSON) for a new index, in place of the built-in one.",
        ),
    ] = None,
    dead_letters: Annotated[
        Path | None,
        typer.Option("--dead-letters", help="JSONL for images that failed; by default below STAIR_ES_HOME/dead-letters."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Encode images and write them into the search cluster.

    Images that are in the index already, unchanged, are skipped: run it again after a crash, or every night.

    **Examples**

    `stair-es ingest ~/Pictures --index photos`

    `stair-es ingest 'archive/**/*.jpg' cover.png --index photos --url https://user:password@search:9200`

    `stair-es ingest /data/images --index photos --runner ray --json | tail -n 1 | jq .written`

    **Exit code**: 0 when no image is dead, 3 when some are (see the dead letters), 1 when the run failed, 2 on wrong usage.
    """
    from stair_es.cluster.documents import DocumentSettings
    from stair_es.cluster.index import check_alias
    from stair_es.ingest.run import IngestOptions, list_sources
    from stair_es.ingest.run import ingest as run
    from stair_es.model.encoder import ModelSpec
    from stair_es.sources.decode import DecodeLimits

    chosen = IngestOptions(
        alias=index,
        model=ModelSpec(name=model, backend=backend),
        runner=runner,
        ray_address=ray_address,
        document=DocumentSettings(thumbnail_px=thumbnail_px),
        limits=DecodeLimits(max_pixels=max_pixels, max_bytes=max_bytes),
        mapping=mapping,
        dead_letters=dead_letters,
    )
    try:
        check_alias(index)
        listing = list_sources(sources)
        ignored = f", {listing.ignored.total():,} other files ignored" if listing.ignored else ""
        note(f"{len(listing.images):,} images found{ignored}")
        connection = options.connection(url)
        with image_progress(len(listing.images)) as progress:
            report = run(listing, connection, chosen, say=note, progress=progress)
    except StairError as error:
        if as_json:
            emit_json({"error": error.message, "remedy": error.remedy})
        raise
    if as_json:
        emit_json(report.to_dict())
    else:
        _print(report)
    if report.dead:
        raise typer.Exit(SOME_DEAD)


def _print(report: Report) -> None:
    values = report.to_dict()
    stdout.print(
        f"{report.seen:,} images: {report.written:,} written, {report.unchanged:,} unchanged, {report.dead:,} dead"
        f" in {report.seconds:.1f} s ({values['images_per_s']:,.1f} images/s)",
        style="bold",
    )
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in values["stage_seconds"].items())
    stdout.print(f"stages (summed over workers): {stages}")
    stdout.print(f"index: {report.index} (alias {report.alias}, model {report.model})")
    if report.dead_letters:
        stdout.print(f"dead letters: {report.dead_letters}", markup=False, emoji=False, style="yellow")
