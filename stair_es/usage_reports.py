"""Switches off what libraries report about their use to those who make them.

`stair_es/__init__.py` calls this first, so it holds before any module of the package imports one of those libraries: in the
command line, in scripts, and in Ray workers, which unpickle a function of the package before they run anything.
"""

from __future__ import annotations

from collections.abc import MutableMapping

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variable -> value: onnxruntime, Ray, Hugging Face's libraries, and what others have agreed upon."""


def switch_off_usage_reports(environ: MutableMapping[str, str]) -> None:
    """Set each switch that the user hasn't set otherwise.

    Args:
        environ: The environment; child processes inherit it.
    """
    for name, value in SWITCHES.items():
        environ.setdefault(name, value)
