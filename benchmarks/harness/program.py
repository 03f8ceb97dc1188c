"""The common options of the benchmarks, and the output of their results."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from harness.result import Result
from stair_es import __version__
from stair_es.config.defaults import DEFAULT_MODEL, ENV_URL


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    return parser


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add `--model`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="(default: %(default)s)")


def add_url_option(parser: argparse.ArgumentParser) -> None:
    """Add `--url`."""
    parser.add_argument("--url", default=os.environ.get(ENV_URL), help="your cluster (default: the embedded node)")


def publish_result(result: Result, file: Path | None) -> None:
    """Print a result, and write it to the file of `--json`."""
    print(f"{describe_machine()}; {result.to_markdown()}", flush=True)
    save_result(result, file)


def save_result(result: Result, file: Path | None) -> None:
    """Write a result as JSON, if a file is named."""
    if file:
        values = {"machine": describe_machine(), **result.to_dict()}
        file.write_text(json.dumps(values, indent=1, default=_convert_value), encoding="utf-8")


def _convert_value(value: object) -> object:
    """Return an array of hits as its mean, a number of NumPy as a number, a path as text."""
    if isinstance(value, np.ndarray):
        return float(value.mean())
    return value.item() if isinstance(value, np.generic) else str(value)


def describe_machine() -> str:
    """Return date, cores, platform and versions, which every number depends on."""
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, {os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, stair-es {__version__}"
