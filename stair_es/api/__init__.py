"""The stable API for plugins: these names stay here when the modules behind them move.

::

    from stair_es.api import ReadError, Source, SourceItem, SourceKind

It contains the Protocols of a source, an encoder, an enricher and a sink, the values that they take and return, and the errors
that they raise. `docs/plugins.md` shows how to use them. `API_VERSION` is raised when one of the Protocols changes
incompatibly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stair_es.cluster.bulk.actions import BulkRequestStats
from stair_es.errors import DecodeError, IngestError, MissingExtra, ModelError, ReadError, SourceError, StairError, UsageError
from stair_es.ingest.enrichers.base import Enricher, EnricherInput, EnricherKind, Enrichment
from stair_es.model.base import (
    DenseEncoder,
    Encoder,
    EncoderPlugin,
    MatchGrader,
    ModelCard,
    ModelSpec,
    VocabularyProvider,
    WordChecker,
    WordTokenizer,
)
from stair_es.plugins import API_VERSION
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, Source, SourceItem, SourceKind, SourceOptions
from stair_es.types import ImageSpec, Json, Pixels, SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.bulk.writer import BulkResult
    from stair_es.cluster.documents.state import IndexedDocument, StoredVersion
    from stair_es.ingest.sinks.base import Documents, RunCoverage, SinkKind, SinkPlan, SinkResult, SinkSession, SinkWriter

__all__ = [
    "API_VERSION",
    "BulkRequestStats",
    "BulkResult",
    "DecodeError",
    "DenseEncoder",
    "Documents",
    "Encoder",
    "EncoderPlugin",
    "Enricher",
    "EnricherInput",
    "EnricherKind",
    "Enrichment",
    "ImageSpec",
    "IndexedDocument",
    "IngestError",
    "Json",
    "ListingFailure",
    "Locator",
    "MatchGrader",
    "MissingExtra",
    "ModelCard",
    "ModelError",
    "ModelSpec",
    "Pixels",
    "ReadError",
    "ReadLimits",
    "ReadResult",
    "RunCoverage",
    "SinkKind",
    "SinkPlan",
    "SinkResult",
    "SinkSession",
    "SinkWriter",
    "Source",
    "SourceError",
    "SourceItem",
    "SourceKind",
    "SourceOptions",
    "SparseVector",
    "StairError",
    "StoredVersion",
    "UsageError",
    "VocabularyProvider",
    "WordChecker",
    "WordTokenizer",
]
_HEAVY = {
    "cluster.bulk.writer": ("BulkResult",),
    "cluster.documents.state": ("IndexedDocument", "StoredVersion"),
    "ingest.sinks.base": (*("Documents", "RunCoverage", "SinkKind", "SinkPlan", "SinkResult", "SinkSession", "SinkWriter"),),
}
"""Modules that load a client or Pillow -> their names here."""


def __getattr__(name: str) -> object:
    """Import a heavy module when one of its names is first requested: a kind is imported to be listed, and must stay cheap."""
    for home, names in _HEAVY.items():
        if name in names:
            return getattr(import_module(f"stair_es.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
