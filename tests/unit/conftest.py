"""What the unit tests share: packages that may be missing, and a command line that is built once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import pytest
from typer import testing
from typer.main import get_command

if os.environ.get("STAIR_ES_ALL_TESTS"):  # as in `make test`: a test that lacks a package fails instead of being skipped
    pytest.importorskip = import_module  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def built_commands() -> Iterator[None]:
    """Build the commands once: `CliRunner.invoke` would do it at each call, for two thirds of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", cache(get_command))
        yield
