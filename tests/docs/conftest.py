"""Nodes for the pages alone: they use literal names of indices, and each begins on an empty cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest
from support.snippets.fixtures import PageEnvironment, start_servers

_AT_ONCE = 2
"""Pages that are tried at a time, each in a world of its own: most of a page is one process that starts after the other."""


@pytest.fixture(scope="session")
def page_environments(
    get_node_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, warm_script: Path
) -> Iterator[SimpleQueue[PageEnvironment]]:
    """Take one, and put it back."""
    free: SimpleQueue[PageEnvironment] = SimpleQueue()
    with ExitStack() as stack:
        for number in range(_AT_ONCE):
            servers = start_servers(get_node_url(f"pages-{number}"), tmp_path_factory.mktemp("pages"), warm_script)
            free.put(stack.enter_context(servers))
        yield free
