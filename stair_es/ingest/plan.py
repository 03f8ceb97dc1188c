"""The plan for the sink and the configuration of the workers, from the options of an ingest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stair_es import plugins
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.metadata.token_fields import MAX_IDS, TokenIds
from stair_es.errors import ModelError, UsageError
from stair_es.ingest.options import BaseIngestOptions, IngestOptions
from stair_es.ingest.sinks.base import SinkKind, SinkPlan, SinkSession
from stair_es.ingest.sinks.features import HasPolicy, HasTokenIds
from stair_es.ingest.stages import WorkerConfig
from stair_es.model import registry
from stair_es.model.base import ModelSpec, VocabularyProvider
from stair_es.token_policy import TokenPolicy

_SEISMIC_REMEDY = "Leave --vector seismic out: `rank_features` accept any token."


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


def build_sink_plan(options: BaseIngestOptions, connection: Connection | None) -> SinkPlan:
    """Build the plan for the sink of a run.

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
        settings=options.model.settings,
        resync=isinstance(options, IngestOptions) and options.resync,
    )


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
        enricher_versions=options.enricher_versions,
        policy=get_session_policy(session, options),
        token_ids=get_session_token_ids(session),
    )


def get_session_policy(session: SinkSession, options: BaseIngestOptions) -> TokenPolicy | None:
    """Return the token policy of a run: that of the sink, if it can have one."""
    return session.policy if isinstance(session, HasPolicy) else options.policy


def get_session_token_ids(session: SinkSession) -> TokenIds | None:
    """Return the token ids of the sink, if it has any."""
    return session.token_ids if isinstance(session, HasTokenIds) else None
