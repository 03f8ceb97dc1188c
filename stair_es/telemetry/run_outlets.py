"""Where the metrics of a run go: into a file for node_exporter, and to whoever asks at a port."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from stair_es.errors import UsageError
from stair_es.telemetry.run_metrics import LAST_SUCCESS, Run

_EVERY_S = 10.0
"""How often the file is written while a run goes on."""


class Textfile:
    """A file in the form of node_exporter's textfile collector: a reader sees the old one or the new one, whole."""

    def __init__(self, path: Path, run: Run, say: Callable[[str], None]) -> None:
        """The file, written once: a run that can't write it had better not begin.

        Raises:
            UsageError: It can't be written.
        """
        self._path, self._run, self._say = path, run, say
        self._registry = registry_of(run)
        run.success_s = _last_success(path, run.index)
        try:
            self._write()
        except OSError as error:
            raise UsageError(
                f"can't write the metrics to {str(path)!r}: {error.strerror or error}", "Name a file in a folder that is there."
            ) from None

    def now_and_then(self) -> None:
        """Write it, if it was not written lately."""
        if time.monotonic() - self._written_s >= _EVERY_S:
            self.write()

    def write(self) -> None:
        """Write it. A full disk is said, and no reason to end a run."""
        try:
            self._write()
        except OSError as error:
            self._say(f"the metrics in {str(self._path)!r} are not up to date: {error.strerror or error}")

    def _write(self) -> None:
        self._written_s = time.monotonic()
        write_to_textfile(str(self._path), self._registry)


@contextmanager
def served(run: Run, host: str, port: int) -> Iterator[str]:
    """`GET /metrics` answers until the end of the `with`; gives its URL.

    Args:
        run: What is told.
        host: The address to listen on.
        port: 0 for any free one.

    Raises:
        UsageError: The port is taken, or the host none of this machine's.
    """
    try:
        server, thread = start_http_server(port, host, registry_of(run))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        told = "it is taken" if taken else error.strerror or str(error)
        remedy = (
            "Take another one, or 0 for any free one."
            if taken
            else "Name an address of this machine with --metrics-host, and a port above 1023."
        )
        raise UsageError(f"can't serve metrics on {host} port {port}: {told}", remedy) from None
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def registry_of(run: Run) -> CollectorRegistry:
    """A registry with nothing but this run in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(run)
    return registry


def _last_success(path: Path, index: str) -> float | None:
    """What the file of an earlier run says; None without one, or where it is something else."""
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    samples = (sample for family in families if family.name == LAST_SUCCESS for sample in family.samples)
    return next((sample.value for sample in samples if sample.labels.get("index") == index), None)
