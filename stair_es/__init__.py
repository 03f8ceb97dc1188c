"""Sparse, word-labeled image vectors for OpenSearch and Elasticsearch."""

import os

from stair_es._version import __version__
from stair_es.config.usage_reports import disable_usage_reports
from stair_es.types import SparseVector

disable_usage_reports(os.environ)

__all__ = ["SparseVector", "__version__"]
