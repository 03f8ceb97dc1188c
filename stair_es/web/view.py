"""Cached state of the index: the indices that its name resolves to, their loaded model and token policy."""

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
from stair_es.web.weighed import Way, Wording

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection, Target
    from stair_es.model.encoder import Encoder
    from stair_es.search.known import Known

FRESH_S = 5.0
"""Maximum age of the state, in seconds; a response from an unknown index refreshes it immediately."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The state of an index."""

    known: Known
    way: Way
    encoder: Encoder
    thumbnails: bool
    """Whether its documents contain thumbnails."""
    colours: bool
    """Whether its documents have the field `colours` for facets."""

    @property
    def wording(self) -> Wording:
        """The token normalizer of the index."""
        return Wording(encoder=self.encoder, policy=self.known.policy)


class Views:
    """Cache of the state of an index. Refreshed by one thread at a time; others use the last state, or wait for the new one."""

    def __init__(self, client: OpenSearch, connection: Connection, index: str, load: Callable[[Known], Encoder]) -> None:
        """Create an empty cache.

        Args:
            client: The client of the cluster.
            connection: The connection of the client.
            index: An alias or index.
            load: Loads the encoder for an index, given its info.
        """
        self._client, self._connection, self._index, self._load = client, connection, index, load
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._state: View | None = None
        self._checked_s = 0.0
        self._failed: tuple[float, StairError] | None = None

    def now(self) -> View:
        """Get the state, at most about `STATE_MAX_AGE_S` old.

        Raises:
            IndexNotFound: If the index doesn't exist.
            IndexMismatch: If it was not written by stair-es, or by another model than the requested one.
            ModelError: If its model can't be loaded here.
            ClusterError: If the request fails.
        """
        view = self._state
        if view is not None and time.monotonic() - self._checked_s <= FRESH_S:
            return view
        return self._looked(view, wait=view is None)

    def after(self, seen: View) -> View:
        """Refresh the state; return `seen` if nothing has changed.

        Args:
            seen: The state that may be stale.

        Raises:
            StairError: As for `get`.
        """
        return self._looked(seen, wait=True)

    def _looked(self, seen: View | None, *, wait: bool) -> View:
        came_s = time.monotonic()
        if not self._lock.acquire(blocking=wait) and seen is not None:
            return seen
        try:
            if self._state is not None and (self._state is not seen or self._checked_s > came_s):
                return self._state  # refreshed by another thread
            if self._failed is not None and self._failed[0] > came_s:
                raise self._failed[1]
            return self._look()
        except StairError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()

    def _look(self) -> View:
        if self._target is None:
            self._target = probe(self._client, self._connection)
        try:
            info = look(self._client, self._connection, self._index)
        except QueryError as error:
            raise IndexAway(error.message, error.remedy) from None
        if self._state is None or self._state.known != info:
            self._state = self._made(info, self._target, self._state)
        self._checked_s = time.monotonic()
        return self._state

    def _made(self, known: Known, target: Target, before: View | None) -> View:
        same = before is not None and before.known.model == known.model
        encoder = before.encoder if before is not None and same else self._load(known)
        try:
            known.check_model(encoder.model_id)
        except QueryError as error:
            raise IndexMismatch(error.message, error.remedy) from None
        mappings = mappings_of(self._client, self._connection, self._index)
        return View(
            known=known,
            way=Way(shape=choose(target, known.one, frozenset), max_clauses=target.max_clauses, ordered=known.ordered),
            encoder=encoder,
            thumbnails=any(map(has_thumbnails, mappings.values())),
            colours=all(map(has_colours, mappings.values())),
        )
