"""Metrics options of `stair-es ingest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError

from .decorator import ArgumentGroup

if TYPE_CHECKING:
    from stair_es.telemetry.ingest import MetricsTargets

_PANEL = "Metrics"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class MetricsArguments:
    """Metrics options of a command."""

    metrics_file: Annotated[
        Path | None,
        typer.Option(
            "--metrics-file",
            metavar="FILE.prom",
            dir_okay=False,
            help="Write metrics to this file during the run, for the textfile collector of node_exporter.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=0,
            max=65535,
            help="Port to serve Prometheus metrics on during the run; 0 picks a free port.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    metrics_host: Annotated[
        str,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="Address to serve metrics on; 0.0.0.0 for all interfaces.",
            rich_help_panel=_PANEL,
        ),
    ] = _LOOPBACK


METRICS_OPTIONS = ArgumentGroup(MetricsArguments)


def get_metrics_targets() -> MetricsTargets:
    """Return the metrics targets of the running command.

    Raises:
        UsageError: If a host is given without a port.
    """
    from stair_es.telemetry.ingest import MetricsTargets

    arguments = METRICS_OPTIONS.read()
    if arguments.metrics_host != _LOOPBACK and arguments.metrics_port is None:
        raise UsageError("--metrics-host without --metrics-port", "Add the port: --metrics-port 9464.")
    return MetricsTargets(file=arguments.metrics_file, port=arguments.metrics_port, host=arguments.metrics_host)
