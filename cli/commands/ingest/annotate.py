"""`stair-es annotate`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import EXIT_PARTIAL_FAILURE

from ...options import config_file, shared
from ...options.connections import ConnectionArguments, resolve_connection
from ...options.shared import define_option
from ...output.console import emit_json, stdout
from ...output.ingest import print_dry_run, print_ingest_report
from .arguments import ExecutionArguments, JsonReportOption
from .images import MetricsArguments, list_typed, run_with_progress

if TYPE_CHECKING:
    from stair_es.ingest.options import IngestOptions
    from stair_es.ingest.sinks.annotate import AnnotateOptions, IndexSource

_DOCUMENTS = "Documents"


@dataclass(frozen=True, kw_only=True)
class AnnotateArguments:
    """All arguments of a run of `annotate`."""

    index: Annotated[
        str, typer.Option("--index", "-i", metavar="NAME", help="Index with your documents, or an alias of a single index.")
    ]
    image_field: Annotated[
        str,
        typer.Option("--image-field", metavar="FIELD", help="Field with the image: URL, path or base64; with dots for objects."),
    ]
    image_base: Annotated[
        str,
        define_option(
            "image-base",
            "Folder or URL at which relative paths begin. Local files are only read below such a folder.",
            _DOCUMENTS,
            metavar="FOLDER | URL",
        ),
    ] = ""
    check_images: Annotated[
        bool,
        define_option(
            "check-images", "Ask for each image whether it has changed. By default, the same URL is the same image.", _DOCUMENTS
        ),
    ] = False
    change_field: Annotated[
        bool,
        define_option(
            "change-field",
            "Use another field than earlier runs. Documents without an image in it lose their tokens.",
            _DOCUMENTS,
        ),
    ] = False
    thumbnail_px: Annotated[
        int,
        define_option(
            "thumbnail-px",
            "Longer side of a thumbnail for `stair-es serve`; 0 stores none.",
            _DOCUMENTS,
            metavar="PIXELS",
            min=0,
            max=512,
        ),
    ] = 0
    dead_letters: Annotated[
        Path | None,
        define_option(
            "dead-letters", "JSONL file for failed images. [default: in STAIR_ES_HOME/dead-letters]", _DOCUMENTS, metavar="FILE"
        ),
    ] = None
    dry_run: Annotated[
        bool, define_option("dry-run", "Count what would be read and written, without changing the index.", _DOCUMENTS)
    ] = False
    connection: ConnectionArguments
    model: shared.ModelOption = DEFAULT_MODEL
    fit: shared.FitOption = None
    as_json: JsonReportOption = False
    read: shared.ReadArguments
    execution: ExecutionArguments
    metrics: MetricsArguments

    def build_annotate_options(self) -> AnnotateOptions:
        """Build the options of the source and the sink."""
        from stair_es.ingest.sinks.annotate import AnnotateOptions

        return AnnotateOptions(
            index=self.index,
            image_field=self.image_field,
            image_base=self.image_base,
            check_images=self.check_images,
            change_field=self.change_field,
        )

    def build_options(self, source: IndexSource) -> IngestOptions:
        """Build the options of the run."""
        from stair_es.cluster.bulk.throttle import BulkPolicy
        from stair_es.cluster.documents.document import DocumentSettings
        from stair_es.ingest.accounting.dead_letters import default_dead_letters_path
        from stair_es.ingest.options import IngestOptions
        from stair_es.ingest.sinks.annotate import AnnotateSinkKind
        from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
        from stair_es.sources.base import SourceOptions
        from stair_es.sources.image.decode import DecodeLimits

        execution, settings = self.execution, config_file.get_config().settings
        letters = self.dead_letters or default_dead_letters_path(f"annotate.{self.index}", settings.home if settings else None)
        return IngestOptions(
            alias=self.index,
            model=execution.build_model_spec(self.model, self.fit),
            runner=execution.runner,
            ray=execution.build_ray_options(),
            batch_images=execution.batch_images,
            bulk=BulkPolicy(max_concurrency=execution.bulk_concurrency),
            document=DocumentSettings(thumbnail_px=self.thumbnail_px),
            source=SourceOptions(read_limits=self.read.build_read_limits()),
            decode_limits=DecodeLimits(max_pixels=self.read.max_pixels),
            sink=AnnotateSinkKind(source),
            sink_options=ClusterSinkOptions(),
            dead_letters=letters,
        )


def annotate_command(arguments: AnnotateArguments) -> None:
    """Add token weights to the documents of an index that you already have.

    **Examples**

    ```text
    stair-es annotate --index catalog --image-field image_url
    stair-es annotate --index catalog --image-field media.photo --image-base https://shop.example/media
    stair-es annotate --index archive --image-field scan --image-base /mnt/scans --dry-run
    ```

    Your ids, fields and queries stay as they are: the documents get fields that they don't have yet. Run the command again at any
    time, for example every night: documents that were added, rewritten or given another image are annotated.

    **Exit codes**: 0 if no image failed; 3 if some images failed (they are in the dead-letter file; `--allow-failed` makes it 0);
    1 if the run failed; 2 for a usage error.
    """
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.ingest.pipeline import check_ingest_model
    from stair_es.ingest.sinks.annotate import IndexSource
    from stair_es.telemetry.ingest import open_ingest_telemetry

    connection = resolve_connection(arguments.connection)
    allow_failed = arguments.execution.allow_failed
    with Cluster(connection) as cluster:
        source = IndexSource(cluster, arguments.build_annotate_options())
        options = arguments.build_options(source)
        check_ingest_model(options)
        if arguments.dry_run:
            from stair_es.ingest.dry_run import simulate_ingest

            plan = simulate_ingest([source], connection, options)
            if arguments.as_json:
                emit_json({**plan.to_dict(), "without_image": source.without_image})
            else:
                print_dry_run(plan, arguments.index)
                _print_without_image(source)
            return
        with open_ingest_telemetry(arguments.index, arguments.metrics.build_targets(), allow_failed=allow_failed) as telemetry:
            report = run_with_progress([source], connection, options, telemetry)
    if arguments.as_json:
        emit_json({**report.to_dict(), "without_image": source.without_image})
    else:
        print_ingest_report(report, _build_repeated_command(arguments.connection.context))
        _print_without_image(source)
    if not report.is_complete(allow_failed=allow_failed):
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _print_without_image(source: IndexSource) -> None:
    if source.without_image:
        stdout.print(f"documents without an image: {source.without_image:,}")


def _build_repeated_command(context: Any) -> str:  # noqa: ANN401  Typer's
    """Build the command line of this run, which tries failed images again."""
    root_options = list_typed(context.parent) if context is not None else ()
    return shlex.join(["stair-es", *root_options, "annotate", *list_typed(context)])
