"""Arguments of `stair-es ingest` and `ingest-texts`: options with their defaults, and the library's options made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_RETAINED_INDICES, DEFAULT_SINK, THUMBNAIL_PX
from stair_es.errors import OptionConflict, UsageError
from stair_es.types import DocumentIdKind, Fit, Runner

from ...options import config_file, shared
from ...options.shared import define_option
from ...output.json_logging import is_json_logging

if TYPE_CHECKING:
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.ingest.executors.ray import RayOptions
    from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
    from stair_es.model.base import ModelSpec
    from stair_es.sources.base import SourceOptions


def _is_json_requested(is_requested: bool) -> bool:
    return is_requested or is_json_logging()


class FirstRunOnly:
    """Mark of an option that a retry doesn't need: the dead letters hold its effect, or it is about one run or whole sources."""


JsonReportOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout.", callback=_is_json_requested), FirstRunOnly
]
"""Option `--json` that `--log-format json` implies: stdout and stderr of a container are one stream."""

_SOURCES, _DOCUMENTS, _INDEX = shared.SOURCES_PANEL, "Documents", "Index"


def _parse_columns(values: list[str]) -> dict[str, str]:
    """Parse `--field a=b,c:float=d --field e=f` into field -> column; `*` is all columns.

    Raises:
        UsageError: If the form is wrong, a field is repeated, or has a reserved name.
    """
    from stair_es.cluster.documents.document import check_field_names
    from stair_es.sources.kinds.fields import NUMBER_TYPES, split_field_type

    columns, names = dict[str, str](), set[str]()
    for part in (part.strip() for text in values for part in text.split(",")):
        field, separator, column = part.partition("=")
        if part == "*":
            field = column = "*"
        elif not (field and separator and column):
            raise UsageError(
                f"not a column mapping: {part!r}",
                "Write --field caption=text,price:float=cost or --field '*'.",
                code="invalid-column-mapping",
            )
        name = split_field_type(field)[0]
        if ":" in name:
            raise UsageError(
                f"no such type: {field!r}",
                f"Write NAME:TYPE=COLUMN with one of {', '.join(NUMBER_TYPES)}.",
                code="unknown-column-type",
            )
        if name in names:
            raise UsageError(f"--field names the field {name!r} twice", "Give each field one column.", code="field-given-twice")
        columns[field] = column
        names.add(name)
    check_field_names(names - {"*"})
    return columns


