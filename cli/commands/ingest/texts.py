"""`stair-es ingest-texts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import EXIT_PARTIAL_FAILURE
from stair_es.types import TextFormat

from ...options import config_file, shared
from ...options.connections import ConnectionArguments, resolve_connection
from ...options.decorator import add_failure_facts
from ...output.console import emit_json, stdout
from ...output.ingest import print_outcome
from .arguments import BuildArguments, JsonReportOption

if TYPE_CHECKING:
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.texts import TextIngestOptions
    from stair_es.sources.base import Source


_Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Text files with one text per line (.txt), or tables (.jsonl, .csv, .tsv), optionally compressed (.gz);"
        " - for stdin.",
    ),
]
_CaptionIndex = Annotated[
    str,
    typer.Option(
        "--index", "-i", metavar="ALIAS", help="Alias of the index to write to. STAIR_ES_INDEX, the index of images, is ignored."
    ),
]
_TextFormat = Annotated[TextFormat | None, typer.Option("--format", help="Format of FILE if its name doesn't show it.")]
_TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text-column", metavar="COLUMN", help="Column with a text or a list of texts. [default: text, caption or captions]"
    ),
]


def ingest_texts_command(
    files: _Files,
    *,
    index: _CaptionIndex = "captions",
    connection: ConnectionArguments,
    text_format: _TextFormat = None,
    text_column: _TextColumn = None,
    model: shared.ModelOption = DEFAULT_MODEL,
    fit: shared.FitOption = None,
    text_tower: shared.TextTowerOption = "full",
    vector: shared.VectorOption = "rank_features",
    as_json: JsonReportOption = False,
    target: BuildArguments,
) -> None:
    """Encode texts and write them to a separate index, to find captions by image.

    **Examples**

    ```text
    stair-es ingest-texts captions.txt
    stair-es ingest-texts products.jsonl --text-column title --index titles
    stair-es search --image photo.jpg --index captions
    ```

    Identical texts become one document. Texts that are already in the index are skipped, so you can run the command again at any
    time.

    **Exit codes**: 0 if no text failed; 3 if some texts failed (they are in the dead-letter file) or some documents of the token
    index could not be written; 1 if the run failed; 2 for a usage error.
    """
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.cluster.metadata.names import check_alias_name
    from stair_es.ingest.pipeline import check_ingest_model
    from stair_es.ingest.texts import TextIngestOptions, open_text_source
    from stair_es.model.base import ModelSpec

    check_alias_name(index)
    sources = [open_text_source(file, text_format, text_column) for file in files]
    options = TextIngestOptions(
        alias=index,
        model=ModelSpec(name=model, fit=fit, text_tower=text_tower, settings=config_file.get_config().settings),
        document=DocumentSettings(thumbnail_px=0, id="content-hash", vector=vector),
        sink_options=target.build_sink_options(),
        include_forgotten=target.include_forgotten,
        dead_letters=target.dead_letters,
    )
    check_ingest_model(options)
    report = _run_ingest(sources, connection, options)
    if as_json:
        emit_json(to_json(report))
    else:
        _print_report(report)
    if not report.is_complete():
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def to_json(report: IngestReport) -> dict[str, Any]:
    """Return the report for `--json`: the keys of `ingest` without those for images, and with the duplicates."""
    image_keys = {"images_per_s", "stage_seconds", "stage_share", "encoder_idle", "removed", "runner", "failure_reasons"}
    values = {name: value for name, value in report.to_dict().items() if name not in image_keys}
    reasons = [{"stage": failure.stage, "reason": failure.reason, "texts": failure.images} for failure in report.failure_reasons]
    rate = report.seen / report.seconds if report.seconds else 0.0
    return {**values, "duplicates": _count_duplicates(report), "texts_per_s": round(rate, 2), "failure_reasons": reasons}


def _count_duplicates(report: IngestReport) -> int:
    return report.seen - report.failed - report.forgotten - report.documents


def _run_ingest(sources: list[Source], arguments: ConnectionArguments, options: TextIngestOptions) -> IngestReport:
    from stair_es.ingest.pipeline import run_ingest
    from stair_es.ingest.run import open_run_accounting

    from ...output.progress import show_ingest_progress

    connection = resolve_connection(arguments)
    with open_run_accounting(options) as accounting:
        add_failure_facts(accounting.get_counts)
        with show_ingest_progress("texts") as progress:
            return run_ingest(sources, connection, options, progress=progress, accounting=accounting)


def _print_report(report: IngestReport) -> None:
    duplicates = f" ({_count_duplicates(report):,} of them the same as an earlier one)" if _count_duplicates(report) else ""
    forgotten = f", {report.forgotten:,} forgotten" if report.forgotten else ""
    stdout.print(
        f"{report.seen:,} texts: {report.written:,} written, {report.unchanged:,} unchanged{duplicates}, {report.failed:,} failed"
        f"{forgotten} in {report.seconds:.1f} s",
        style="bold",
    )
    print_outcome(report)
