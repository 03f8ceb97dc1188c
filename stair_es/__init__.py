"""Sparse, word-labelled image vectors for OpenSearch and Elasticsearch."""

from stair_es._version import __version__
from stair_es.types import SparseVector

__all__ = ["SparseVector", "__version__"]
