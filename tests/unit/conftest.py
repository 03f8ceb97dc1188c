"""Packages that a test needs and the extra `unit` lacks: `make unit` skips the test, `make test` fails."""

from __future__ import annotations

import os
from importlib import import_module

import pytest

if os.environ.get("STAIR_ES_ALL_TESTS"):
    pytest.importorskip = import_module  # type: ignore[assignment]  # a missing package is an error
