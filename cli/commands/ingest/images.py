"""`stair-es ingest`."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import typer

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_MODEL, DEFAULT_SINK, ENV_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, OptionConflict, UsageError

from ...options import shared
from ...options.connections import ConnectionArguments, resolve_connection
from ...options.decorator import add_failure_facts
from ...options.shared import define_option
from ...output.console import emit_json, print_notice
from ...output.ingest import note_default_model, print_dry_run, print_ingest_report
from .arguments import (
    DocumentArguments,
    ExecutionArguments,
    FirstRunOnly,
    IndexArguments,
    JsonReportOption,
    SourceArguments,
)
from .watch import watch_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stair_es.cluster.client.connection import Connection
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.options import IngestOptions
    from stair_es.model.registry import Model
    from stair_es.sources.base import Source, SourceOptions
    from stair_es.telemetry.ingest import IngestTelemetry, MetricsTargets

_Context: TypeAlias = Any
"""Typer context of a command, or click context of its group; None outside of a command."""
_LOGIN, _VALUE = re.compile(r"//[^/@]*@"), re.compile(r"=[^,]*")
_METRICS = "Metrics"
_LOOPBACK = "127.0.0.1"
_Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="Files, folders and globs; s3://, gs://, az://, hf:// and other URLs; tables (.parquet, .csv, .jsonl);"
        " tars (shards-{000..099}.tar); lists of URLs (.txt); hf-dataset://NAME; - for stdin.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class MetricsArguments:
    """Options for metrics of the run."""

    metrics_file: Annotated[
        Path | None,
        define_option(
            "metrics-file",
            "Write metrics to this file during the run, for the textfile collector of node_exporter.",
            _METRICS,
            metavar="FILE.prom",
            dir_okay=False,
        ),
        FirstRunOnly,
    ] = None
    metrics_port: Annotated[
        int | None,
        define_option(
            "metrics-port",
            "Port to serve Prometheus metrics on during the run; 0 picks a free port.",
            _METRICS,
            metavar="PORT",
            min=0,
            max=65535,
        ),
        FirstRunOnly,
    ] = None
    metrics_host: Annotated[
        str,
        define_option("metrics-host", "Address to serve metrics on; 0.0.0.0 for all interfaces.", _METRICS, metavar="ADDRESS"),
        FirstRunOnly,
    ] = _LOOPBACK

    def build_targets(self) -> MetricsTargets:
        """Return the metrics targets."""
        from stair_es.telemetry.ingest import MetricsTargets

        if self.metrics_host != _LOOPBACK and self.metrics_port is None:
            raise UsageError(
                "--metrics-host without --metrics-port", "Add the port: --metrics-port 9464.", code="metrics-host-without-port"
            )
        return MetricsTargets(file=self.metrics_file, port=self.metrics_port, host=self.metrics_host)


@dataclass(frozen=True, kw_only=True)
class IngestArguments:
    """All arguments of a run of `ingest`."""

    sources: _Sources = None
    index: Annotated[
        str,
        typer.Option(
            "--index", "-i", envvar=ENV_INDEX, show_envvar=True, metavar="ALIAS", help="Alias of the index to write to."
        ),
        FirstRunOnly,
    ] = DEFAULT_INDEX
    connection: ConnectionArguments
    model: shared.OptionalModelOption = None
    fit: shared.FitOption = None
    as_json: JsonReportOption = False
    source: SourceArguments
    document: DocumentArguments
    target: IndexArguments
    execution: ExecutionArguments
    metrics: MetricsArguments

    def build_options(self) -> IngestOptions:
        """Build the options of the run."""
        from stair_es.cluster.bulk.throttle import BulkPolicy
        from stair_es.config.policy_file import load_policy
        from stair_es.ingest.enrichers.base import EnricherSpec
        from stair_es.ingest.options import IngestOptions
        from stair_es.sources.image.decode import DecodeLimits

        source, execution = self.source.build_source_options(), self.execution
        enrichers = tuple(EnricherSpec.parse(text) for text in self.document.enrich or [])
        sink, sink_options = self.target.parse_sink()
        return IngestOptions(
            alias=self.index,
            model=execution.build_model_spec(self.model or DEFAULT_MODEL, self.fit),
            runner=execution.runner,
            ray=execution.build_ray_options(),
            batch_images=execution.batch_images,
            bulk=BulkPolicy(max_concurrency=execution.bulk_concurrency),
            document=self.document.build_document_settings(),
            source=source,
            decode_limits=DecodeLimits(max_pixels=self.source.max_pixels),
            enrichers=enrichers,
            sink=sink,
            sink_options=sink_options,
            policy=load_policy(self.document.policy) if self.document.policy else None,
            resync=self.target.resync,
            include_forgotten=self.target.include_forgotten,
            dead_letters=self.target.dead_letters,
        )


def ingest_command(arguments: IngestArguments) -> None:
    """Encode images and write them to an index of the search cluster.

    **Examples**

    ```text
    stair-es ingest ~/Pictures --index photos
    stair-es ingest s3://bucket/products/ --index products --resync
    stair-es ingest 'laion/{00000..00099}.tar' --field caption=txt,license=license --runner ray
    stair-es ingest items.parquet --image-column url --field caption=title,price=price --index shop
    stair-es ingest --retry-failed failed.jsonl --index photos
    stair-es ingest ~/Pictures --index photos --watch
    ```

    Images that are already in the index and haven't changed are skipped. Run the command again after a crash to resume, or every
    night to update the index.

    **Exit codes**: 0 if no image failed; 3 if some images failed (they are in the dead-letter file; `--allow-failed` makes it 0)
    or some documents of the token index could not be written; 1 if the run failed; 2 for a usage error.
    """
    if not _run(arguments):
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _run(arguments: IngestArguments) -> bool:
    """Run the command, and return whether all images are in the index."""
    from stair_es.ingest.pipeline import check_ingest_model
    from stair_es.telemetry.ingest import open_ingest_telemetry

    _check_arguments(arguments)
    options = arguments.build_options()
    check_ingest_model(options)
    if arguments.target.dry_run:
        _run_dry(arguments, options)
        return True
    allow_failed = arguments.execution.allow_failed
    targets = arguments.metrics.build_targets()
    with open_ingest_telemetry(arguments.index, targets, allow_failed=allow_failed) as telemetry:
        if arguments.source.watch:
            watch_sources(
                options,
                open_sources=partial(_open_sources, arguments, options.source),
                connection=_resolve_connection(arguments, options),
                run=partial(run_with_progress, telemetry=telemetry),
                as_json=arguments.as_json,
            )
            return True
        report = _run_ingest(arguments, options, telemetry)
    if arguments.model is None and report.written and not arguments.as_json:
        note_default_model(DEFAULT_MODEL)
    return report.is_complete(allow_failed=allow_failed)


def _check_arguments(arguments: IngestArguments) -> None:
    """Check the alias and the dead letters to retry."""
    from stair_es.cluster.metadata.names import check_alias_name

    check_alias_name(arguments.index)
    if arguments.source.watch:
        check_watch_options(arguments)
    if arguments.source.retry_failed is not None:
        check_retry_index(arguments.source.retry_failed, arguments.index, arguments.connection.context)


def _run_ingest(arguments: IngestArguments, options: IngestOptions, telemetry: IngestTelemetry) -> IngestReport:
    """Run the ingest, and print its report."""
    sources = _open_sources(arguments, options.source)
    report = run_with_progress(sources, _resolve_connection(arguments, options), options, telemetry)
    if arguments.as_json:
        emit_json(report.to_dict())
    else:
        retry = build_retry_command(report.dead_letters or "", report.alias, arguments.connection.context)
        print_ingest_report(report, retry)
    return report


def run_with_progress(
    sources: Sequence[Source],
    connection: Connection | None,
    options: IngestOptions,
    telemetry: IngestTelemetry,
    model: Model | None = None,
) -> IngestReport:
    """Run an ingest with a progress bar and telemetry. An interrupted or failed one says what it stored."""
    from stair_es.ingest.pipeline import run_ingest
    from stair_es.ingest.run import open_run_accounting

    from ...output.progress import show_ingest_progress

    if connection is not None:
        connection = replace(connection, request_hooks=telemetry.request_hooks)
    with open_run_accounting(options) as accounting:
        add_failure_facts(accounting.get_counts)
        telemetry.record_start(accounting)
        try:
            with show_ingest_progress() as progress:
                report = run_ingest(
                    sources,
                    connection,
                    options,
                    progress=progress,
                    accounting=accounting,
                    on_batch=telemetry.record_batch,
                    model=model,
                )
        except (KeyboardInterrupt, SystemExit):
            if accounting.listed:
                done, listed = accounting.done_count, accounting.listed
                print_notice(f"stopped with {done:,} of {listed:,} images done; the next run resumes from there")
            raise
    telemetry.record_report(report)
    return report


def check_watch_options(arguments: IngestArguments) -> None:
    """Raise OptionConflict for an option that `--watch` excludes."""
    excluded = {
        "--dry-run": arguments.target.dry_run,
        "--retry-failed": arguments.source.retry_failed is not None,
        "--runner ray": arguments.execution.runner == "ray" or arguments.execution.ray_address is not None,
    }
    for option, is_given in excluded.items():
        if is_given:
            raise OptionConflict(f"--watch and {option} are mutually exclusive", f"Leave {option} or --watch out.")


def _run_dry(arguments: IngestArguments, options: IngestOptions) -> None:
    """Print what the ingest would do."""
    from stair_es.ingest.dry_run import simulate_ingest

    sources = _open_sources(arguments, options.source)
    report = simulate_ingest(sources, _resolve_connection(arguments, options), options)
    if arguments.as_json:
        emit_json(report.to_dict())
    else:
        print_dry_run(report, options.alias)


def _open_sources(arguments: IngestArguments, options: SourceOptions) -> list[Source]:
    """Open the sources, and the dead letters to retry."""
    from stair_es.sources.registry import open_source

    retry_failed, dead_letters = arguments.source.retry_failed, arguments.target.dead_letters
    if not arguments.sources and retry_failed is None:
        raise UsageError(
            "neither SOURCE nor --retry-failed given",
            "Specify files, folders, URLs or tables: stair-es ingest ~/Pictures",
            code="no-sources",
        )
    if retry_failed is not None and dead_letters is not None and retry_failed.resolve() == dead_letters.resolve():
        raise OptionConflict("--retry-failed and --dead-letters name the same file", "Use another file for --dead-letters.")
    sources = [open_source(argument, options) for argument in arguments.sources or ()]
    if retry_failed is None:
        return sources
    return [*sources, open_source(str(retry_failed), replace(options, format="dead-letters"))]


def _resolve_connection(arguments: IngestArguments, options: IngestOptions) -> Connection | None:
    """Return the connection to the cluster; None if the sink needs none."""
    connection = arguments.connection
    return resolve_connection(connection) if options.sink == DEFAULT_SINK or connection.url else None


def check_retry_index(dead_letters: Path, index: str, context: _Context) -> None:
    """Raise UsageError if the dead letters belong to another index, unless the command line names this one explicitly."""
    from stair_es.ingest.accounting.dead_letters import read_alias

    alias = read_alias(dead_letters)
    if alias is None or alias == index or _is_typed(context, "index"):
        return
    raise UsageError(
        f"the dead letters in {dead_letters} belong to the index {alias!r}, and this run would write into {index!r}",
        f"Add --index {alias}. To write them into the other index, add --index {index}.",
        code="dead-letters-of-other-index",
    )


def build_retry_command(dead_letters: str, index: str, context: _Context) -> str:
    """Build the command line that retries the dead letters of a run, with the options of that run."""
    root_options = list_typed(context.parent) if context is not None else ()
    return shlex.join(
        ["stair-es", *root_options, "ingest", "--retry-failed", dead_letters, "--index", index, *list_typed(context)]
    )


def list_typed(context: _Context) -> Iterator[str]:
    """Yield the options of the command line that a retry needs, quoted as typed."""
    for parameter in context.command.params if context is not None else ():
        name = parameter.name or ""
        if parameter.param_type_name != "option" or not _is_typed(context, name) or _is_first_run_only(context, name):
            continue
        value = context.params.get(name)
        if isinstance(value, bool):
            yield (parameter.opts if value else parameter.secondary_opts)[0]
            continue
        for element in value if isinstance(value, (list, tuple)) else [value]:
            yield from (parameter.opts[0], _mask_secrets(name, str(element)))


def _mask_secrets(name: str, value: str) -> str:
    """Mask logins in URLs, and the values of plugin options."""
    if name == "ray_address":
        from stair_es.system.ray_session import mask_ray_address

        return mask_ray_address(value)
    return _VALUE.sub("=...", value) if name in ("sink", "enrich") else _LOGIN.sub("//...@", value)


def _is_first_run_only(context: _Context, name: str) -> bool:
    declared = inspect.signature(context.command.callback).parameters.get(name)
    return declared is not None and FirstRunOnly in get_args(declared.annotation)


def _is_typed(context: _Context, name: str) -> bool:
    source = context.get_parameter_source(name) if context is not None else None
    return source is not None and source.name == "COMMANDLINE"
