"""The index that an alias points to, for documents that come one at a time instead of in a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_document_id
from stair_es.cluster.index.lifecycle import open_live_index
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget, get_content_type
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.errors import ClusterError, ClusterUnreachable, IndexMismatch, IndexNotFound
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import build_sink_plan
from stair_es.ingest.sinks.base import PAGE_MARK, list_image_keys
from stair_es.ingest.sinks.cluster import ClusterGuard, ClusterSinkKind, ClusterSinkWriter
from stair_es.ingest.sinks.forgotten import ForgottenList
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Batch, Outcome
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.registry import resolve_model
from stair_es.sources.base import ReadLimits
from stair_es.sources.image.decode import DecodeLimits

_CACHE_S = 5.0
"""As long as the state of a searched index is kept."""
_MAX_SLEEP_S = 2.0
_BULK_POLICY = BulkPolicy(attempts=4, backoff_s=0.25, max_backoff_s=1.0, max_retry_after_s=2.0, give_up_after_s=10.0)
"""Patience while a client waits: a few seconds. Then the client repeats its request."""
_MAX_DELETIONS = 3
_MAX_DELETED = 10_000


@dataclass(frozen=True)
class LiveState:
    """The index as it was read, and how documents are made for it, with default limits."""

    target: WriteTarget
    config: WorkerConfig


@contextmanager
def open_live_indices(
    connection: Connection | None, aliases: Iterable[str], model: ModelSpec, encoder: Encoder
) -> Iterator[dict[str, LiveIndex]]:
    """Open indices by alias, for the documents of an encoder of this model. A missing index is created as by an ingest.

    Raises:
        StairError: As `LiveIndex.get_state`, or if an index can't be created.
    """
    with ExitStack() as stack:
        indices: dict[str, LiveIndex] = {}
        if connection is not None:
            cluster = stack.enter_context(Cluster(connection, sleep=_sleep_briefly))
            indices = {alias: LiveIndex(cluster, alias) for alias in aliases}
        for index in indices.values():
            index.create_missing(model)
            index.read_state(encoder)
        yield indices


class LiveIndex:
    """Follows the index of an alias, and deletes single documents in it. Calls may run in several threads."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Set the cluster and the search alias. No request is sent."""
        self.alias, self._cluster = alias, cluster
        self._lock = threading.Lock()
        self._state: LiveState | None = None
        self._read_s = 0.0

    def create_missing(self, model: ModelSpec) -> None:
        """Create the index as `stair-es ingest` does, unless the alias exists.

        Raises:
            StairError: If the cluster fails, or the name is taken.
        """
        try:
            open_live_index(self._cluster, self.alias)
        except IndexNotFound:
            options = IngestOptions(alias=self.alias, model=model)
            plan = build_sink_plan(options, resolve_model(model), self._cluster.connection)
            ClusterSinkKind().open(plan)

    def get_state(self, encoder: Encoder) -> LiveState:
        """Return the state of the index, which is at most a few seconds old.

        Raises:
            IndexMismatch: If the index was written with another model, with settings of another version, or with enrichers.
            ClusterError: If there is no such index, or the cluster fails.
        """
        with self._lock:
            state, age_s = self._state, time.monotonic() - self._read_s
        if state and age_s < _CACHE_S and state.config.model_id == encoder.model_id:
            return state
        return self.read_state(encoder)

    def read_state(self, encoder: Encoder) -> LiveState:
        """Read the state of the index; raises as `get_state`."""
        target, meta = open_live_index(self._cluster, self.alias)
        document = _parse_settings(self.alias, meta, encoder)
        with self._lock:
            known = self._state
        if known is None or known.target.name != target.name:
            ensure_write_alias(self._cluster, target.name)
        writer = ClusterSinkWriter(cluster=self._cluster, index=target.name, policy=_BULK_POLICY, sleep=_sleep_briefly)
        config = WorkerConfig(
            writer=writer,
            is_empty=False,
            model=ModelSpec(name=encoder.card.name),
            model_id=encoder.model_id,
            image_spec=encoder.image_spec,
            document=document,
            read_limits=ReadLimits(),
            decode_limits=DecodeLimits(),
            policy=target.policy,
            forgotten=ClusterGuard(ForgottenList(self._cluster, self.alias), writer, restores=False),
            bulk=_BULK_POLICY,
        )
        state = LiveState(target, config)
        with self._lock:
            self._state, self._read_s = state, time.monotonic()
        return state

    def delete_image(self, encoder: Encoder, *, uri: str = "", id_: str = "") -> int:
        """Delete the documents of an image and of its pages, or one by its `_id`; return how many there were.

        Raises:
            ClusterError: As `get_state`, or if the cluster refuses to delete one.
        """
        count = 0
        for _ in range(_MAX_DELETIONS):  # again, if the alias was moved meanwhile
            state = self.read_state(encoder)
            count = max(count, self._delete_from(state, uri=uri, id_=id_))
            if self.read_state(encoder).target.name == state.target.name:
                return count
        raise ClusterError(f"the index {self.alias!r} keeps being replaced", "Try again.", code="not-deleted")

    def _delete_from(self, state: LiveState, *, uri: str, id_: str) -> int:
        index, config = state.target.name, state.config
        if id_:
            ids = {id_} & config.writer.find_by_id([id_]).keys()
        else:
            self._cluster.refresh(index)  # a search finds documents with any id
            clauses = [{"term": {"uri": uri}}, {"prefix": {"uri": uri + PAGE_MARK}}]
            query = {"bool": {"filter": [{"bool": {"should": clauses, "minimum_should_match": 1}}]}}
            hits = self._cluster.search(index, {"query": query, "size": _MAX_DELETED, "_source": False})["hits"]["hits"]
            own = [make_document_id(uri)] if config.document.id == "uri" else []
            ids = {hit["_id"] for hit in hits} | config.writer.find_by_id(own).keys()
        assert config.forgotten is not None
        for reason in filter(None, config.forgotten.delete_documents(sorted(ids)).values()):
            raise ClusterError(f"the document was not deleted: {reason}", "Try again.", code="not-deleted")
        return len(ids)


