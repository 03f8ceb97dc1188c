"""The installed `stair-es ingest` in a separate process, and the same run within this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source

from .corpus import MODEL, Corpus

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))
BATCH_IMAGES = 4
"""Small, so that a run with few images sends many bulk requests."""
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    code: int
    report: Mapping[str, Any]
    """The last JSON object that it printed; empty without one."""
    stderr: str
    wrong: tuple[str, ...] = field(init=False)
    """Problems with the way in which it ended."""

    @property
    def error(self) -> str:
        """The reported error; empty without one."""
        return str(self.report.get("error", ""))

    def __post_init__(self) -> None:
        wrong = ["it ended with a traceback"] if "Traceback (most recent call last)" in self.stderr else []
        if self.code not in (0, 3, -signal.SIGKILL) and not self.error:
            wrong.append(f"exit code {self.code} without a JSON object that says why")
        object.__setattr__(self, "wrong", tuple(wrong))


class Command:
    """`stair-es ingest` with the model of the corpus, in a process group of its own."""

    def __init__(
        self,
        corpus: Corpus,
        url: str,
        index: str,
        *options: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        common = ("--model", MODEL, "--batch-size", str(BATCH_IMAGES), "--url", url, "--index", index, "--json")
        self._process = subprocess.Popen(
            [*prefix, STAIR_ES, "ingest", str(corpus.images), *common, *(options or ("--runner", "local"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**corpus.environment, **(environment or {})},
            start_new_session=True,
        )
        self._said: tuple[str, str] | None = None
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Return whether it ends within the timeout."""
        try:
            self._said = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Send SIGKILL to its whole process group."""
        os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> CommandResult:
        """Wait for its end."""
        out, err = self._said or self._process.communicate(timeout=_TIMEOUT_S)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        return CommandResult(self._process.returncode, json.loads(lines[-1]) if lines else {}, err)


def run_in_process(
    sources: Sequence[str | Path], url: str, index: str, dead_letters: Path, *, model: str = MODEL, **sink: str
) -> IngestReport:
    """Do the same run in this process, which saves the second to start one.

    Raises:
        StairError: If it failed.
    """
    options = IngestOptions(
        alias=index,
        model=ModelSpec(name=model),
        runner="local",
        batch_images=BATCH_IMAGES,
        sink_options=ClusterSinkOptions().override(sink),
        dead_letters=dead_letters,
    )
    opened = [open_source(str(source)) for source in sources]
    return run_ingest(opened, Connection(url=url, timeout_s=60), options, progress=lambda _: None)
