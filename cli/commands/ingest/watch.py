"""`stair-es ingest --watch`: rounds of an ingest, each of what has changed below local folders."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, cast

from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    IndexMismatch,
    IngestError,
    NotASearchCluster,
    StairError,
    UnsupportedTarget,
    UsageError,
)

from ...output.console import emit_json, print_error, print_notice, stdout
from ...output.ingest import print_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stair_es.cluster.client.connection import Connection
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.options import IngestOptions
    from stair_es.model.registry import Model
    from stair_es.sources.base import Source
    from stair_es.sources.kinds.files import ImageFileSource
    from stair_es.sources.watch import FolderChanges, FolderWatcher

_WAIT_S = 3600.0
_MAX_BACKOFF_S = 60.0
_PERMANENT = (AuthenticationFailed, IndexMismatch, NotASearchCluster, UnsupportedTarget)
_COUNTS = ("written", "unchanged", "failed", "forgotten", "removed")


class RoundRunner(Protocol):
    """Runs an ingest."""

    def __call__(
        self, sources: Sequence[Source], connection: Connection | None, options: IngestOptions, *, model: Model | None
    ) -> IngestReport:
        """Run it, and return its report."""


def watch_sources(
    options: IngestOptions,
    *,
    open_sources: Callable[[], list[Source]],
    connection: Connection | None,
    run: RoundRunner,
    as_json: bool,
) -> None:
    """Ingest the sources, then what changes below their folders, until the user interrupts it.

    Args:
        options: Options of each round.
        open_sources: Opens the sources, for each round again.
        connection: The cluster, for a sink that writes into one.
        run: Runs a round.
        as_json: Whether each report is printed as JSON.

    Raises:
        UsageError: If a source isn't a local folder.
        StairError: If a round fails for a reason that doesn't go away.
    """
    from stair_es.ingest.pipeline import resolve_ingest_model
    from stair_es.sources.watch import FolderWatcher

    options = replace(options, runner="local")
    watcher = FolderWatcher([_get_folder(source) for source in open_sources()])
    model = resolve_ingest_model(options).keep_loaded()
    rounds = _Rounds(options=options, open_sources=open_sources, connection=connection, run=run, model=model, as_json=as_json)
    try:
        with watcher:  # before the first round, which may take hours
            rounds.run_all(watcher)
    except KeyboardInterrupt:
        counts = ", ".join(f"{rounds.totals[name]:,} {name}" for name in _COUNTS if rounds.totals[name])
        print_notice(f"stopped watching after {rounds.count:,} rounds: {counts or 'no image'}", **rounds.totals)


def _get_folder(source: Source) -> str:
    folder = getattr(source, "watched_folder", None)
    if folder is None:
        raise UsageError(
            f"--watch can't watch {source.uri}",
            "Give folders on this machine, or globs of them. For other sources, run stair-es ingest regularly.",
            code="source-not-watchable",
        )
    return str(folder)


@dataclass(kw_only=True)
class _Rounds:
    """The rounds, and what they add up to."""

    options: IngestOptions
    open_sources: Callable[[], list[Source]]
    connection: Connection | None
    run: RoundRunner
    model: Model
    as_json: bool
    count: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    _index: str = ""
    """The index of the last round."""
    _has_answered: bool = False

    def run_all(self, watcher: FolderWatcher) -> None:
        """Run rounds until an exception. If the cluster or a folder is lost later, try again at growing intervals."""
        from stair_es.sources.watch import FolderChanges

        changes, backoff_s = FolderChanges(is_complete=False), 0.0
        while True:
            try:
                is_whole = self._run_round(changes)
            except StairError as error:
                if not self._is_temporary(error):
                    raise
                backoff_s = min(2 * backoff_s or 1.0, _MAX_BACKOFF_S)
                print_error(error)
                print_notice(f"trying again in {backoff_s:.0f} s")
                time.sleep(backoff_s)
                changes = changes.merge(watcher.take_changes(0.0))
                continue
            backoff_s, changes = 0.0, FolderChanges(is_complete=is_whole)
            if self.count == 1:
                print_notice("watching for changes; Ctrl-C stops")
                logging.getLogger("stair_es").setLevel(logging.WARNING)  # each round is one line
            while not changes:
                changes = watcher.take_changes(_WAIT_S)

    def _is_temporary(self, error: StairError) -> bool:
        """Return whether a round may succeed later. Until the cluster has answered once, the URL may be wrong."""
        if error.code in ("no-such-file", "dead-letters-in-use"):
            return bool(self._index)
        permanent = (AuthenticationFailed,) if self._has_answered else _PERMANENT
        is_temporary = isinstance(error, ClusterError) and not isinstance(error, permanent)
        self._has_answered |= is_temporary and not isinstance(error, ClusterUnreachable)
        return is_temporary

    def _run_round(self, changes: FolderChanges) -> bool:
        """Run a round of changes; return False if the index was created in it, and so lacks everything else."""
        options, sources = self.options, self.open_sources()
        is_partial = changes.is_complete and not (changes.has_deleted and options.resync)
        if is_partial:
            if not changes.paths:
                return True
            for source in cast("list[ImageFileSource]", sources):
                source.select_changed(changes.paths)
            options = replace(options, resync=False)
            _remove_letters(options, changes.paths)
        try:
            report = self.run(sources, self.connection, options, model=self.model)
        except (IngestError, UsageError) as error:
            if error.code != "no-images" and not (error.code == "nothing-matches" and self._index):
                raise
            self.count += not self.count
            return True
        self.count += 1
        self.totals.update({name: getattr(report, name) for name in _COUNTS})
        self._has_answered = True
        is_whole, self._index = not is_partial or report.index == self._index, report.index
        self._print_report(report)
        return is_whole

    def _print_report(self, report: IngestReport) -> None:
        if self.as_json:
            emit_json(report.to_dict())
            return
        counts = ", ".join(
            f"{getattr(report, name):,} {name}" for name in _COUNTS if name in _COUNTS[:3] or getattr(report, name)
        )
        stdout.print(f"round {self.count:,}: {report.seen:,} images: {counts} in {report.seconds:.1f} s", style="bold")
        if self.count == 1 or report.failed or report.not_swapped_reason:
            print_outcome(report)


def _remove_letters(options: IngestOptions, paths: Iterable[str]) -> None:
    """Remove the dead letters of images that are tried again."""
    from stair_es.config.settings import resolve_settings
    from stair_es.ingest.accounting.dead_letters import DeadLetters, default_dead_letters_path
    from stair_es.sources.io.uris import to_file_uri

    home = resolve_settings(options.model.settings).home
    path = options.dead_letters or default_dead_letters_path(options.alias, home)
    changed = frozenset(map(to_file_uri, paths))

    def is_changed(uri: str) -> bool:
        place = uri.partition("#")[0]
        while place and place not in changed:
            place = place.rpartition("/")[0]
        return bool(place)

    if path.is_file():
        DeadLetters(path, options.alias, home).remove_images(is_changed)
