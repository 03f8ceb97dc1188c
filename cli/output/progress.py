"""Progress of long work on stderr: bars on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from .bars import escape_control
from .console import print_notice, stderr

if TYPE_CHECKING:
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.training.callbacks import StepMetrics
    from stair_es.types import PartProgressCallback, ProgressCallback

_LINE_EVERY_S = 10.0
_DESCRIPTION = TextColumn("{task.description}", markup=False)


class ProgressReporter:
    """Progress bars on stderr if it is a terminal; otherwise reports when the next line is due."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._progress = Progress(*columns, console=stderr) if stderr.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._line_at_s = time.monotonic()

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None and self._tasks:
            self._progress.stop()

    @property
    def has_bars(self) -> bool:
        """Whether stderr is a terminal."""
        return self._progress is not None

    def is_line_due(self) -> bool:
        """Return whether the last line is ten seconds old; if so, the next one is due in ten seconds."""
        now = time.monotonic()
        if now - self._line_at_s < _LINE_EVERY_S:
            return False
        self._line_at_s = now
        return True

    def update_bar(self, part: str, done: int, total: int | None, description: str | None = None) -> None:
        """Update the bar of a part of the work, and add it on its first update.

        `total` is None if not known yet; `description` is the text next to the bar, by default the name of the part.
        """
        if self._progress is None:
            return
        if part not in self._tasks:
            self._progress.start()
            self._tasks[part] = self._progress.add_task(part, total=total)
        shown = part if description is None else description
        self._progress.update(self._tasks[part], completed=done, total=total, description=shown)

    def print_above(self, text: str) -> None:
        """Print a line above the bars."""
        if self._progress is not None:
            self._progress.console.print(text, highlight=False)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed of a task."""
        return Text(f"{task.speed:,.1f} {self._unit}/s" if task.speed else f"- {self._unit}/s")


@contextmanager
def show_ingest_progress(unit: str = "images") -> Iterator[Callable[[RunAccounting], None]]:
    """Yield a callback that shows how far an ingest is. The total grows until everything is listed."""
    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(unit), TextColumn("ETA"), TimeRemainingColumn(), _DESCRIPTION)
    with ProgressReporter(*columns) as reporter:
        start_s = time.monotonic()

        def update_progress(accounting: RunAccounting) -> None:
            if reporter.has_bars:
                total = accounting.listed if accounting.listing_done else None
                reporter.update_bar("", accounting.done_count, total, _describe_ingest(accounting))
            elif reporter.is_line_due():
                _print_ingest_line(accounting, unit, time.monotonic() - start_s)

        yield update_progress


def _describe_ingest(accounting: RunAccounting) -> str:
    failed = f"{accounting.outcome_counts['failed']} failed" if accounting.outcome_counts["failed"] else ""
    listing = "" if accounting.listing_done else f"{accounting.listed:,} listed so far"
    return " ".join(filter(None, (listing, failed, escape_control(accounting.waiting_message))))


def _print_ingest_line(accounting: RunAccounting, unit: str, seconds: float) -> None:
    rate = accounting.done_count / seconds if seconds else 0.0
    remaining, failed = accounting.listed - accounting.done_count, accounting.outcome_counts["failed"]
    eta = f"ETA {remaining / rate if rate else 0.0:,.0f} s" if accounting.listing_done else "still listing"
    print_notice(
        f"{accounting.done_count:,}/{accounting.listed:,} {unit}, {rate:,.1f} {unit}/s, {eta}, {failed} failed"
        + (f", {escape_control(accounting.waiting_message)}" if accounting.waiting_message else ""),
        done=accounting.done_count,
        listed=accounting.listed,
        listing_done=accounting.listing_done,
        failed=failed,
        per_s=round(rate, 1),
        waiting=accounting.waiting_message,
    )


@contextmanager
def show_document_progress() -> Iterator[ProgressCallback]:
    """Yield a callback that takes the documents done and all documents."""
    with ProgressReporter(BarColumn(), MofNCompleteColumn(), TextColumn("documents, ETA"), TimeRemainingColumn()) as reporter:
        reporter.update_bar("", 0, None)

        def update_progress(done: int, total: int) -> None:
            reporter.update_bar("", done, total)
            if not reporter.has_bars and reporter.is_line_due():
                print_notice(f"{done:,}/{total:,} documents", done=done, total=total)

        yield update_progress


@contextmanager
def show_download_progress() -> Iterator[ProgressCallback]:
    """Yield a callback that takes the bytes received and all bytes."""
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with ProgressReporter(*columns) as reporter:
        start_s = time.monotonic()

        def update_progress(done: int, total: int) -> None:
            reporter.update_bar("", done, total)
            if not reporter.has_bars and reporter.is_line_due():
                left_s = (time.monotonic() - start_s) * (total - done) / max(done, 1)
                text = f"fetched {done / 1e6:.0f} of {total / 1e6:.0f} MB, {left_s:.0f} s left"
                print_notice(text, bytes=done, total_bytes=total)

        yield update_progress


@contextmanager
def show_evaluation_progress() -> Iterator[PartProgressCallback]:
    """Yield a callback that takes a part of an evaluation, its steps done and all its steps.

    Without a terminal, the end of a part is a line, too.
    """
    with ProgressReporter(_DESCRIPTION, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as reporter:

        def update_progress(part: str, done: int, total: int) -> None:
            _update_part(reporter, part, done, total)

        yield update_progress


def _update_part(reporter: ProgressReporter, part: str, done: int, total: int) -> None:
    reporter.update_bar(part, done, total)
    if not reporter.has_bars and (reporter.is_line_due() or done == total):
        print_notice(f"{part}: {done:,} of {total:,}", part=part, done=done, total=total)


@contextmanager
def show_training_progress() -> Iterator[tuple[Callable[[StepMetrics], None], PartProgressCallback]]:
    """Yield two callbacks: for what a training reports, and for a part of the work with its steps done and all its steps."""
    columns = (_DESCRIPTION, BarColumn(), MofNCompleteColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with ProgressReporter(*columns) as reporter:
        print_line = _make_training_printer(reporter)

        def report_metrics(metrics: StepMetrics) -> None:
            if not reporter.has_bars:
                print_line(metrics)
            elif "loss" in metrics.values:
                reporter.update_bar("steps", metrics.step, metrics.steps, _describe_training(metrics))
            else:
                reporter.print_above(_describe_training(metrics))

        def update_progress(part: str, done: int, total: int) -> None:
            _update_part(reporter, part, done, total)

        yield report_metrics, update_progress


def _make_training_printer(reporter: ProgressReporter) -> Callable[[StepMetrics], None]:
    """Return a function that prints a report of a training, losses only where a line is due."""
    first_step: int | None = None
    start_s = 0.0

    def print_line(metrics: StepMetrics) -> None:
        nonlocal first_step, start_s
        if first_step is None:
            first_step, start_s = metrics.step, time.monotonic()
        if "loss" not in metrics.values or reporter.is_line_due() or metrics.step == metrics.steps:
            rate = (metrics.step - first_step) / max(time.monotonic() - start_s, 1e-9)
            eta = f", ETA {(metrics.steps - metrics.step) / rate:,.0f} s" if rate and metrics.step < metrics.steps else ""
            text = _describe_training(metrics) + eta
            print_notice(text, step=metrics.step, steps=metrics.steps, stage=metrics.stage, **metrics.values)

    return print_line


def _describe_training(metrics: StepMetrics) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.values.items())
    speed = f", {metrics.pairs_per_s:,.0f} pairs/s, {metrics.memory_mb:,.0f} MB" if metrics.pairs_per_s else ""
    return f"step {metrics.step:,} of {metrics.steps:,} ({metrics.stage}): {values}{speed}"
