"""Opt-out of the usage reports that libraries send to their makers.

`stair_es/__init__.py` calls this first, so it applies before any module of the package imports one of those libraries: in the
command line, in scripts, and in Ray workers, which unpickle a function of the package before they run anything.

These are the only variables that an import of the package sets for the process, and only those that are missing: a library
reads its opt-out when it is imported, which may happen in any module, and onnxruntime reports from that moment on.
"""

from __future__ import annotations

from collections.abc import MutableMapping

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