@dataclass(frozen=True, kw_only=True)
class SourceArguments(shared.ReadArguments):
    """Options for the sources of images."""

    source_format: Annotated[
        str | None,
        define_option(
            "format", "Format of SOURCE if its name doesn't show it; see `stair-es plugins`.", _SOURCES, metavar="NAME"
        ),
        FirstRunOnly,
    ] = None
    columns: Annotated[
        list[str] | None,
        define_option(
            "field",
            "Copy columns to document fields; `*` copies all (repeatable). The TYPE `int` or `float` parses text as a number,"
            " for example in CSV; the output names columns that look like numbers. [default: the caption]",
            _SOURCES,
            metavar="FIELD[:TYPE]=COLUMN,...",
        ),
        FirstRunOnly,
    ] = None
    image_column: Annotated[
        str | None,
        define_option("image-column", "Column with the bytes, path or URL of the image.", _SOURCES, metavar="COLUMN"),
        FirstRunOnly,
    ] = None
    hidden: Annotated[bool, define_option("hidden", "Include hidden files and folders.", _SOURCES), FirstRunOnly] = False
    follow_links: Annotated[
        bool, define_option("follow-links", "Follow symbolic links that lead out of a source folder.", _SOURCES), FirstRunOnly
    ] = False
    skip_raw_pairs: Annotated[
        bool,
        define_option(
            "skip-raw-pairs", "Leave out a RAW file beside a picture of the same name, as cameras write both.", _SOURCES
        ),
        FirstRunOnly,
    ] = False
    retry_failed: Annotated[
        Path | None,
        define_option(
            "retry-failed",
            "Retry the failed images in a dead-letter file of an earlier run.",
            _SOURCES,
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
        FirstRunOnly,
    ] = None

    watch: Annotated[
        bool,
        define_option(
            "watch",
            "After the run, watch local folders, and take in new and changed files about a second after they were stored.",
            _SOURCES,
        ),
        FirstRunOnly,
    ] = False

    def build_source_options(self) -> SourceOptions:
        """Build the options of the sources."""
        from stair_es.sources.base import SourceOptions, WalkOptions

        return SourceOptions(
            format=self.source_format,
            columns=_parse_columns(self.columns or []),
            image_column=self.image_column,
            walk=WalkOptions(hidden=self.hidden, follow_links=self.follow_links, skip_raw_pairs=self.skip_raw_pairs),
            read_limits=self.build_read_limits(),
        )


@dataclass(frozen=True, kw_only=True)
class DocumentArguments:
    """Options for the documents."""

    enrich: Annotated[
        list[str] | None,
        define_option("enrich", "Run an enricher on each image (repeatable).", _DOCUMENTS, metavar="NAME[:KEY=VALUE,...]"),
    ] = None
    thumbnail_px: Annotated[
        int,
        define_option(
            "thumbnail-px",
            "Longer side of the stored thumbnail in pixels; 0 stores none.",
            _DOCUMENTS,
            metavar="PIXELS",
            min=0,
            max=512,
        ),
    ] = THUMBNAIL_PX
    policy: Annotated[
        Path | None,
        define_option(
            "policy",
            "Token policy (JSON) for a new index: mutes, caps, renames and merges words. See `stair-es policy`.",
            _DOCUMENTS,
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None
    impact_field: Annotated[
        bool,
        define_option(
            "impact-field", "Add a field that unmodified BM25 clients can search with `match` (OpenSearch).", _DOCUMENTS
        ),
    ] = False
    vector: shared.VectorOption = "rank_features"
    document_id: Annotated[
        DocumentIdKind,
        define_option("document-id", "What the document id is derived from.", _DOCUMENTS),
    ] = "uri"

    def build_document_settings(self) -> DocumentSettings:
        """Build the settings of the documents."""
        from stair_es.cluster.documents.document import DocumentSettings

        return DocumentSettings(
            thumbnail_px=self.thumbnail_px, impacts=self.impact_field, vector=self.vector, id=self.document_id
        )


@dataclass(frozen=True, kw_only=True)
class BuildArguments:
    """Options for building an index and pointing its alias to it."""

    token_index: Annotated[
        bool | None,
        define_option(
            "token-index/--no-token-index",
            "Maintain, or delete, a token index with the heaviest words of each document, for charts. [default: no change]",
            _INDEX,
        ),
    ] = None
    no_swap: Annotated[bool, define_option("no-swap", "Don't point the alias to a newly built index.", _INDEX), FirstRunOnly] = (
        False
    )
    force_swap: Annotated[
        bool,
        define_option("force-swap", "Point the alias to a newly built index even if it is incomplete.", _INDEX),
        FirstRunOnly,
    ] = False
    retain_indices: Annotated[
        int,
        define_option("retain-indices", "Number of retired indices to keep after a swap.", _INDEX, metavar="N", min=0),
        FirstRunOnly,
    ] = DEFAULT_RETAINED_INDICES
    include_forgotten: Annotated[
        bool,
        define_option(
            "include-forgotten", "Take in what `stair-es forget` keeps out, and take it off the list of forgotten images.", _INDEX
        ),
        FirstRunOnly,
    ] = False
    dead_letters: Annotated[
        Path | None,
        define_option(
            "dead-letters", "JSONL file for failed items. [default: in STAIR_ES_HOME/dead-letters]", _INDEX, metavar="FILE"
        ),
        FirstRunOnly,
    ] = None

    def build_sink_options(self) -> ClusterSinkOptions:
        """Build the options of the built-in sink."""
        from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions

        if self.no_swap and self.force_swap:
            raise OptionConflict("--no-swap and --force-swap are mutually exclusive", "Leave one of them out.")
        return ClusterSinkOptions(
            retain_indices=self.retain_indices,
            swap="never" if self.no_swap else "always" if self.force_swap else "auto",
            token_index=self.token_index,
        )


@dataclass(frozen=True, kw_only=True)
class IndexArguments(BuildArguments):
    """Options for the index, and for where else documents go."""

    resync: Annotated[
        bool, define_option("resync", "Delete documents whose image no longer exists in SOURCE.", _INDEX), FirstRunOnly
    ] = False
    dry_run: Annotated[
        bool,
        define_option("dry-run", "Print what the run would do, without reading images or writing anything.", _INDEX),
        FirstRunOnly,
    ] = False
    no_replicas_while_building: Annotated[
        bool,
        define_option(
            "no-replicas-while-building",
            "Build a new index without replicas. Faster, but losing a node loses the build.",
            _INDEX,
        ),
    ] = False
    mapping: Annotated[
        Path | None,
        define_option(
            "mapping",
            "JSON file with the body of a new index, instead of the built-in one.",
            _INDEX,
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None
    sink: Annotated[
        str,
        define_option("sink", "Sink to write the documents to; see `stair-es plugins`.", _INDEX, metavar="NAME[:KEY=VALUE,...]"),
    ] = DEFAULT_SINK

    def parse_sink(self) -> tuple[str, ClusterSinkOptions | dict[str, str]]:
        """Parse name and options of the sink; those of the built-in one may also be options of the command line.

        Raises:
            UsageError: If the form is wrong, an option of the built-in sink is invalid, or a token index is requested from
                another sink.
        """
        from stair_es.ingest.enrichers.base import parse_named_options

        name, sink_options = parse_named_options("a sink", self.sink)
        build_options = self.build_sink_options()
        if name == DEFAULT_SINK:
            build_options = replace(
                build_options, no_replicas_while_building=self.no_replicas_while_building, mapping=self.mapping
            )
            return name, build_options.override(sink_options)
        if self.token_index:
            raise UsageError(f"the sink {name!r} has no token index", "Leave --token-index out.", code="sink-without-token-index")
        return name, sink_options


@dataclass(frozen=True, kw_only=True)
class ExecutionArguments:
    """Options for where and how the work runs."""

    runner: Annotated[
        Runner,
        define_option(
            "runner",
            "Where to run: in this process (`local`) or on Ray. `auto` is Ray with a --ray-address or several GPUs.",
            shared.EXECUTION_PANEL,
        ),
    ] = "auto"
    ray_address: shared.RayAddressOption = None
    gpus_per_encoder: Annotated[
        float,
        define_option(
            "gpus-per-encoder",
            "GPUs per encoder on Ray; may be fractional, 0 for CPU only.",
            shared.EXECUTION_PANEL,
            metavar="X",
            min=0.0,
        ),
    ] = 1.0
    encoders: Annotated[
        str,
        define_option(
            "encoders",
            "Number of encoders on Ray, 0 for as many as fit. MIN..MAX begins with MIN of them, and uses nodes that join later.",
            shared.EXECUTION_PANEL,
            metavar="N | MIN..MAX",
        ),
    ] = "0"
    batch_images: Annotated[
        int,
        define_option(
            "batch-size", "Images per encoder batch; 0 chooses it by device.", shared.EXECUTION_PANEL, metavar="N", min=0
        ),
    ] = 0
    bulk_concurrency: Annotated[
        int,
        define_option(
            "bulk-concurrency",
            "Maximum of concurrent bulk requests of all workers together; 0: 8, on Ray at least 2 per worker.",
            shared.EXECUTION_PANEL,
            metavar="N",
            min=0,
        ),
    ] = 0
    backend: shared.BackendOption = "auto"
    precision: shared.PrecisionOption = "auto"
    allow_failed: Annotated[
        bool,
        define_option(
            "allow-failed",
            "Exit with 0 instead of 3 if some images failed, for containers and scheduled jobs.",
            shared.EXECUTION_PANEL,
            envvar="STAIR_ES_ALLOW_FAILED",
            show_envvar=True,
        ),
    ] = False

    def build_model_spec(self, name: str, fit: Fit | None) -> ModelSpec:
        """Build the spec of a model that runs as these options say."""
        from stair_es.model.base import ModelSpec

        settings = config_file.get_config().settings
        return ModelSpec(name=name, fit=fit, backend=self.backend, precision=self.precision, settings=settings)

    def build_ray_options(self) -> RayOptions:
        """Build the options of the Ray executor."""
        from stair_es.ingest.executors.ray import RayOptions, parse_encoders

        min_encoders, encoders = parse_encoders(self.encoders)
        return RayOptions(
            address=self.ray_address, gpus_per_encoder=self.gpus_per_encoder, encoders=encoders, min_encoders=min_encoders
        )