def remove_forgotten(config: WorkerConfig, batch: Batch, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Delete what was written of images that were forgotten at the same time; `documents` are those that were written, by id."""
    written = [(i, outcome) for i, outcome in batch.enumerate_state(Outcome) if outcome.kind == "written"]
    if config.forgotten is None or not written:
        return
    keys = [list_image_keys(outcome.item.uri, documents[outcome.id].get("sha256", "")) for _, outcome in written]
    listed = config.forgotten.find_listed(keys)
    gone = [(i, outcome) for (i, outcome), is_listed in zip(written, listed, strict=True) if is_listed]
    reasons = config.forgotten.delete_documents([outcome.id for _, outcome in gone])
    for i, outcome in gone:
        reason = reasons[outcome.id]
        batch.images[i] = outcome._replace(kind="failed" if reason else "forgotten", reason=reason or "", id="")


def _parse_settings(alias: str, meta: Mapping[str, Any], encoder: Encoder) -> DocumentSettings:
    """Parse the settings that the documents of an index have, and check that this encoder can make such documents."""
    settings = meta.get("settings") or {}
    if get_content_type(meta) != "images":
        raise IndexMismatch(f"{alias!r} is an index of texts", "Choose an index of images.", code="index-of-other-content")
    if meta.get("model") != encoder.model_id:
        raise IndexMismatch(
            f"{alias!r} was written with the model {meta.get('model')!r}, and this encoder runs {encoder.model_id!r}",
            f"Start the encoder with the model of the index: --index {alias}",
            code="index-of-other-model",
        )
    if settings.get("enrichers"):
        raise IndexMismatch(
            f"{alias!r} was written with enrichers ({', '.join(settings['enrichers'])}), which the encoder doesn't run",
            "Use stair-es ingest for this index.",
            code="index-with-enrichers",
        )
    names = {field.name for field in fields(DocumentSettings)} & settings.keys()
    document = replace(DocumentSettings(), **{name: settings[name] for name in names})
    spec = IndexSpec(model_name="", model_id=encoder.model_id, settings=settings)
    if spec.digest != meta.get("digest"):
        raise IndexMismatch(
            f"{alias!r} was written by another version of stair-es, whose documents differ",
            f"Bring it up to date with stair-es ingest SOURCE --index {alias}, which builds a new index.",
            code="index-of-other-version",
        )
    return document


def _sleep_briefly(seconds: float) -> None:
    """Sleep before a retry, unless it is long: a client waits.

    Raises:
        ClusterUnreachable: If it is.
    """
    if seconds > _MAX_SLEEP_S:
        raise ClusterUnreachable("the search cluster is busy or doesn't answer", "Try again in a moment.")
    time.sleep(seconds)
