"""Sparse, word-labeled image vectors for OpenSearch and Elasticsearch.

The import opts out of the usage reports that libraries send to their makers. This comes first, so it applies before any module
of the package imports one of those libraries: in the command line, in scripts, and in Ray workers, which unpickle a function of
the package before they run anything. A library reads its opt-out when it is imported, and onnxruntime reports from then on.
These are the only variables that the import sets for the process, and only those that are missing.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

from stair_es._version import __version__
from stair_es.errors import StairError
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.documents.document import ImageMetadata, build_document, make_document_id
    from stair_es.cluster.index.mappings import build_mapping
    from stair_es.model.base import Encoder, ModelSpec
    from stair_es.model.registry import load_encoder
    from stair_es.search.image_search import AsyncImageSearch, ImageSearch

OPT_OUT_VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variable -> value, for onnxruntime, Ray, Hugging Face's libraries, and the common convention."""


def disable_usage_reports(environ: MutableMapping[str, str]) -> None:
    """Disable each report that the user hasn't configured. Child processes inherit the environment."""
    for name, value in OPT_OUT_VARIABLES.items():
        environ.setdefault(name, value)


disable_usage_reports(os.environ)

__all__ = [
    "AsyncImageSearch",
    "Encoder",
    "ImageMetadata",
    "ImageSearch",
    "ModelSpec",
    "SparseVector",
    "StairError",
    "__version__",
    "build_document",
    "build_mapping",
    "load_encoder",
    "make_document_id",
]
_HOMES = {
    "cluster.documents.document": ("ImageMetadata", "build_document", "make_document_id"),
    "cluster.index.mappings": ("build_mapping",),
    "model.base": ("Encoder", "ModelSpec"),
    "model.registry": ("load_encoder",),
    "search.image_search": ("AsyncImageSearch", "ImageSearch"),
}
"""Module -> its names here."""


def __getattr__(name: str) -> object:
    """Import a module when one of its names is first requested: `import stair_es` loads no library."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
