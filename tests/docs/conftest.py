"""Nodes for the pages alone: they use literal names of indices, and each begins on an empty cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue

import pytest
from support.nodes.search_nodes import embedded
from support.snippets.fixtures import World, world

_AT_ONCE = 2
"""Pages that are tried at a time, each in a world of its own: most of a page is one process that starts after the other."""


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleQueue[World]]:
    """Take one, and put it back."""
    free: SimpleQueue[World] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(_AT_ONCE):
            base = tmp_path_factory.mktemp("pages-node")
            free.put(stack.enter_context(world(stack.enter_context(embedded(base)), base)))
        yield free
