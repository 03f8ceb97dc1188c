"""Metrics options of `stair-es ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError

from .decorator import OptionGroup

if TYPE_CHECKING:
    from stair_es.telemetry.ingest import MetricsTargets

_PANEL = "Metrics"
_LOOPBACK = "127.0.0.1"
METRICS_OPTIONS = OptionGroup(
    {
        "metrics_file": (
            Annotated[
                Path | None,
                typer.Option(
                    "--metrics-file",
                    metavar="FILE.prom",
                    dir_okay=False,
                    help="Write metrics for node_exporter's textfile collector, during and at the end of the run.",
                    rich_help_panel=_PANEL,
                ),
            ],
            None,
        ),
        "metrics_port": (
            Annotated[
                int | None,
                typer.Option(
                    "--metrics-port",
                    min=0,
                    max=65535,
                    help="Serve metrics to Prometheus during the run; 0 for any free port.",
                    rich_help_panel=_PANEL,
                ),
            ],
            None,
        ),
        "metrics_host": (
            Annotated[
                str,
                typer.Option(
                    "--metrics-host",
                    help="Address to serve metrics on; 0.0.0.0 for all interfaces.",
                    rich_help_panel=_PANEL,
                ),
            ],
            _LOOPBACK,
        ),
    }
)
"""Metrics options of a command; `get_metrics_targets` reads them."""


def get_metrics_targets() -> MetricsTargets:
    """Return the metrics targets of the running command.

    Raises:
        UsageError: If a host is given without a port.
    """
    from stair_es.telemetry.ingest import MetricsTargets

    given = METRICS_OPTIONS.values
    if given["metrics_host"] != _LOOPBACK and given["metrics_port"] is None:
        raise UsageError("--metrics-host without --metrics-port", "Add the port: --metrics-port 9464.")
    return MetricsTargets(file=given["metrics_file"], port=given["metrics_port"], host=given["metrics_host"])
