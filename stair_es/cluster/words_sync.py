"""The words index as a function of its main index: compared page by page at the end of each run, and mended.

What was not done by a run that was killed is a difference like any other, so there is nothing else to remember.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.bulk import BulkPolicy, BulkWriter
from stair_es.cluster.connect import Connection
from stair_es.cluster.own_alias import ensure_write_alias
from stair_es.cluster.retry import persistently
from stair_es.cluster.steer_body import Layout
from stair_es.cluster.words_index import delete_orphans, look, make, publish, words_name
from stair_es.cluster.words_plan import outdated, superfluous
from stair_es.cluster.words_read import Asked, MainSide, WordsSide
from stair_es.cluster.words_settle import Settler
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_LINE_EVERY_S = 10.0
_DOCUMENTS_AT_ONCE = 5000
"""Words are small: a request may have more of them than of images."""


@dataclass(frozen=True, kw_only=True)
class WordsReport:
    """What was done to a words index."""

    index: str
    written: int
    """Documents, one a word."""
    deleted: int
    failed: int
    """Words that the cluster refused for good, and images whose words can't be read."""
    images: int
    """That it has words of now."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Of some failures, by document."""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in ("index", "written", "deleted", "failed", "images")}


def reconcile(
    client: OpenSearch,
    connection: Connection,
    alias: str,
    index: str,
    say: Callable[[str], None],
    policy: BulkPolicy | None = None,
) -> WordsReport | None:
    """Make the words index of `index` what it has to be, which it may not be yet, and let its alias stand for it where due.

    Args:
        client: Of the cluster.
        connection: Of that client.
        alias: What people search.
        index: The one behind it, or the build of the next one; refreshed.
        say: Is told what was done, and now and then how far it is.
        policy: Of the requests that write.

    Returns:
        What was done; None where somebody deleted the words index meanwhile.

    Raises:
        IndexMismatch: A name is someone else's, or the images can't be read page by page.
        ClusterError: The cluster failed. What was written stays, and the next run does the rest.
    """
    name = words_name(index)
    state = look(client, connection, alias)
    state.check()
    if name not in state.of:
        make(client, connection, alias, index)
    try:
        ensure_write_alias(client, connection, name)
        report = _synced(client, connection, index, say, policy or BulkPolicy())
        publish(client, connection, alias, index)
    except ClusterError:
        if _exists(client, connection, name):
            say(f"words index {name}: not complete, the next run goes on with it")
            raise
        say(f"words index {name}: somebody deleted it meanwhile")
        return None
    gone = delete_orphans(client, connection, alias)
    if gone:
        say(f"deleted, since their indices are gone: {', '.join(gone)}")
    _tell(report, say)
    return report


def _exists(client: OpenSearch, connection: Connection, name: str) -> bool:
    try:
        there: bool = persistently(partial(client.indices.exists, index=name), connection)
    except ClusterError:  # the first error says more
        return True
    return there


def _synced(
    client: OpenSearch, connection: Connection, index: str, say: Callable[[str], None], policy: BulkPolicy
) -> WordsReport:
    described = persistently(partial(client.indices.get, index=index), connection)[index]
    name = words_name(index)
    main = MainSide(
        asked=Asked(client=client, connection=connection, index=index),
        properties=described["mappings"].get("properties", {}),
    )
    words = WordsSide(asked=Asked(client=client, connection=connection, index=name))
    settler = Settler(
        main=main,
        words=words,
        writer=BulkWriter(
            client=client,
            connection=connection,
            index=name,
            policy=replace(policy, max_chunk_docs=_DOCUMENTS_AT_ONCE),
        ),
        top_words=Layout.of(described, 0).top_words,
    )
    sync = _Sync(main, words, settler, say)
    sync.run()
    return WordsReport(
        index=name,
        written=settler.written,
        deleted=settler.deleted,
        failed=settler.failed,
        images=words.image_count(),
        reasons=settler.reasons,
    )


@dataclass
class _Sync:
    main: MainSide
    words: WordsSide
    settler: Settler
    say: Callable[[str], None]
    expected: int = 0
    """Documents that the words index has to have, if the images don't change meanwhile."""
    told_s: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        self._refresh()
        self._forward()
        self._refresh()
        if self.words.document_count() != self.expected:
            self._backward()
            self._refresh()

    def _refresh(self) -> None:
        asked = self.words.asked
        persistently(partial(asked.client.indices.refresh, index=asked.index), asked.connection)

    def _forward(self) -> None:
        """What images have and the words index hasn't."""
        total, done = self.main.asked.count(self.main.with_words), 0
        for wanted in self.main.pages():
            found = self.words.found(list(wanted))
            old = outdated(wanted, found, self.settler.top_words)
            self.expected += sum(found[id_].documents for id_ in wanted.keys() - set(old))
            before = self.settler.written
            self.settler.settle(old, partial(self._tell, done, total))
            self.expected += self.settler.written - before
            done += len(wanted)
            self._tell(0, total, done)

    def _backward(self) -> None:
        """What the words index has and images haven't any more."""
        for found in self.words.images():
            self.settler.settle(superfluous(found, self.main.having_words(found)))

    def _tell(self, before: int, total: int, done: int) -> None:
        if time.monotonic() - self.told_s >= _LINE_EVERY_S:
            self.told_s = time.monotonic()
            done = min(before + done, total)
            self.say(f"words index: {done:,} of {total:,} images compared, {self.settler.written:,} words written")


def _tell(report: WordsReport, say: Callable[[str], None]) -> None:
    say(
        f"words index {report.index}: {report.written:,} words written, {report.deleted:,} deleted,"
        f" it has those of {report.images:,} images"
    )
    if report.failed:
        some = "; ".join(f"{what}: {reason}" for what, reason in report.reasons.items())
        say(f"words index {report.index}: {report.failed:,} could not be written or deleted, among them {some}")
