"""Options of an ingest, and the plan for the sink and the configuration of the workers that follow from them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from stair_es import plugins
from stair_es.cluster.bulk.writer import BulkPolicy
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.metadata.token_fields import MAX_IDS, TokenIds
from stair_es.errors import ModelError, ResourceError, UsageError
from stair_es.ingest.enrichers.base import EnricherSpec, get_enricher
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.sinks.base import SinkKind, SinkPlan, SinkSession
from stair_es.ingest.sinks.features import HasPolicy, HasTokenIds
from stair_es.ingest.stages import WorkerConfig
from stair_es.model import registry
from stair_es.model.base import ModelSpec, VocabularyProvider
from stair_es.sources.base import SourceOptions
from stair_es.sources.image.decode import DecodeLimits
from stair_es.token_policy import TokenPolicy
from stair_es.types import Json

Runner: TypeAlias = Literal["auto", "local", "ray"]

RAY_MIN_IMAGES = 5_000
"""Number of images from which `auto` selects Ray; below, starting it takes longer than it saves."""
LISTING_WAIT_S = 5.0
"""How long to wait for the listing before the runner is chosen."""
_SEISMIC_REMEDY = "Leave --vector seismic out: `rank_features` accept any token."


@dataclass(frozen=True, kw_only=True)
class BaseIngestOptions(ABC):
    """Options of every ingest."""

    alias: str
    model: ModelSpec
    document: DocumentSettings = field(default_factory=DocumentSettings)
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    sink: str = "cluster"
    sink_options: Mapping[str, str] = field(default_factory=dict)
    policy: TokenPolicy | None = None
    """Token policy of a new index; an existing index has its own."""
    dead_letters: Path | None = None

    @property
    @abstractmethod
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents: others don't go into the same index."""


