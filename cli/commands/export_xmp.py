"""`stair-es export-xmp`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, get_args

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE

from ..options import shared
from ..options.connections import ConnectionArguments, open_cluster
from ..output.bars import escape_control
from ..output.console import emit_json, print_notice, stdout

_MAX_REASONS = 5
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", file_okay=False, help="Write below this folder. [default: next to each image, as IMAGE.xmp]"
    ),
]
_Words = Annotated[int, typer.Option("-k", metavar="N", min=1, max=1000, help="Largest number of words of an image.")]
_MinWeight = Annotated[float, typer.Option("--min-weight", metavar="X", min=0.0, help="Smallest weight of a word.")]
_Labels = Annotated[bool, typer.Option("--labels", help="Write the labels of `stair-es ingest-labels`, too.")]
_Prefix = Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Begin each keyword with this text, such as `auto/`.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what would be written, without writing.")]


def export_xmp_command(
    out: _Out = None,
    k: _Words = 10,
    min_weight: _MinWeight = 0.25,
    labels: _Labels = False,
    prefix: _Prefix = "",
    dry_run: _DryRun = False,
    as_json: shared.JsonOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
) -> None:
    """Write the words of images as keywords into XMP sidecars, which photo managers read.

    **Examples**

    ```text
    stair-es export-xmp --index photos --dry-run
    stair-es export-xmp --index photos --prefix "auto/" --labels
    stair-es export-xmp --index photos --out sidecars
    ```

    Writes `IMAGE.xmp` for each local file, with its heaviest words in `dc:subject`. A sidecar that another program wrote is kept.
    Run the command again at any time: only those whose words have changed are written.

    **Exit codes**: 0 if no sidecar failed; 3 if some failed; 1 if the run failed; 2 for a usage error.
    """
    from stair_es.labels.sidecars import SidecarKind, SidecarOptions, write_sidecars

    from ..output.progress import show_document_progress

    options = SidecarOptions(
        min_weight=min_weight, max_words=k, labels=labels, prefix=prefix, folder=out and out.absolute(), dry_run=dry_run
    )
    counts, failures = Counter[str](), Counter[str]()
    with open_cluster(connection) as cluster, show_document_progress() as progress:
        for outcome in write_sidecars(cluster, index, options, progress):
            counts[outcome.kind] += 1
            if outcome.kind == "failed":
                failures[outcome.reason] += 1
    if as_json:
        kinds = {kind: counts[kind] for kind in get_args(SidecarKind)}
        emit_json({"images": counts.total(), **kinds, "dry_run": dry_run, "failure_reasons": dict(failures)})
    else:
        written = "would be written" if dry_run else "written"
        stdout.print(
            f"{counts.total():,} images: {counts['written']:,} sidecars {written}, {counts['unchanged']:,} unchanged,"
            f" {counts['kept']:,} of other programs kept, {counts['without']:,} without such words,"
            f" {counts['skipped']:,} not local files, {counts['failed']:,} failed"
        )
        for reason, count in failures.most_common(_MAX_REASONS):
            print_notice(f"failed, {count:,}: {escape_control(reason)}")
    if counts["failed"]:
        raise typer.Exit(EXIT_PARTIAL_FAILURE)
