"""Run all checks in sequence. A check that cannot run is reported as a result, and the next one follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection, get_cluster_info
from stair_es.config.settings import Settings
from stair_es.doctor import cluster as cluster_checks
from stair_es.doctor import compute, index, machine, models, python
from stair_es.doctor import facts as look
from stair_es.doctor.result import CheckResult, report_error, report_failure, report_ok, report_warning
from stair_es.errors import IndexMismatch, QueryError, StairError
from stair_es.search import index_info
from stair_es.search.index_encoder import load_query_encoder

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import ClusterInfo
    from stair_es.types import ResizeMode


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


def run_checks(patient: CheckContext) -> Iterator[CheckResult]:
    """Run the checks; yield each result as soon as it is known."""
    home = patient.settings.home
    checks: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("python", python.check_python),
        ("packages", python.check_packages),
        ("plugins", python.check_plugins),
        ("machine", machine.check_machine),
        ("accelerator", compute.check_accelerator),
        ("ray", lambda: compute.check_ray(patient.ray_address)),
        ("home", lambda: machine.check_data_dir(home)),
        ("model", lambda: models.check_model_loads(patient.model, patient.settings, patient.fit)),
        ("dead letters", lambda: machine.check_dead_letters(home, patient.index)),
        ("cluster", lambda: check_cluster(patient)),
    ]
    for name, check in checks:
        yield from _run_check(name, check)


def _run_check(name: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """Yield the results of a check, plus one for an error that aborted it."""
    try:
        yield from check()
    except StairError as error:
        yield report_error(name, error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield report_failure(name, f"{where}{error.strerror or error}", "Check the path and its permissions.")
    except Exception as error:  # noqa: BLE001  the other checks may reveal the reason
        yield report_failure(
            name, f"the check itself failed: {type(error).__name__}: {error}", "Please report it, with `stair-es doctor --json`."
        )


def check_cluster(patient: CheckContext) -> Iterator[CheckResult]:
    """Check the named cluster, else the embedded node, and the index in it."""
    connection = patient.connect()
    if connection is None:
        finding, url = cluster_checks.check_embedded_node(patient.environ)
        yield finding
        if url is None:
            return
        connection = Connection(url=url)
    with Cluster(connection) as cluster:
        yield from _check_connected(cluster, patient)


def _check_connected(cluster: Cluster, patient: CheckContext) -> Iterator[CheckResult]:
    target = get_cluster_info(cluster)
    login = f", login by {cluster.connection.security.method}" if cluster.connection.security.method != "none" else ""
    yield report_ok("cluster", f"{target.label} at {cluster.connection.safe_url}{login}")
    facts = look.fetch_cluster_facts(cluster)
    yield from cluster_checks.evaluate_cluster(facts, target, cluster.connection.safe_url)
    if target.distribution == "elasticsearch" and cluster.connection.security.method != "none":
        yield from index.evaluate_rights(look.fetch_privileges(cluster, patient.index), patient.index)
    yield from _check_index(cluster, patient, target, facts.forbidden)


def _check_index(cluster: Cluster, patient: CheckContext, target: ClusterInfo, forbidden: Sequence[str]) -> Iterator[CheckResult]:
    try:
        found = index_info.fetch_index_info(cluster, patient.index)
    except QueryError as error:
        yield report_warning("index", error.message, error.remedy)
        yield from index.report_missing_rights(forbidden, patient.index, target.distribution)
        return
    except IndexMismatch as error:
        yield report_error("index", error)
        return
    facts = look.fetch_index_facts(cluster, patient.index)
    yield index.report_index(facts, found.model)
    try:
        _check_model(found, patient)
    except StairError as error:
        yield report_error("index model", error)
    yield from index.evaluate_index(facts, cluster.connection.safe_url)
    yield from index.report_missing_rights([*forbidden, *facts.forbidden], patient.index, target.distribution)


def _check_model(found: index_info.IndexInfo, patient: CheckContext) -> None:
    """Raise StairError if the index cannot be searched: with the named model, else with its own."""
    if patient.is_model_named:
        model_id = models.find_model_id(patient.model, patient.settings, patient.fit)
        if model_id is not None:
            found.check_model(model_id)
    else:
        encoder = load_query_encoder(found, patient.index, fit=patient.fit, settings=patient.settings)
        found.check_model(encoder.model_id)
