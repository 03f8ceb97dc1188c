"""Environment variables, defaults shared by the library and the command line, and the data folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

ENV_HOME = "STAIR_ES_HOME"
ENV_URL = "STAIR_ES_URL"
ENV_INDEX = "STAIR_ES_INDEX"
ENV_MODEL = "STAIR_ES_MODEL"
ENV_FIT = "STAIR_ES_FIT"
ENV_CONFIG = "STAIR_ES_CONFIG"
ENV_PROFILE = "STAIR_ES_PROFILE"
ENV_LOG_FORMAT = "STAIR_ES_LOG_FORMAT"
ENV_TRUST_REMOTE_CODE = "STAIR_ES_TRUST_REMOTE_CODE"
"""Comma-separated models whose own Python code may run, each with its version: NAME@COMMIT."""

DEFAULT_INDEX = "images"
DEFAULT_MODEL = "stair-mini"

MAX_CLAUSES = 1024
"""Default limit of every engine (`indices.query.bool.max_clause_count`)."""
MAX_HITS = 10_000
"""Default limit of every engine (`index.max_result_window`)."""
DEFAULT_CAPTION_WEIGHT = 0.8
"""What a caption with every word of a query adds to a dot product of unit vectors: `benchmarks/hybrid.py`."""
DEFAULT_PRICE_FIELD = "price"
MAX_PIXELS = 128_000_000
MAX_BYTES = 256 * 1024 * 1024
THUMBNAIL_PX = 320
"""Longer side of a thumbnail (docs/adr/0016-documents.md)."""
DEFAULT_SINK = "cluster"
"""Name of the built-in sink."""
DEFAULT_RETAINED_INDICES = 1
"""Number of retired indices that an alias swap keeps."""
DEFAULT_UNIFORMITY = 0.5
"""Minimum uniformity of a stop word: more than half of its effect is the same for every image. See docs/inspect.md."""


@dataclass(frozen=True)
class DataDir:
    """The data folder: jars, the data of the embedded node, fetched models."""

    path: Path

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> DataDir:
        """Return the folder `$STAIR_ES_HOME`, or the platform's folder for user data."""
        path = environ.get(ENV_HOME)
        return cls(Path(path).expanduser().absolute() if path else user_data_path("stair-es"))

    @property
    def dist(self) -> Path:
        """Unpacked distributions of the embedded node, one folder per version."""
        return self.path / "dist"

    @property
    def node(self) -> Path:
        """Data, logs and state of the embedded node."""
        return self.path / "node"

    @property
    def models(self) -> Path:
        """Fetched model files."""
        return self.path / "models"
