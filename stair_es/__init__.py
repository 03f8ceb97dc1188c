"""Sparse, word-labeled image vectors for OpenSearch and Elasticsearch.

The import opts out of the usage reports that libraries send to their makers. This comes first, so it applies before any module
of the package imports one of those libraries: in the command line, in scripts, and in Ray workers, which unpickle a function of
the package before they run anything. A library reads its opt-out when it is imported, and onnxruntime reports from then on.
These are the only variables that the import sets for the process, and only those that are missing.
"""

import os
from collections.abc import MutableMapping

from stair_es._version import __version__
from stair_es.types import SparseVector

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

__all__ = ["SparseVector", "__version__"]
