"""Options of an ingest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.config.defaults import DEFAULT_SINK
from stair_es.errors import ResourceError, UsageError
from stair_es.ingest.enrichers.base import EnricherSpec, get_enricher
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.sinks.base import SinkKind
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.model.base import ModelSpec
from stair_es.model.cuda import count_cuda_devices
from stair_es.sources.base import SourceOptions
from stair_es.sources.image.decode import DecodeLimits
from stair_es.system.user_files import read_bytes_file
from stair_es.token_policy import TokenPolicy
from stair_es.types import Json, Runner


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """Options of an ingest of images; see `TextIngestOptions` for texts."""

    noun: ClassVar[Literal["image", "text"]] = "image"
    alias: str
    model: ModelSpec
    document: DocumentSettings = field(default_factory=DocumentSettings)
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    sink: str | SinkKind = DEFAULT_SINK
    """Name of the sink kind, or the kind itself."""
    sink_options: ClusterSinkOptions | Mapping[str, str] = field(default_factory=dict)
    """Options of the sink, as of `--sink`; those of the built-in one become `ClusterSinkOptions`."""
    policy: TokenPolicy | None = None
    """Token policy of a new index; an existing index has its own."""
    dead_letters: Path | None = None
    runner: Runner = "auto"
    ray: RayOptions = field(default_factory=RayOptions)
    batch_images: int = 0
    """Number of images per encoder batch; 0 to select it for the device."""
    source: SourceOptions = field(default_factory=SourceOptions)
    decode_limits: DecodeLimits = field(default_factory=DecodeLimits)
    enrichers: tuple[EnricherSpec, ...] = ()
    include_forgotten: bool = False
    """Take forgotten images off their list, instead of leaving them out."""
    resync: bool = False
    """Remove the documents whose image is no longer in the sources."""

    def __post_init__(self) -> None:
        """Parse the options of the built-in sink."""
        if self.sink == DEFAULT_SINK:
            if not isinstance(self.sink_options, ClusterSinkOptions):
                object.__setattr__(self, "sink_options", ClusterSinkOptions().override(self.sink_options))
        elif isinstance(self.sink_options, ClusterSinkOptions) and isinstance(self.sink, str):
            raise UsageError(
                f"the options are those of the sink {DEFAULT_SINK!r}, not of {self.sink!r}",
                "Give it a mapping.",
                code="options-of-other-sink",
            )

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents: others don't go into the same index."""
        return {
            **asdict(self.document),
            "enrichers": [*self.enricher_versions],
            "mapping": _hash_mapping(self.sink_options.mapping) if isinstance(self.sink_options, ClusterSinkOptions) else None,
        }

    @property
    def untyped_columns(self) -> Mapping[str, str]:
        """The columns to copy, if the types of their fields follow from the values; none with a mapping of the user's own."""
        has_mapping = isinstance(self.sink_options, ClusterSinkOptions) and self.sink_options.mapping
        return {} if has_mapping else self.source.columns

    @property
    def enricher_versions(self) -> tuple[str, ...]:
        """Name and version of each enricher."""
        return tuple(f"{spec.name}={get_enricher(spec).version}" for spec in self.enrichers)

    @property
    def field_types(self) -> dict[str, str | Mapping[str, Any]]:
        """The types of fields of enrichers that don't follow from their values."""
        types = (getattr(get_enricher(spec), "field_types", {}) for spec in self.enrichers)
        return {name: type_ for each in types for name, type_ in each.items()}


def choose_runner(options: IngestOptions) -> tuple[Literal["local", "ray"], str]:
    """Return the runner, and the reason for the choice.

    On one machine threads are as fast as Ray, and start sooner. Only several GPUs need several processes.
    """
    if options.runner != "auto":
        return options.runner, "requested by --runner"
    if options.ray.address:
        return "ray", "--ray-address is given"
    if options.ray.gpus_per_encoder and (gpus := count_cuda_devices()) > 1 and find_spec("ray"):
        return "ray", f"{gpus} GPUs"
    return "local", "one machine"


def _hash_mapping(mapping: Path | None) -> str | None:
    """Return the digest of a custom mapping, so that changing the mapping builds a new index."""
    try:
        return hashlib.sha256(read_bytes_file(mapping)).hexdigest()[:16] if mapping else None
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"can't read the mapping {mapping}: {error}", "Specify a JSON file.", code="mapping-unreadable"
        ) from error
