"""`stair-es ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_MODEL, DEFAULT_RETAINED_INDICES, MAX_BYTES, MAX_PIXELS, THUMBNAIL_PX
from stair_es.errors import EXIT_PARTIAL_FAILURE, UsageError

from ...options import connections, metrics, shared
from ...output.console import emit_json, print_notice, report_failure_as_json
from ...output.ingest import note_default_model, print_dry_run, print_ingest_report
from ...output.json_logging import is_json_logging
from .retry import build_retry_command, check_retry_index

if TYPE_CHECKING:
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.ingest.options import IngestOptions
    from stair_es.sources.base import Source, SourceOptions
    from stair_es.telemetry.ingest import IngestTelemetry

_SOURCES, _DOCUMENTS, _INDEX, _RUN = "Sources", "Documents", "Index", "Execution"


def ingest_command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs; s3:// gs:// az:// hf:// and other URLs; tables (.parquet .csv .jsonl); tars"
            " (shards-{000..099}.tar); .txt lists of URLs; hf-dataset://NAME; - for stdin.",
        ),
    ] = None,
    index: shared.TargetIndexOption = DEFAULT_INDEX,
    url: shared.UrlOption = None,
    source_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Format of SOURCE, if not clear from its name: see `stair-es plugins`.", rich_help_panel=_SOURCES
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD[:TYPE]=COLUMN,...",
            help="Columns to copy into the document; `*` for all. [default: the caption] "
            "TYPE int or float parses text as numbers, as for CSV.",
            rich_help_panel=_SOURCES,
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option("--image-column", help="Column with the bytes, path or URL of the image.", rich_help_panel=_SOURCES),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Include hidden files and folders.", rich_help_panel=_SOURCES)] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow symbolic links that lead out of a folder.", rich_help_panel=_SOURCES)
    ] = False,
    retry: Annotated[
        Path | None,
        typer.Option(
            "--retry",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Retry the failed images (dead letters) of an earlier run.",
            rich_help_panel=_SOURCES,
        ),
    ] = None,
    allow_private_urls: Annotated[
        bool,
        typer.Option(
            "--allow-private-urls", help="Allow URLs at loopback, private and link-local addresses.", rich_help_panel=_SOURCES
        ),
    ] = False,
    url_timeout_s: Annotated[
        float, typer.Option("--url-timeout", min=0.1, help="Timeout for one URL in seconds.", rich_help_panel=_SOURCES)
    ] = 30.0,
    url_patience_s: Annotated[
        float,
        typer.Option(
            "--url-patience",
            min=0.0,
            max=86400.0,
            help="Total seconds to wait for a host that sends Retry-After; other hosts are not delayed.",
            rich_help_panel=_SOURCES,
        ),
    ] = 600.0,
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels", min=1, help="Reject images with more pixels (decompression bombs).", rich_help_panel=_SOURCES
        ),
    ] = MAX_PIXELS,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", min=1, help="Reject larger files.", rich_help_panel=_SOURCES)
    ] = MAX_BYTES,
    model: shared.OptionalModelOption = None,
    fit: shared.FitOption = None,
    enrich: Annotated[
        list[str] | None,
        typer.Option(
            "--enrich", metavar="NAME[:KEY=VALUE,...]", help="Run an enricher on each image.", rich_help_panel=_DOCUMENTS
        ),
    ] = None,
    thumbnail_px: Annotated[
        int,
        typer.Option(
            "--thumbnail-px",
            min=0,
            max=512,
            help="Longer side of the stored thumbnail in pixels; 0 for none.",
            rich_help_panel=_DOCUMENTS,
        ),
    ] = THUMBNAIL_PX,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            exists=True,
            dir_okay=False,
            help="Token policy (JSON) for a new index: mute, cap, rename, merge words. See `stair-es policy`.",
            rich_help_panel=_DOCUMENTS,
        ),
    ] = None,
    impacts: Annotated[
        bool,
        typer.Option(
            "--impacts",
            help="Add a field for `match` queries of unmodified BM25 clients (OpenSearch).",
            rich_help_panel=_DOCUMENTS,
        ),
    ] = False,
    vector: shared.VectorOption = "rank_features",
    id_by: Annotated[
        Literal["uri", "content"],
        typer.Option("--id", help="Source of document ids: the URI or the content of an image.", rich_help_panel=_DOCUMENTS),
    ] = "uri",
    resync: Annotated[
        bool,
        typer.Option("--resync", help="Delete documents whose image no longer exists in its SOURCE.", rich_help_panel=_INDEX),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would happen; read no images, write nothing.", rich_help_panel=_INDEX)
    ] = False,
    words_index: Annotated[
        bool | None,
        typer.Option(
            "--words-index/--no-words-index",
            help="Maintain a token index with the heaviest words of each image, for charts; or delete it. [default: no change]",
            rich_help_panel=_INDEX,
        ),
    ] = None,
    swap: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(
            "--swap", help="When a newly built index takes over the alias; auto: if it is complete.", rich_help_panel=_INDEX
        ),
    ] = "auto",
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="Retired indices to keep after a swap.", rich_help_panel=_INDEX)
    ] = DEFAULT_RETAINED_INDICES,
    relax_replicas: Annotated[
        bool,
        typer.Option(
            "--relax-replicas",
            help="Build a new index without replicas: faster, but the build is lost if a node is.",
            rich_help_panel=_INDEX,
        ),
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            exists=True,
            dir_okay=False,
            help="Body of a new index (JSON), instead of the built-in one.",
            rich_help_panel=_INDEX,
        ),
    ] = None,
    sink: Annotated[
        str, typer.Option("--sink", metavar="NAME[:KEY=VALUE,...]", help="Destination of the documents.", rich_help_panel=_INDEX)
    ] = "cluster",
    dead_letters: Annotated[
        Path | None,
        typer.Option(
            "--dead-letters",
            help="JSONL file for failed images. [default: below STAIR_ES_HOME/dead-letters]",
            rich_help_panel=_INDEX,
        ),
    ] = None,
    runner: Annotated[
        Literal["auto", "local", "ray"],
        typer.Option("--runner", help="Run in this process, or on Ray.", rich_help_panel=_RUN),
    ] = "auto",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            envvar="RAY_ADDRESS",
            show_envvar=True,
            help="Address of a running Ray cluster.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    gpus_per_encoder: Annotated[
        float,
        typer.Option(
            "--gpus-per-encoder",
            min=0.0,
            help="GPUs per Ray encoder actor (may be fractional; 0 = CPU only).",
            rich_help_panel=_RUN,
        ),
    ] = 1.0,
    encoders: Annotated[
        int, typer.Option("--encoders", min=0, help="Number of Ray encoder actors (0 = as many as fit).", rich_help_panel=_RUN)
    ] = 0,
    batch_images: Annotated[
        int,
        typer.Option("--batch-size", min=0, help="Images per call of the encoder (0 = chosen by device).", rich_help_panel=_RUN),
    ] = 0,
    backend: shared.BackendOption = "auto",
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        typer.Option("--precision", help="Precision of the torch backend; bf16 and fp16 require a GPU.", rich_help_panel=_RUN),
    ] = "fp32",
    allow_failed: Annotated[
        bool,
        typer.Option(
            "--allow-failed",
            envvar="STAIR_ES_ALLOW_FAILED",
            show_envvar=True,
            help="Exit with 0 instead of 3 if some images failed: for containers and jobs.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Encode images and write them into the search cluster.

    Unchanged images that are already in the index are skipped, so it can run again after a crash, or every night.

    **Examples**

    `stair-es ingest ~/Pictures --index photos`

    `stair-es ingest s3://bucket/products/ --index products --resync`

    `stair-es ingest 'laion/{00000..00099}.tar' --map caption=txt,licence=licence --runner ray`

    `stair-es ingest items.parquet --image-column url --map caption=title,price=price --index shop`

    `stair-es ingest --retry dead.jsonl --index photos`

    **Exit code**: 0 if no image failed, 3 if some failed (see the dead letters; 0 with --allow-failed) or some token weights
    could not be written, 1 if the run failed, 2 on wrong usage.
    """
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.cluster.index.lifecycle import check_alias_name
    from stair_es.ingest.enrichers.base import EnricherSpec
    from stair_es.ingest.executors.ray import RayOptions
    from stair_es.ingest.options import IngestOptions
    from stair_es.model.base import ModelSpec
    from stair_es.model.registry import check_hub_libraries
    from stair_es.sources.base import ReadLimits, SourceOptions, WalkOptions
    from stair_es.sources.image.decode import DecodeLimits
    from stair_es.sources.url_policy import UrlPolicy
    from stair_es.telemetry.ingest import open_ingest_telemetry
    from stair_es.token_policy import load_policy as read_policy

    def run_command(said: dict[str, Any]) -> bool:
        check_alias_name(index)
        if retry is not None:
            check_retry_index(retry, index, connections.get_command_context())
        if (
            runner != "ray" and ray_address is None
        ):  # otherwise the workers run the model, and may have extras that this machine lacks
            check_hub_libraries(model or DEFAULT_MODEL)
        place = SourceOptions(
            format=source_format,
            columns=_parse_columns(columns or []),
            image_column=image_column,
            walk=WalkOptions(hidden=hidden, follow_links=follow_links),
            read_limits=ReadLimits(
                max_bytes=max_bytes,
                url_policy=UrlPolicy(allow_private=allow_private_urls, timeout_s=url_timeout_s, patience_s=url_patience_s),
            ),
        )
        chosen = IngestOptions(
            alias=index,
            model=ModelSpec(name=model or DEFAULT_MODEL, fit=fit, backend=backend, precision=precision),
            runner=runner,
            ray=RayOptions(address=ray_address, gpus_per_encoder=gpus_per_encoder, encoders=encoders),
            batch_images=batch_images,
            document=DocumentSettings(thumbnail_px=thumbnail_px, impacts=impacts, vector=vector, id=id_by),
            source=place,
            limits=DecodeLimits(max_pixels=max_pixels),
            enrichers=tuple(EnricherSpec.parse(text) for text in enrich or []),
            **_build_sink_options(
                sink, keep=keep, swap=swap, relax_replicas=relax_replicas, mapping=mapping, words_index=words_index
            ),
            policy=read_policy(policy) if policy else None,
            resync=resync,
            dead_letters=dead_letters,
        )
        if dry_run:
            _run_dry(_open_sources(sources or [], place, retry, dead_letters), url, chosen, as_json)
            return True
        with open_ingest_telemetry(index, metrics.get_metrics_targets(), allow_failed=allow_failed) as observer:
            report = _run_ingest(_open_sources(sources or [], place, retry, dead_letters), url, chosen, as_json, said, observer)
        if model is None and report.written and not as_json:
            note_default_model(DEFAULT_MODEL)
        return report.is_complete(allow_failed=allow_failed)

    as_json = as_json or is_json_logging()  # a container's stdout and stderr are one stream
    said: dict[str, Any] = {}
    with report_failure_as_json(as_json, said):
        complete = run_command(said)
    if not complete:
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _open_sources(arguments: list[str], place: SourceOptions, retry: Path | None, dead_letters: Path | None) -> list[Source]:
    from dataclasses import replace

    from stair_es.sources.registry import open_source

    if not arguments and retry is None:
        raise UsageError("neither SOURCE nor --retry given", "Name files, folders, URLs or tables: stair-es ingest ~/Pictures")
    if retry is not None and dead_letters is not None and retry.resolve() == dead_letters.resolve():
        raise UsageError("--retry and --dead-letters name the same file", "Use another file for --dead-letters.")
    opened = [open_source(argument, place) for argument in arguments]
    return opened if retry is None else [*opened, open_source(str(retry), replace(place, format="dead-letters"))]


