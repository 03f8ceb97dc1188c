"""A node for the pages alone: they use literal names of indices, and each begins on an empty cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from snippet_world import World, world

from stair_es.config import Home
from stair_es.node import NodeSpec, down, up


@pytest.fixture(scope="session")
def pages_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("pages-node")
    spec = NodeSpec(dist=Home.from_env().dist, base=base / "node", port=0, heap="512m", die_with_parent=True)
    url = up(spec, say=print)
    try:
        with world(url, base) as made:
            yield made
    finally:
        down(spec, say=print)
