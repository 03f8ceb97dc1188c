"""The stable API for plugins: these names stay here when the modules behind them move.

::

    from stair_es.api import Item, ReadError, Source, SourceKind

It contains the Protocols of a source, an encoder, an enricher and a sink, the values that they take and return, and the errors
that they raise. `docs/plugins.md` shows how to use them. `API_VERSION` is raised when one of the Protocols changes
incompatibly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stair_es.cluster.bulk_lines import Sent
from stair_es.errors import DecodeError, IngestError, MissingExtra, ModelError, ReadError, SourceError, StairError, UsageError
from stair_es.ingest.enrich import Candidate, Enricher, EnricherKind, Enrichment
from stair_es.model.encoder import DenseEncoder, Encoder, EncoderKind, ModelCard, ModelSpec, Speller, Vocabulary
from stair_es.plugins import API_VERSION
from stair_es.sources.item import Item, Place, Read, Reading, Source, SourceKind, SourceOptions, Unlisted
from stair_es.types import ImageSpec, Json, Pixels, SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.bulk import Written
    from stair_es.cluster.ledger import Entry, Stored
    from stair_es.ingest.sink import Completion, Coverage, Documents, Say, Session, SinkKind, SinkPlan, Writer

__all__ = [
    "API_VERSION",
    "Candidate",
    "Completion",
    "Coverage",
    "DecodeError",
    "DenseEncoder",
    "Documents",
    "Encoder",
    "EncoderKind",
    "Enricher",
    "EnricherKind",
    "Enrichment",
    "Entry",
    "ImageSpec",
    "IngestError",
    "Item",
    "Json",
    "MissingExtra",
    "ModelCard",
    "ModelError",
    "ModelSpec",
    "Pixels",
    "Place",
    "Read",
    "ReadError",
    "Reading",
    "Say",
    "Sent",
    "Session",
    "SinkKind",
    "SinkPlan",
    "Source",
    "SourceError",
    "SourceKind",
    "SourceOptions",
    "SparseVector",
    "Speller",
    "StairError",
    "Stored",
    "Unlisted",
    "UsageError",
    "Vocabulary",
    "Writer",
    "Written",
]
_HEAVY = {
    "cluster.bulk": ("Written",),
    "cluster.ledger": ("Entry", "Stored"),
    "ingest.sink": ("Completion", "Coverage", "Documents", "Say", "Session", "SinkKind", "SinkPlan", "Writer"),
}
"""Modules that load a client or Pillow -> their names here."""


def __getattr__(name: str) -> object:
    """Import a heavy module when one of its names is first asked for: a kind is imported to be listed, and must stay cheap."""
    for home, names in _HEAVY.items():
        if name in names:
            return getattr(import_module(f"stair_es.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
