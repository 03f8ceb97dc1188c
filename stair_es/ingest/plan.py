"""The plan for the sink and the configuration of the workers, from the options of an ingest."""

from __future__ import annotations

from dataclasses import replace

from stair_es import plugins
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.errors import UsageError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.sinks.base import SinkKind, SinkPlan, SinkSession
from stair_es.ingest.sinks.cluster_options import ClusterPlan, ClusterSinkOptions
from stair_es.ingest.stages import WorkerConfig
from stair_es.model.registry import Model, resolve_model


def load_sink_kind(options: IngestOptions) -> SinkKind:
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


def resolve_ingest_model(options: IngestOptions) -> Model:
    """Resolve the model of an ingest. On Ray the workers load it, which may have other libraries than this process."""
    return resolve_model(options.model, runs_here=options.runner != "ray" and options.ray.address is None)


def build_sink_plan(options: IngestOptions, model: Model, connection: Connection | None) -> SinkPlan:
    """Build the plan for the sink of a run.

    Raises:
        ModelError: If the model has no tokens.
    """
    model.check_indexable()
    index_spec = IndexSpec(
        model_name=model.portable_name,
        model_id=model.card.model_id,
        fit=model.card.image_spec.fit,
        settings=options.settings,
    )
    plan = SinkPlan(
        alias=options.alias,
        digest=index_spec.digest,
        options=options.sink_options,
        policy=options.policy,
        connection=connection,
        resync=options.resync,
    )
    if not isinstance(options.sink_options, ClusterSinkOptions):
        return plan
    return ClusterPlan(
        **vars(plan),
        index_spec=index_spec,
        document=options.document,
        bulk=options.bulk,
        settings=options.model.settings,
    )


def build_worker_config(options: IngestOptions, model: Model, session: SinkSession) -> WorkerConfig:
    """Build the configuration of the workers."""
    return WorkerConfig(
        writer=session.writer,
        is_empty=session.is_empty,
        model=model.portable_spec,  # workers may have another working directory
        model_id=model.card.model_id,
        image_spec=model.card.image_spec,
        document=options.document,
        read_limits=replace(options.source.read_limits, defer=options.source.read_limits.url_policy.patience_s > 0),
        decode_limits=options.decode_limits,
        is_text=options.noun == "text",
        enrichers=options.enrichers,
        enricher_versions=options.enricher_versions,
        policy=session.choose_policy(options.policy),
    )
