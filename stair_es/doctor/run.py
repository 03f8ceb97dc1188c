"""Run all checks in sequence. A check that cannot run is reported as a result, and the next one follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.cluster.connect import Connection, probe
from stair_es.config import Home
from stair_es.doctor import cluster, compute, index, look, machine, models, python
from stair_es.doctor.finding import Finding, fail, failed, ok, warn
from stair_es.errors import IndexMismatch, QueryError, StairError
from stair_es.search import known
from stair_es.search.index_model import load_model

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.target import Target
    from stair_es.types import Fit


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What to check."""

    connect: Callable[[], Connection | None]
    """Returns the connection to the named cluster, or None. May raise any StairError."""
    index: str
    model: str
    fit: Fit | None = None
    """Overrides the model's own fit."""
    named: bool = True
    """Whether the user named the model. Otherwise it is the default, and the index is checked with its own model."""
    ray_address: str | None = None
    """Address of the Ray cluster that `--runner ray` would join."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Run the checks; yield each result as soon as it is known."""
    home = Home.from_env()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", python.python_here),
        ("packages", python.packages_here),
        ("plugins", python.plugins_here),
        ("machine", machine.machine_here),
        ("accelerator", compute.accelerator_here),
        ("ray", lambda: compute.ray_here(patient.ray_address)),
        ("home", lambda: machine.home_here(home)),
        ("model", lambda: models.model_here(patient.model, home, patient.fit)),
        ("dead letters", lambda: machine.letters_here(home, patient.index)),
        ("cluster", lambda: cluster_here(patient)),
    ]
    for name, check in checks:
        yield from _whole(name, check)


def _whole(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the results of a check, plus one for an error that aborted it."""
    try:
        yield from check()
    except StairError as error:
        yield failed(name, error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield fail(name, f"{where}{error.strerror or error}", "Check the path and its permissions.")
    except Exception as error:  # noqa: BLE001  the other checks may reveal the reason
        yield fail(
            name, f"the check itself failed: {type(error).__name__}: {error}", "Please report it, with `stair-es doctor --json`."
        )


def cluster_here(patient: Patient) -> Iterator[Finding]:
    """Check the named cluster, else the embedded node, and the index in it."""
    connection = patient.connect()
    if connection is None:
        finding, url = cluster.embedded_here()
        yield finding
        if url is None:
            return
        connection = Connection(url=url)
    with closing(connection.client()) as client:
        yield from _reached(client, connection, patient)


def _reached(client: OpenSearch, connection: Connection, patient: Patient) -> Iterator[Finding]:
    target = probe(client, connection)
    login = f", login by {connection.security.method}" if connection.security.method != "none" else ""
    yield ok("cluster", f"{target.label} at {connection.safe_url}{login}")
    facts = look.cluster_facts(client, connection)
    yield from cluster.cluster(facts, target, connection.safe_url)
    if target.distribution == "elasticsearch" and connection.security.method != "none":
        yield from index.rights(look.rights(client, connection, patient.index), patient.index)
    yield from _index(client, connection, patient, target, facts.forbidden)


def _index(
    client: OpenSearch, connection: Connection, patient: Patient, target: Target, forbidden: Sequence[str]
) -> Iterator[Finding]:
    try:
        found = known.look(client, connection, patient.index)
    except QueryError as error:
        yield warn("index", error.message, error.remedy)
        yield from index.unseen(forbidden, patient.index, target.distribution)
        return
    except IndexMismatch as error:
        yield failed("index", error)
        return
    facts = look.index_facts(client, connection, patient.index)
    yield index.found(facts, found.model)
    try:
        _check_model(found, patient)
    except StairError as error:
        yield failed("index model", error)
    yield from index.index(facts, connection.safe_url)
    yield from index.unseen([*forbidden, *facts.forbidden], patient.index, target.distribution)


def _check_model(found: known.Known, patient: Patient) -> None:
    """Raise StairError if the index cannot be searched: with the named model, else with its own."""
    if patient.named:
        model_id = models.model_id(patient.model, patient.fit)
        if model_id is not None:
            found.check_model(model_id)
    else:
        found.check_model(load_model(found, patient.index, fit=patient.fit).model_id)
