"""`stair-es ingest-texts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_MODEL, DEFAULT_RETAINED_INDICES
from stair_es.errors import EXIT_PARTIAL_FAILURE

from ...options import connections, shared
from ...output.console import emit_json, report_failure_as_json, stdout
from ...output.ingest import print_outcome
from ...output.json_logging import is_json_logging
from .images import build_token_index_option

if TYPE_CHECKING:
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.ingest.texts.pipeline import TextIngestOptions
    from stair_es.sources.base import Source


_Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...", help="Text files with one text per line (.txt), or tables (.jsonl .csv .tsv; also .gz); - for stdin."
    ),
]
_CaptionIndex = Annotated[
    str,
    typer.Option(
        "--index", "-i", help="Alias of the index to write. It is separate from the images, so STAIR_ES_INDEX is ignored."
    ),
]
_TextFormat = Annotated[
    Literal["txt", "jsonl", "csv"] | None, typer.Option("--format", help="Format of FILE, if not clear from its name.")
]
_TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="Column with a text or a list of texts. [default: text, caption or captions]")
]
_TokenIndex = Annotated[
    bool | None,
    typer.Option(
        "--words-index/--no-words-index",
        help="Maintain a token index with the heaviest words of each text, or delete it. [default: no change]",
    ),
]
_Swap = Annotated[
    Literal["auto", "always", "never"],
    typer.Option("--swap", help="When a newly built index takes over the alias; auto: if it is complete."),
]
_Keep = Annotated[int, typer.Option("--keep", min=0, help="Retired indices to keep after a swap.")]
_DeadLetters = Annotated[
    Path | None, typer.Option("--dead-letters", help="JSONL file for failed texts. [default: below STAIR_ES_HOME/dead-letters]")
]


def ingest_texts_command(
    files: _Files,
    index: _CaptionIndex = "captions",
    url: shared.UrlOption = None,
    text_format: _TextFormat = None,
    text_column: _TextColumn = None,
    model: shared.ModelOption = DEFAULT_MODEL,
    fit: shared.FitOption = None,
    text_tower: shared.TextTowerOption = "full",
    vector: shared.VectorOption = "rank_features",
    words_index: _TokenIndex = None,
    swap: _Swap = "auto",
    keep: _Keep = DEFAULT_RETAINED_INDICES,
    dead_letters: _DeadLetters = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Encode texts and write them into a separate index, to search captions by image.

    Identical texts are one document. Texts that are already in the index are skipped, so it can run again at any time.

    **Examples**

    `stair-es ingest-texts captions.txt`

    `stair-es ingest-texts products.jsonl --text-column title --index titles`

    `stair-es search --image photo.jpg --index captions`

    **Exit code**: 0 if no text failed, 3 if some failed (see the dead letters) or some token weights could not be written, 1 if
    the run failed, 2 on wrong usage.
    """
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.cluster.index.lifecycle import check_alias_name
    from stair_es.ingest.texts.pipeline import TextIngestOptions
    from stair_es.ingest.texts.sources import open_text_source
    from stair_es.model.base import ModelSpec
    from stair_es.model.registry import check_hub_libraries

    as_json = as_json or is_json_logging()  # a container's stdout and stderr are one stream
    said: dict[str, Any] = {}
    with report_failure_as_json(as_json, said):
        check_alias_name(index)
        check_hub_libraries(model)
        sources = [open_text_source(file, text_format, text_column) for file in files]
        chosen = TextIngestOptions(
            alias=index,
            model=ModelSpec(name=model, fit=fit, text_tower=text_tower),
            document=DocumentSettings(thumbnail_px=0, id="content", vector=vector),
            sink_options={"swap": swap, "keep": str(keep), **build_token_index_option(words_index)},
            dead_letters=dead_letters,
        )
        report = _run_ingest(sources, url, chosen, said)
    if as_json:
        emit_json(to_json(report))
    else:
        _print_report(report)
    if not report.is_complete():
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def to_json(report: IngestReport) -> dict[str, Any]:
    """Return the report for `--json`: the keys of `ingest` without those for images, and with the duplicates."""
    images = {"images_per_s", "stage_seconds", "stage_share", "encoder_idle", "removed", "runner", "dead_reasons"}
    values = {name: value for name, value in report.to_dict().items() if name not in images}
    reasons = [{"stage": why.stage, "reason": why.reason, "texts": why.images} for why in report.dead_reasons]
    rate = report.seen / report.seconds if report.seconds else 0.0
    return {**values, "duplicates": _count_duplicates(report), "texts_per_s": round(rate, 2), "dead_reasons": reasons}


def _count_duplicates(report: IngestReport) -> int:
    return report.seen - report.dead - report.documents


def _run_ingest(sources: list[Source], url: str | None, chosen: TextIngestOptions, said: dict[str, Any]) -> IngestReport:
    from stair_es.ingest.texts.pipeline import run_text_ingest as run

    from ...output.progress import show_ingest_progress

    kept: list[RunAccounting] = []
    try:
        with show_ingest_progress("texts") as progress:
            return run(sources, connections.resolve_connection(url), chosen, progress=progress, on_start=kept.append)
    except Exception:
        if kept:
            said.update(kept[0].get_counts())
        raise


def _print_report(report: IngestReport) -> None:
    same = f" ({_count_duplicates(report):,} of them the same as an earlier one)" if _count_duplicates(report) else ""
    stdout.print(
        f"{report.seen:,} texts: {report.written:,} written, {report.unchanged:,} unchanged{same}, {report.dead:,} dead"
        f" in {report.seconds:.1f} s",
        style="bold",
    )
    print_outcome(report)
