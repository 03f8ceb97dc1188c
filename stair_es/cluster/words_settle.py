"""The words of some images brought in step with their documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.cluster.words_documents import WordDocuments, word_documents

if TYPE_CHECKING:
    from stair_es.cluster.bulk import BulkWriter
    from stair_es.cluster.words_read import Image, MainSide, WordsSide

_ROUNDS = 5
_MOST_REASONS = 5
_WORDS_AT_ONCE = 3200
"""A request for the words of so many images has them all in one answer."""


@dataclass(kw_only=True)
class Settler:
    """Writes and deletes words, and counts them."""

    main: MainSide
    words: WordsSide
    writer: BulkWriter
    top_words: int
    written: int = 0
    deleted: int = 0
    failed: int = 0
    """Words that the cluster refused for good, and images whose words can't be read."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Of some of them."""

    def settle(self, ids: Sequence[str], progress: Callable[[int], None] = lambda _: None) -> None:
        """Give these images the words that their documents have now; those that are gone lose them.

        Args:
            ids: Of images.
            progress: Is called with how many of them are done.

        Raises:
            ClusterError: The cluster as a whole can't be asked or written to. What was written stays.
        """
        size = max(1, _WORDS_AT_ONCE // self.top_words)
        for start in range(0, len(ids), size):
            self._some(list(ids[start : start + size]))
            progress(min(len(ids), start + size))

    def _some(self, ids: list[str]) -> None:
        """Looks at the documents again afterwards: who changed one meanwhile has looked at its words before they were written.

        So of two runs at once, the last to write the words of an image writes those of its document as it is.
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