def _parse_columns(given: list[str]) -> dict[str, str]:
    """Parse `--map a=b,c:float=d --map e=f` into field -> column; `*` is all columns.

    Args:
        given: Values of the option.

    Returns:
        Field, with its type if given -> column.

    Raises:
        UsageError: If the form is wrong, a field is repeated, or has a reserved name.
    """
    from stair_es.cluster.documents.document import check_field_names
    from stair_es.sources.kinds.fields import NUMBER_TYPES, split_field_type

    columns, names = dict[str, str](), set[str]()
    for part in (part.strip() for text in given for part in text.split(",")):
        field, equals, column = part.partition("=")
        if part == "*":
            field = column = "*"
        elif not (field and equals and column):
            raise UsageError(f"not a column mapping: {part!r}", "Write --map caption=text,price:float=cost or --map '*'.")
        name = split_field_type(field)[0]
        if ":" in name:
            raise UsageError(f"no such type: {field!r}", f"Write NAME:TYPE=COLUMN with one of {', '.join(NUMBER_TYPES)}.")
        if name in names:
            raise UsageError(f"--map names the field {name!r} twice", "Give each field one column.")
        columns[field] = column
        names.add(name)
    check_field_names(names - {"*"})
    return columns


def _build_sink_options(
    text: str, *, keep: int, swap: str, relax_replicas: bool, mapping: Path | None, words_index: bool | None
) -> dict[str, Any]:
    """Return name and options of the sink. The built-in sink also has options on the command line.

    Args:
        text: NAME[:KEY=VALUE,...].
        keep: Retired indices to keep.
        swap: When the new index takes over the alias.
        relax_replicas: Whether the new index is built without replicas.
        mapping: File with the body of a new index.
        words_index: Whether to keep a token index; None for no change.

    Returns:
        Values for `IngestOptions`.

    Raises:
        UsageError: If a token index is requested from another sink.
    """
    from stair_es.ingest.enrichers.base import parse_named_options

    name, given = parse_named_options("a sink", text)
    if name == "cluster":
        own = {"keep": str(keep), "swap": swap, "relax_replicas": "yes" if relax_replicas else "no"}
        given = {**own, **({"mapping": str(mapping)} if mapping else {}), **build_token_index_option(words_index), **given}
    elif words_index:
        raise UsageError(f"the sink {name!r} has no words index", "Leave --words-index out.")
    return {"sink": name, "sink_options": given}


