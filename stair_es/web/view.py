"""What stands behind the name of the index now: its model, loaded, and its policy. Looked at again from time to time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.cluster.connect import probe
from stair_es.cluster.identity import ours
from stair_es.errors import QueryError
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.search.known import look, mappings_of
from stair_es.search.shapes import choose
from stair_es.web.faults import IndexAway
from stair_es.web.weighed import Wording

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection, Target
    from stair_es.model.encoder import Encoder
    from stair_es.search.known import Known
    from stair_es.search.shapes import Shape

FRESH_S = 5.0
"""How long a look at the index holds; an answer from another index than the one that was seen makes it look at once."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The index as it was seen."""

    known: Known
    target: Target
    shape: Shape
    encoder: Encoder
    thumbnails: bool
    """Whether its documents were written with thumbnails."""

    @property
    def wording(self) -> Wording:
        """How it writes words."""
        return Wording(encoder=self.encoder, policy=self.known.policy)


class Views:
    """Gives the view of the moment."""

    def __init__(self, client: OpenSearch, connection: Connection, index: str, spec: Callable[[str], ModelSpec]) -> None:
        """Nothing is looked at yet.

        Args:
            client: Of the cluster.
            connection: Of the client.
            index: An alias or index.
            spec: The model to load for an index whose own has this name.
        """
        self._client, self._connection, self._index, self._spec = client, connection, index, spec
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._view: View | None = None
        self._seen_s = 0.0

    def now(self) -> View:
        """The view, at most `FRESH_S` old.

        Raises:
            IndexAway: There is no such index (any more).
            IndexMismatch: It is not one of ours.
            QueryError: It is another model's than the one that was asked for.
            ModelError: Its model can't be loaded here.
            ClusterError: The cluster fails the request.
        """
        with self._lock:
            if self._view is None or time.monotonic() - self._seen_s > FRESH_S:
                self._look()
            return self._view  # type: ignore[return-value]

    def after(self, seen: View) -> View:
        """A view that is newer than `seen`; `seen` itself if nothing has changed.

        Raises:
            StairError: As for `now`.
        """
        with self._lock:
            if self._view is seen:
                self._look()
            return self._view  # type: ignore[return-value]

    def _look(self) -> None:
        before = self._view
        if self._target is None:
            self._target = probe(self._client, self._connection)
        try:
            known = look(self._client, self._connection, self._index)
        except QueryError as error:
            raise IndexAway(error.message, error.remedy) from None
        if before is None or before.known != known:
            self._view = self._made(known, self._target, before)
        self._seen_s = time.monotonic()

    def _made(self, known: Known, target: Target, before: View | None) -> View:
        same = before is not None and before.known.model == known.model
        encoder = before.encoder if before is not None and same else catalogue.load(self._spec(known.model_name))
        known.check_model(encoder.model_id)
        about = [ours(found) for found in mappings_of(self._client, self._connection, self._index).values()]
        return View(
            known=known,
            target=target,
            shape=choose(target, known.one, frozenset),
            encoder=encoder,
            thumbnails=any((said.get("settings") or {}).get("thumbnail_px") != 0 for said in about),
        )
