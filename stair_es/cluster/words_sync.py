"""Reconcile the token index with its image index: compared page by page at the end of each run, and updated.

The work that a killed run left undone is a difference like any other, so no other state is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.bulk import BulkPolicy, BulkWriter
from stair_es.cluster.connect import Connection
from stair_es.cluster.own_alias import ensure_write_alias
from stair_es.cluster.retry import persistently
from stair_es.cluster.token_ids import Layout
from stair_es.cluster.words_documents import WordDocuments, word_documents
from stair_es.cluster.words_index import delete_orphans, look, make, publish, words_name
from stair_es.cluster.words_read import Asked, MainSide, WordsSide, outdated, superfluous
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.words_read import Image

_LINE_EVERY_S = 10.0
_DOCUMENTS_AT_ONCE = 5000
"""Token documents are small: a request may contain more of them than of images."""
_ROUNDS = 5
_MOST_REASONS = 5
_WORDS_AT_ONCE = 3200
"""Token documents per batch: all of a batch's documents fit in one response."""


@dataclass(frozen=True, kw_only=True)
class WordsReport:
    """What was changed in a token index."""

    index: str
    written: int
    """Documents, one per token."""
    deleted: int
    failed: int
    """Documents that the cluster rejected permanently, and images whose tokens can't be read."""
    images: int
    """Images that have token documents now."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Reasons of some failures, by document."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON for `--json`."""
        return {name: getattr(self, name) for name in ("index", "written", "deleted", "failed", "images")}


def reconcile(
    client: OpenSearch,
    connection: Connection,
    alias: str,
    index: str,
    say: Callable[[str], None],
    policy: BulkPolicy | None = None,
) -> WordsReport | None:
    """Reconcile the token index of `index`, creating it if necessary, and switch its alias if `alias` points to `index`.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        alias: The search alias.
        index: Its target, or the build of the next one; already refreshed.
        say: Called with the result, and with the progress from time to time.
        policy: Bulk policy of the writes.

    Returns:
        The changes; None if the token index was deleted concurrently.

    Raises:
        IndexMismatch: If a name belongs to someone else, or the images can't be read page by page.
        ClusterError: If the cluster fails. What was written stays, and the next run does the rest.
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
            say(f"words index {name}: not complete, the next run resumes it")
            raise
        say(f"words index {name}: it was deleted in the meantime")
        return None
    gone = delete_orphans(client, connection, alias)
    if gone:
        say(f"deleted, since their indices are gone: {', '.join(gone)}")
    _tell(report, say)
    return report


def _exists(client: OpenSearch, connection: Connection, name: str) -> bool:
    try:
        there: bool = persistently(partial(client.indices.exists, index=name), connection)
    except ClusterError:  # the first error is more helpful
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
    """Expected number of token documents, if the images don't change concurrently."""
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
        """Write the token documents that are missing or stale."""
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
        """Delete the token documents of images that are gone."""
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


@dataclass(kw_only=True)
class Settler:
    """Writes and deletes token documents, and counts them."""

    main: MainSide
    words: WordsSide
    writer: BulkWriter
    top_words: int
    written: int = 0
    deleted: int = 0
    failed: int = 0
    """Documents that the cluster rejected permanently, and images whose tokens can't be read."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Reasons of some failures."""

    def settle(self, ids: Sequence[str], progress: Callable[[int], None] = lambda _: None) -> None:
        """Update the token documents of these images to their current documents; those of deleted images are deleted.

        Args:
            ids: Ids of images.
            progress: Called with the number of images done.

        Raises:
            ClusterError: If the cluster as a whole can't be read or written. What was written stays.
        """
        size = max(1, _WORDS_AT_ONCE // self.top_words)
        for start in range(0, len(ids), size):
            self._some(list(ids[start : start + size]))
            progress(min(len(ids), start + size))

    def _some(self, ids: list[str]) -> None:
        """Update one batch, and check the documents again afterwards: one may have changed while its tokens were written.

        So of two concurrent runs, the last one to write the tokens of an image writes those of its current document.
        """
        there = self.words.documents(ids)
        for _ in range(_ROUNDS):
            images = self.main.images(ids)
            self._bring(ids, images, there)
            now = self.main.writes(ids)
            ids = [id_ for id_ in ids if now.get(id_) != (images[id_].write if id_ in images else None)]
            if not ids:
                return

    def _bring(self, ids: list[str], images: Mapping[str, Image], there: dict[str, set[str]]) -> None:
        wanted = {id_: self._wanted(id_, images[id_]) for id_ in ids if id_ in images}
        old = [_id for id_ in ids for _id in sorted(there.get(id_, set()) - wanted.get(id_, {}).keys())]
        documents = [pair for words in wanted.values() for pair in words.items()]
        outcomes = self.writer.write(documents).outcomes if documents else {}
        refused = {_id: reason for _id, reason in outcomes.items() if reason is not None}
        self.written += len(outcomes) - len(refused)
        gone = self.writer.delete(old).outcomes if old else {}
        kept = {_id: reason for _id, reason in gone.items() if reason is not None}
        self.deleted += len(gone) - len(kept)
        for what, reason in {**refused, **kept}.items():
            self._fail(what, reason)
        for id_ in ids:
            there[id_] = set(wanted.get(id_, ()))

    def _wanted(self, id_: str, image: Image) -> WordDocuments:
        try:
            return word_documents(id_, image.source, image.stamp, self.top_words)
        except ValueError as error:
            self._fail(id_, str(error))
            return {}

    def _fail(self, what: str, reason: str) -> None:
        self.failed += 1
        if len(self.reasons) < _MOST_REASONS:
            self.reasons[what] = reason
