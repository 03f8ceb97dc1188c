"""What stands behind the name of the index now: its model, loaded, and its policy. Looked at again from time to time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.cluster.connect import probe
from stair_es.cluster.identity import has_colours, has_thumbnails
from stair_es.cluster.swap import mappings_of
from stair_es.errors import IndexAway, IndexMismatch, QueryError, StairError
from stair_es.search.known import look
from stair_es.search.shapes import choose
from stair_es.web.bodies import Way
from stair_es.web.weighed import Wording

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection, Target
    from stair_es.model.encoder import Encoder
    from stair_es.search.known import Known

FRESH_S = 5.0
"""How long a look at the index holds; an answer from another index than the one that was seen makes it look at once."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The index as it was seen."""

    known: Known
    way: Way
    encoder: Encoder
    thumbnails: bool
    """Whether its documents were written with thumbnails."""
    colours: bool
    """Whether they have `colours` that can be counted."""

    @property
    def wording(self) -> Wording:
        """How it writes words."""
        return Wording(encoder=self.encoder, policy=self.known.policy)


class Views:
    """Gives the view of the moment. One look at a time: those who come meanwhile take the last view, or what the look finds."""

    def __init__(self, client: OpenSearch, connection: Connection, index: str, load: Callable[[Known], Encoder]) -> None:
        """Nothing is looked at yet.

        Args:
            client: Of the cluster.
            connection: Of the client.
            index: An alias or index.
            load: Gives the encoder to ask an index with, once it was seen.
        """
        self._client, self._connection, self._index, self._load = client, connection, index, load
        self._looking = threading.Lock()
        self._target: Target | None = None
        self._view: View | None = None
        self._seen_s = 0.0
        self._failed: tuple[float, StairError] | None = None

    def now(self) -> View:
        """The view, about `FRESH_S` old at most.

        Raises:
            IndexAway: There is no such index (any more).
            IndexMismatch: It is not one of ours, or another model's than the one that was asked for.
            ModelError: Its model can't be loaded here.
            ClusterError: The cluster fails the request.
        """
        view = self._view
        if view is not None and time.monotonic() - self._seen_s <= FRESH_S:
            return view
        return self._looked(view, wait=view is None)

    def after(self, seen: View) -> View:
        """A view that is newer than `seen`; `seen` itself if nothing has changed.

        Raises:
            StairError: As for `now`.
        """
        return self._looked(seen, wait=True)

    def _looked(self, seen: View | None, *, wait: bool) -> View:
        came_s = time.monotonic()
        if not self._looking.acquire(blocking=wait) and seen is not None:
            return seen
        try:
            if self._view is not None and (self._view is not seen or self._seen_s > came_s):
                return self._view  # another one has looked meanwhile
            if self._failed is not None and self._failed[0] > came_s:
                raise self._failed[1]
            return self._look()
        except StairError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._looking.release()

    def _look(self) -> View:
        if self._target is None:
            self._target = probe(self._client, self._connection)
        try:
            known = look(self._client, self._connection, self._index)
        except QueryError as error:
            raise IndexAway(error.message, error.remedy) from None
        if self._view is None or self._view.known != known:
            self._view = self._made(known, self._target, self._view)
        self._seen_s = time.monotonic()
        return self._view

    def _made(self, known: Known, target: Target, before: View | None) -> View:
        same = before is not None and before.known.model == known.model
        encoder = before.encoder if before is not None and same else self._load(known)
        try:
            known.check_model(encoder.model_id)
        except QueryError as error:
            raise IndexMismatch(error.message, error.remedy) from None
        behind = mappings_of(self._client, self._connection, self._index)
        return View(
            known=known,
            way=Way(shape=choose(target, known.one, frozenset), max_clauses=target.max_clauses, ordered=known.ordered),
            encoder=encoder,
            thumbnails=any(map(has_thumbnails, behind.values())),
            colours=all(map(has_colours, behind.values())),
        )