@dataclass(frozen=True, kw_only=True)
class IngestOptions(BaseIngestOptions):
    """Options of an ingest of images."""

    runner: Runner = "auto"
    ray: RayOptions = field(default_factory=RayOptions)
    batch_images: int = 0
    """Number of images per encoder batch; 0 to select it for the device."""
    source: SourceOptions = field(default_factory=SourceOptions)
    decode_limits: DecodeLimits = field(default_factory=DecodeLimits)
    enrichers: tuple[EnricherSpec, ...] = ()
    resync: bool = False
    """Remove the documents whose image is no longer in the sources."""

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents.

        Raises:
            ResourceError: If the custom mapping can't be read.
        """
        return {
            **asdict(self.document),
            "enrichers": [*_get_enricher_versions(self)],
            "mapping": _hash_mapping(self.sink_options.get("mapping")),
        }


def choose_runner(options: IngestOptions, images: int, *, all_listed: bool) -> tuple[Literal["local", "ray"], str]:
    """Return the runner, and the reason for the choice."""
    if options.runner != "auto":
        return options.runner, "requested by --runner"
    if options.ray.address:
        return "ray", "--ray-address is given"
    if find_spec("ray") is None:
        return "local", "Ray isn't installed"
    if images >= RAY_MIN_IMAGES:
        return "ray", f"{RAY_MIN_IMAGES:,} images or more"
    if not all_listed:
        return "local", f"fewer than {RAY_MIN_IMAGES:,} images listed in the first {LISTING_WAIT_S:.0f} s"
    return "local", f"fewer than {RAY_MIN_IMAGES:,} images: starting Ray would take longer than it saves"


@dataclass(frozen=True)
class ModelTokens:
    """The tokens of a model, known before an image is encoded."""

    tokens: tuple[str, ...] = ()
    """All tokens that a vector can have; empty if the index keeps no token ids."""
    largest_weight: float | None = None
    """Largest possible weight of a token; None if unknown."""


def find_model_tokens(spec: ModelSpec, settings: DocumentSettings) -> ModelTokens:
    """Return the tokens of a model, if documents need token ids. Reads the vocabulary, but loads no network.

    Raises:
        ModelError: If the model doesn't expose its tokens, or has more than the plugin can number.
    """
    if settings.vector != "seismic":
        return ModelTokens()
    encoder = registry.load_encoder(spec)
    if not isinstance(encoder, VocabularyProvider):
        raise ModelError(f"the model {spec.name!r} doesn't expose its tokens, so they can't be numbered", _SEISMIC_REMEDY)
    tokens = tuple(encoder.tokens)
    if len(tokens) > MAX_IDS:
        raise ModelError(
            f"the model {spec.name!r} has {len(tokens):,} tokens, and OpenSearch's SEISMIC supports only {MAX_IDS:,}",
            _SEISMIC_REMEDY,
        )
    return ModelTokens(tokens, 1.0 if getattr(encoder, "unit_length", False) else None)


def build_sink_plan(options: BaseIngestOptions, connection: Connection | None, started_at: str) -> SinkPlan:
    """Build the plan for the sink of a run that began at `started_at` (see `get_timestamp`).

    Raises:
        UsageError: If token ids are requested for a sink other than the built-in one.
        ModelError: If the tokens of the model can't have ids, or the model is broken.
    """
    if options.document.vector == "seismic" and options.sink != "cluster":
        raise UsageError(f"the sink {options.sink!r} keeps no token ids", "Leave --vector seismic out.")
    card = registry.get_indexable_card(options.model.name, options.model.fit, options.model.settings)
    model_tokens = find_model_tokens(options.model, options.document)
    return SinkPlan(
        alias=options.alias,
        index_spec=IndexSpec(
            model_name=registry.make_portable_name(options.model.name),
            model_id=card.model_id,
            fit=card.image_spec.fit,
            settings=options.settings,
            tokens=model_tokens.tokens,
        ),
        document=options.document,
        bulk=options.bulk,
        connection=connection,
        options=options.sink_options,
        policy=options.policy,
        largest_weight=model_tokens.largest_weight,
        started_at=started_at,
        settings=options.model.settings,
    )


def _hash_mapping(mapping: str | None) -> str | None:
    """Return the digest of a custom mapping, so that changing the mapping builds a new index."""
    try:
        return hashlib.sha256(Path(mapping).read_bytes()).hexdigest()[:16] if mapping else None
    except OSError as error:
        raise ResourceError(f"can't read the mapping {mapping}: {error.strerror}", "Specify a readable file.") from error


def build_worker_config(options: IngestOptions, session: SinkSession) -> WorkerConfig:
    """Build the configuration of the workers."""
    card = registry.get_indexable_card(options.model.name, options.model.fit, options.model.settings)
    return WorkerConfig(
        writer=session.writer,
        is_empty=session.is_empty,
        # workers may have another working directory
        model=replace(options.model, name=registry.make_portable_name(options.model.name)),
        model_id=card.model_id,
        image_spec=card.image_spec,
        document=options.document,
        read_limits=replace(options.source.read_limits, defer=options.source.read_limits.url_policy.patience_s > 0),
        decode_limits=options.decode_limits,
        enrichers=options.enrichers,
        enricher_versions=_get_enricher_versions(options),
        policy=get_session_policy(session, options),
        token_ids=get_session_token_ids(session),
    )


def get_session_policy(session: SinkSession, options: BaseIngestOptions) -> TokenPolicy | None:
    """Return the token policy of a run: that of the sink, if it can have one."""
    return session.policy if isinstance(session, HasPolicy) else options.policy


def get_session_token_ids(session: SinkSession) -> TokenIds | None:
    """Return the token ids of the sink, if it has any."""
    return session.token_ids if isinstance(session, HasTokenIds) else None


def _get_enricher_versions(options: IngestOptions) -> tuple[str, ...]:
    return tuple(f"{spec.name}={get_enricher(spec).version}" for spec in options.enrichers)


def load_sink_kind(options: BaseIngestOptions) -> SinkKind:
    """Load the sink kind named in the options.

    Raises:
        UsageError: If there is none of this name.
        PluginError: If it can't be loaded.
    """
    plugin = plugins.get_plugin("sinks", options.sink)
    if plugin is None:
        names = ", ".join(plugins.list_plugin_names("sinks"))
        raise UsageError(f"unknown sink {options.sink!r}", f"Known sinks: {names or 'none: reinstall stair-es'}.")
    kind: SinkKind = plugin.load()
    return kind
