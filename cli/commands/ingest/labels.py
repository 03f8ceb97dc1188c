"""`stair-es ingest-labels`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, OptionConflict, ResourceError

from ...options import shared
from ...options.connections import ConnectionArguments, open_cluster
from ...options.decorator import add_failure_facts
from ...output.bars import escape_control
from ...output.console import emit_json, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stair_es.labels.importer import ImportReport, RowOutcome

_Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Files with a row per image, or per image and label (.jsonl, .csv, .tsv; .gz, too); globs and URLs; - for JSON Lines"
        " on stdin.",
    ),
]
_Base = Annotated[
    str,
    typer.Option("--image-base", metavar="FOLDER | URL", help="Folder or URL at which the relative paths in FILE begin."),
]
_Scale = Annotated[
    Literal["1", "100"] | None,
    typer.Option(
        "--scale", help="Largest possible confidence. [default: 100 for Rekognition and images with one above 1, otherwise 1]"
    ),
]
_MinConfidence = Annotated[
    float, typer.Option("--min-confidence", metavar="X", min=0.0, max=1.0, help="Leave lighter labels out.")
]
_Keep = Annotated[
    bool, typer.Option("--keep", help="Keep the labels that images have, such as those of another service. [default: replace]")
]
_Failed = Annotated[
    Path | None,
    typer.Option("--dead-letters", metavar="FILE", dir_okay=False, help="JSONL file for rows that failed, to import later."),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Find the images and count what would change, without writing.")]


def ingest_labels_command(
    files: _Files,
    image_base: _Base = "",
    scale: _Scale = None,
    min_confidence: _MinConfidence = 0.0,
    keep: _Keep = False,
    dead_letters: _Failed = None,
    dry_run: _DryRun = False,
    as_json: shared.JsonOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
) -> None:
    """Add labels that you already have to the images of an index, with their confidences.

    **Examples**

    ```text
    stair-es ingest-labels rekognition.jsonl --index photos
    stair-es ingest-labels openverse.jsonl clarifai.jsonl --keep
    stair-es ingest-labels labels.csv --image-base /mnt/photos --dead-letters failed.jsonl
    stair-es words --labels --index photos
    ```

    Reads what Rekognition, Clarifai, Google Vision, Openverse and exiftool write, and tables with a label per row or per cell.
    An image is found by its URI, its path, its file name or its id. Searches count a label that is a word of the query like a
    word of a caption, times its confidence. Run the command again at any time: images with the same labels are skipped.

    **Exit codes**: 0 if no row failed; 3 if some failed; 1 if the run failed; 2 for a usage error.
    """
    from stair_es.labels.importer import ImportOptions, ImportReport, LabelImporter, summarize_outcomes
    from stair_es.labels.rows import open_label_source, read_label_files

    from ...output.progress import show_document_progress

    if dead_letters is not None and any(_names_file(file, dead_letters) for file in files):
        raise OptionConflict("FILE and --dead-letters name the same file", "Use another file for --dead-letters.")
    sources = [open_label_source(file) for file in files]
    options = ImportOptions(base=image_base, min_weight=min_confidence, keep=keep, dry_run=dry_run)
    report = ImportReport(alias=index)
    with open_cluster(connection) as cluster, _open_letters(dead_letters) as letters, show_document_progress() as progress:
        importer = LabelImporter(cluster, index, options)
        rows = read_label_files(sources, float(scale) if scale else None)
        add_failure_facts(report.to_dict)
        for outcome in summarize_outcomes(importer.import_labels(rows, progress), report):
            if letters is not None and outcome.kind == "failed":
                _write_letter(letters, outcome)
    if as_json:
        emit_json({**report.to_dict(), "dry_run": dry_run})
    else:
        for line in _format_report(report, dry_run=dry_run):
            stdout.print(escape_control(line), markup=False, emoji=False)
    if report.counts["failed"]:
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _names_file(argument: str, path: Path) -> bool:
    """Return whether a FILE argument, perhaps a glob, names a file."""
    return Path(argument).resolve() == path.resolve() or path.resolve().match(str(Path(argument).absolute()))


def _open_letters(path: Path | None) -> IO[str] | nullcontext[None]:
    try:
        return path.open("w", encoding="utf-8") if path else nullcontext()
    except OSError as error:
        raise ResourceError(
            f"can't write the dead letters {path}: {error.strerror}", "Use another file.", code="dead-letters-unwritable"
        ) from error


def _write_letter(file: IO[str], outcome: RowOutcome) -> None:
    """Write a row that failed in a form that can be imported, or as it was if it couldn't be read."""
    from stair_es.labels.rows import LabeledImage

    image = outcome.image
    if isinstance(image, LabeledImage):
        row: dict[str, Any] = {"references": list(image.references), "labels": dict(image.labels), "scale": 1}
    else:
        row = dict(image or {})
    letter = {**row, "failed_row": outcome.where, "failed_reason": outcome.reason}
    file.write(json.dumps(letter, ensure_ascii=True, default=str) + "\n")


def _format_report(report: ImportReport, *, dry_run: bool) -> Iterator[str]:
    counts = report.counts
    forgotten = f", {counts['forgotten']:,} forgotten" if counts["forgotten"] else ""
    verb = "would be written" if dry_run else "written"
    yield (
        f"{counts.total():,} images: {counts['written']:,} {verb}, {counts['unchanged']:,} unchanged, {counts['failed']:,} failed"
        f"{forgotten}; {len(report.labels):,} different labels"
    )
    for reason, count in report.reasons.most_common(len(report.examples)):
        example = next((each.where for each in report.examples if each.reason == reason), "")
        yield f"failed, {count:,}: {reason}" + (f" (such as {example})" if example else "")
