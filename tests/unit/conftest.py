"""What the unit tests share: packages that may be missing, and a standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest

if os.environ.get("STAIR_ES_ALL_TESTS"):  # as in `make test`: a test that lacks a package fails instead of being skipped
    pytest.importorskip = import_module  # type: ignore[assignment]


@pytest.fixture
def set_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Make a text the standard input, as often as needed. It is a real file: sources read its descriptor."""
    with ExitStack() as stack:

        def set_text(text: str) -> None:
            path = tmp_path / "standard-input"
            path.write_text(text)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(path.open()))

        yield set_text
