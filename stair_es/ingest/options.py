"""How an ingest goes about it, and what follows from that for the sink and the workers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from stair_es import plugins
from stair_es.cluster.bulk import BulkPolicy
from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.index import Identity
from stair_es.cluster.token_ids import MAX_IDS
from stair_es.errors import ModelError, ResourceError, UsageError
from stair_es.ingest.enrich import EnricherSpec, build
from stair_es.ingest.run_ray import RayOptions
from stair_es.ingest.sink import HasPolicy, HasTokenIds, Session, SinkKind, SinkPlan
from stair_es.ingest.stages import Job
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec, Vocabulary
from stair_es.policy import WordPolicy
from stair_es.sources.decode import DecodeLimits
from stair_es.sources.item import SourceOptions
from stair_es.types import Json

Runner: TypeAlias = Literal["auto", "local", "ray"]

RAY_FROM_IMAGES = 5_000
"""`auto` takes Ray from here on: below, starting it costs more than it brings."""
PEEK_S = 5.0
"""How long to wait for a slow listing before the runner is chosen."""
_REMEDY = "Leave --vector seismic out: `rank_features` take any token."


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How an ingest goes about it."""

    alias: str
    model: ModelSpec
    runner: Runner = "auto"
    ray: RayOptions = field(default_factory=RayOptions)
    batch_images: int = 0
    """How many images an encoder takes at once; 0 for what suits the device."""
    document: DocumentSettings = field(default_factory=DocumentSettings)
    source: SourceOptions = field(default_factory=SourceOptions)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    enrichers: tuple[EnricherSpec, ...] = ()
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    sink: str = "cluster"
    sink_options: dict[str, str] = field(default_factory=dict)
    policy: WordPolicy | None = None
    """For a new index; one that is there has its own."""
    resync: bool = False
    """Remove the documents whose image is no longer in the sources."""
    dead_letters: Path | None = None


def choose_runner(options: IngestOptions, images: int, *, all_listed: bool) -> tuple[Literal["local", "ray"], str]:
    """The runner and the reason, for people."""
    if options.runner != "auto":
        return options.runner, "asked for by --runner"
    if options.ray.address:
        return "ray", "--ray-address is given"
    if find_spec("ray") is None:
        return "local", "Ray isn't installed"
    if images >= RAY_FROM_IMAGES:
        return "ray", f"{RAY_FROM_IMAGES:,} images or more"
    if not all_listed:
        return "local", f"fewer than {RAY_FROM_IMAGES:,} images listed in the first {PEEK_S:.0f} s"
    return "local", f"fewer than {RAY_FROM_IMAGES:,} images: starting Ray would cost more than it brings"


@dataclass(frozen=True)
class KnownTokens:
    """What is known of a model's tokens before an image is encoded."""

    tokens: tuple[str, ...] = ()
    """All that a vector can have; none where the index keeps no ids."""
    largest_weight: float | None = None
    """That a token can have; None where nobody knows."""


def find_tokens(spec: ModelSpec, settings: DocumentSettings) -> KnownTokens:
    """Return the tokens of a model, if documents are to have their ids. Reads the vocabulary, but loads no network.

    Raises:
        ModelError: If the model doesn't tell its tokens, or has more than the plugin can number.
    """
    if settings.vector != "seismic":
        return KnownTokens()
    encoder = catalogue.load(spec)
    if not isinstance(encoder, Vocabulary):
        raise ModelError(f"the model {spec.name!r} doesn't tell which tokens it can give, so they can't be numbered", _REMEDY)
    tokens = tuple(encoder.features)
    if len(tokens) > MAX_IDS:
        raise ModelError(
            f"the model {spec.name!r} has {len(tokens):,} tokens, and OpenSearch's SEISMIC tells only {MAX_IDS:,} apart",
            _REMEDY,
        )
    return KnownTokens(tokens, 1.0 if getattr(encoder, "unit_length", False) else None)


def plan(options: IngestOptions, connection: Connection | None, began: str) -> SinkPlan:
    """What a run with these options that began at `began` (see `batch.now`) wants of its sink.

    Raises:
        UsageError: Ids of tokens are asked of a sink that isn't the built-in one.
        ModelError: The tokens of the model can't have ids, or the model is broken.
    """
    if options.document.vector == "seismic" and options.sink != "cluster":
        raise UsageError(f"the sink {options.sink!r} keeps no ids of tokens", "Leave --vector seismic out.")
    card = catalogue.indexable(options.model.name, options.model.fit)
    known = find_tokens(options.model, options.document)
    settings: dict[str, Json] = {
        **asdict(options.document),
        "enrichers": [*_enricher_versions(options)],
        "mapping": _digest_of(options.sink_options.get("mapping")),
    }
    return SinkPlan(
        alias=options.alias,
        identity=Identity(
            model_name=catalogue.absolute(options.model.name),
            model_id=card.model_id,
            fit=card.image_spec.fit,
            settings=settings,
            tokens=known.tokens,
        ),
        document=options.document,
        bulk=options.bulk,
        connection=connection,
        options=options.sink_options,
        policy=options.policy,
        largest_weight=known.largest_weight,
        began=began,
    )


def _digest_of(mapping: str | None) -> str | None:
    """So that another body of the user's own is another index, whatever differs in it."""
    try:
        return hashlib.sha256(Path(mapping).read_bytes()).hexdigest()[:16] if mapping else None
    except OSError as error:
        raise ResourceError(f"can't read the mapping {mapping}: {error.strerror}", "Name a readable file.") from error


def job_of(options: IngestOptions, session: Session) -> Job:
    """What the workers of a run with these options need."""
    card = catalogue.indexable(options.model.name, options.model.fit)
    return Job(
        writer=session.writer,
        fresh=session.fresh,
        model=replace(options.model, name=catalogue.absolute(options.model.name)),  # workers may have another working directory
        model_id=card.model_id,
        image_spec=card.image_spec,
        document=options.document,
        reading=replace(options.source.reading, defer=options.source.reading.urls.patience_s > 0),
        limits=options.limits,
        enrichers=options.enrichers,
        enricher_versions=_enricher_versions(options),
        policy=session.policy if isinstance(session, HasPolicy) else options.policy,
        token_ids=session.token_ids if isinstance(session, HasTokenIds) else None,
    )


def _enricher_versions(options: IngestOptions) -> tuple[str, ...]:
    return tuple(f"{spec.name}={build(spec).version}" for spec in options.enrichers)


def sink_kind(options: IngestOptions) -> SinkKind:
    """The sink that the options name.

    Raises:
        UsageError: There is none of this name.
        PluginError: It can't be loaded.
    """
    plugin = plugins.named("sinks", options.sink)
    if plugin is None:
        known = ", ".join(plugins.names("sinks"))
        raise UsageError(f"unknown sink {options.sink!r}", f"Known sinks: {known or 'none: reinstall stair-es'}.")
    kind: SinkKind = plugin.load()
    return kind