def build_token_index_option(words_index: bool | None) -> dict[str, str]:
    """Return `--words-index` as an option of the sink; empty if it isn't given."""
    return {} if words_index is None else {"words_index": "yes" if words_index else "no"}


def _run_ingest(
    opened: list[Source], url: str | None, chosen: IngestOptions, as_json: bool, said: dict[str, Any], observer: IngestTelemetry
) -> IngestReport:
    from stair_es.ingest.pipeline import run_ingest as run

    from ...output.progress import show_ingest_progress

    kept: list[RunAccounting] = []

    def keep_accounting(books: RunAccounting) -> None:
        kept.append(books)
        observer.record_start(books)

    try:
        with show_ingest_progress() as progress:
            connection = connections.resolve_connection(url) if chosen.sink == "cluster" or url else None
            report = run(
                opened,
                connection,
                chosen,
                progress=progress,
                on_start=keep_accounting,
                on_batch=observer.record_batch,
            )
            observer.record_report(report)
    except Exception:
        if kept:
            said.update(kept[0].get_counts())
        raise
    except (KeyboardInterrupt, SystemExit):
        if kept and kept[0].listed:
            print_notice(
                f"stopped with {kept[0].done_count:,} of {kept[0].listed:,} images done; the next run resumes from there"
            )
        raise
    if as_json:
        emit_json(report.to_dict())
    else:
        print_ingest_report(
            report, build_retry_command(report.dead_letters or "", report.alias, connections.get_command_context())
        )
    return report


def _run_dry(opened: list[Source], url: str | None, chosen: IngestOptions, as_json: bool) -> None:
    from stair_es.ingest.dry_run import simulate_ingest

    connection = connections.resolve_connection(url) if chosen.sink == "cluster" or url else None
    would = simulate_ingest(opened, connection, chosen)
    if as_json:
        emit_json(would.to_dict())
    else:
        print_dry_run(would, chosen.alias)
