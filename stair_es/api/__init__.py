"""The stable API for plugins: these names stay here when the modules behind them move.

::

    from stair_es.api import ReadError, Source, SourceItem, SourceKind

It contains the interfaces of a source, an encoder, an enricher and a sink, the values that they take and return, and the errors
that they raise. `docs/plugins.md` shows how to use them. `API_VERSION` is raised when one of the interfaces changes
incompatibly.
"""

from __future__ import annotations

from stair_es.errors import DecodeError, IngestError, MissingExtra, ModelError, ReadError, SourceError, StairError, UsageError
from stair_es.ingest.enrichers.base import Enricher, EnricherInput, EnricherKind, Enrichment
from stair_es.ingest.sinks.base import Documents, RunCoverage, SinkKind, SinkPlan, SinkResult, SinkSession, SinkWriter
from stair_es.model.base import (
    Encoder,
    EncoderPlugin,
    MatchThresholds,
    ModelCard,
    ModelSpec,
    ReadText,
)
from stair_es.plugins import API_VERSION
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, Source, SourceItem, SourceKind, SourceOptions
from stair_es.store import BulkRequestStats, BulkResult, IndexedDocument, StoredVersion
from stair_es.types import ImageSpec, Json, Pixels, SparseVector

__all__ = [
    "API_VERSION",
    "BulkRequestStats",
    "BulkResult",
    "DecodeError",
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
    "MatchThresholds",
    "MissingExtra",
    "ModelCard",
    "ModelError",
    "ModelSpec",
    "Pixels",
    "ReadError",
    "ReadLimits",
    "ReadResult",
    "ReadText",
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
]
