"""Metrics of an ingest, in a file or at a port.

They are read from the run accounting on demand, so that nothing is counted twice.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stair_es.errors import UsageError
from stair_es.ingest.state import STAGES
from stair_es.system.user_files import read_text_file

if TYPE_CHECKING:
    from stair_es.ingest.accounting.run_accounting import RunAccounting

logger = logging.getLogger(__name__)

PREFIX = "stair_es_ingest_"
LAST_SUCCESS = f"{PREFIX}last_success_timestamp_seconds"
_FAILURE_STAGES = ("list", *STAGES)
_WRITE_INTERVAL_S = 10.0
"""Minimum interval between writes of the file during a run."""


@dataclass(eq=False)
class IngestMetrics(Collector):
    """Prometheus collector of one run, from its start until after its end."""

    index: str
    """The alias: label of every series, so that the files of several jobs can be in one folder."""
    start_s: float
    """Seconds since 1970."""
    accounting: RunAccounting | None = None
    """The accounting, once it exists."""
    swap_pending: bool | None = None
    """For a complete run: whether the alias doesn't point to the newly built index yet."""
    end_s: float | None = None
    exit_code: int | None = None
    """Exit code of the command, once the run is over."""
    success_s: float | None = None
    """When a run of this index last completed: this one, or a previous one."""

    def collect(self) -> Iterator[Metric]:
        """Collect the metrics."""
        gauges = (
            ("start_timestamp_seconds", "When the run began.", self.start_s),
            ("end_timestamp_seconds", "When the run ended; absent while it is running.", self.end_s),
            (
                LAST_SUCCESS.removeprefix(PREFIX),
                "When a run last completed, with or without failed images; kept from the previous file until then.",
                self.success_s,
            ),
            (
                "exit_code",
                "Exit code of the command: 0, 3 (some images failed), or another (the run failed); absent before the end.",
                self.exit_code,
            ),
            ("swap_pending", "1: a new index was built, but the alias doesn't point to it yet.", self.swap_pending),
        )
        yield from (self._build_gauge(name, help_text, value) for name, help_text, value in gauges if value is not None)
        if self.accounting is not None:
            yield from self._collect_counts(self.accounting)

    def _collect_counts(self, accounting: RunAccounting) -> Iterator[Metric]:
        yield self._build_counter("listed_images", "Images listed so far.", accounting.listed)
        yield self._build_gauge("listing_done", "1: all images are listed.", accounting.listing_done)
        outcomes: dict[str, float] = {kind: count for kind, count in accounting.get_counts().items() if kind != "seen"}
        yield self._build_counters("images", "Images with an outcome.", "outcome", outcomes)
        stages: dict[str, float] = {stage: accounting.failed_stages[stage] for stage in _FAILURE_STAGES}
        yield self._build_counters("failed_images", "Failed images, by the stage of the failure.", "stage", stages)
        seconds: dict[str, float] = {stage: accounting.stage_seconds.get(stage, 0.0) for stage in STAGES}
        help_text = "Time spent in each stage, summed over all workers, so possibly more than the elapsed time."
        yield self._build_counters("stage_seconds", help_text, "stage", seconds)
        if accounting.encoder_idle is not None:
            help_text = "Share of time in which the encoders were idle, from their first batch to their last."
            yield self._build_gauge("encoder_idle_ratio", help_text, accounting.encoder_idle)
        stats = accounting.bulk_stats
        for name, help_text, count in (
            ("bulk_requests", "Bulk requests.", stats.requests),
            ("bulk_retried_requests", "Bulk requests retried because the cluster was busy.", stats.retried),
            ("bulk_documents", "Documents in bulk requests, including retries.", stats.documents),
            ("bulk_bytes", "Bytes of bulk requests, including retries.", stats.size_bytes),
            ("removed_documents", "Documents removed because their image is gone (--resync).", accounting.removed),
        ):
            yield self._build_counter(name, help_text, count)

    def _build_gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(PREFIX + name, help_text, labels=["index"])
        family.add_metric([self.index], float(value))
        return family

    def _build_counter(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(PREFIX + name, help_text, labels=["index"])
        family.add_metric([self.index], float(value))
        return family

    def _build_counters(self, name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
        family = CounterMetricFamily(PREFIX + name, help_text, labels=["index", label])
        for value, count in values.items():
            family.add_metric([self.index, value], float(count))
        return family


class MetricsTextfile:
    """A file for node_exporter's textfile collector, replaced atomically."""

    def __init__(self, path: Path, run: IngestMetrics) -> None:
        """Write the file once, so that a run with an unwritable file fails at its start."""
        self._path, self._run = path, run
        self._registry = build_registry(run)
        run.success_s = _read_last_success(path, run.index)
        try:
            self._write()
        except OSError as error:
            raise UsageError(
                f"can't write the metrics to {str(path)!r}: {error.strerror or error}",
                "Specify a file in an existing folder.",
                code="metrics-not-written",
            ) from None

    def write_if_due(self) -> None:
        """Write the file, unless it was written recently."""
        if time.monotonic() - self._written_s >= _WRITE_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write the file. A failure is reported, but doesn't end the run."""
        try:
            self._write()
        except OSError as error:
            logger.warning("the metrics in %r are not up to date: %s", str(self._path), error.strerror or error)

    def _write(self) -> None:
        self._written_s = time.monotonic()
        write_to_textfile(str(self._path), self._registry)


@contextmanager
def serve_metrics(run: IngestMetrics, host: str, port: int) -> Iterator[str]:
    """Serve `GET /metrics` until the end of the `with` block, and yield the URL; 0 is any free port.

    Raises:
        UsageError: If the port is taken, or the host is not an address of this machine.
    """
    try:
        server, thread = start_http_server(port, host, build_registry(run))
    except OSError as error:
        is_in_use = error.errno == errno.EADDRINUSE
        reason = "it is in use" if is_in_use else error.strerror or str(error)
        remedy = (
            "Use another port, or 0 for any free one."
            if is_in_use
            else "Specify an address of this machine with --metrics-host, and a port above 1023."
        )
        raise UsageError(
            f"can't serve metrics on {host} port {port}: {reason}", remedy, code="metrics-port-unavailable"
        ) from None
    try:
        url_host = f"[{host}]" if ":" in host else host
        yield f"http://{url_host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build_registry(run: IngestMetrics) -> CollectorRegistry:
    """Build a registry that contains only this run."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(run)
    return registry


def _read_last_success(path: Path, index: str) -> float | None:
    """Read the last success from the file of a previous run; None if there is none, or the file is something else."""
    try:
        families = list(text_string_to_metric_families(read_text_file(path)))
    except (OSError, ValueError):
        return None
    samples = (sample for family in families if family.name == LAST_SUCCESS for sample in family.samples)
    return next((sample.value for sample in samples if sample.labels.get("index") == index), None)
