"""How the tests are spread over the workers of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

__all__ = ["ON_PLUGIN_NODE", "NodeScheduling"]

ON_PLUGIN_NODE = (
    "tests/integration/test_connectors.py",
    "tests/integration/test_evaluate.py::test_dense_vectors_with_the_knn_plugin",
    "tests/integration/test_neural_search.py",
    "tests/integration/test_plugin_node.py",
    "tests/integration/test_search_query_types.py::test_neural_sparse",
    "tests/integration/test_seismic.py",
)
"""Tests that take the fixture `plugin_url`, as their ids begin. (The marks of `--dist loadgroup` do nothing under pytest 9.2.)"""


class NodeScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Keep the tests of a file on one worker, and those of the plugin node, so that it starts once."""

    def _split_scope(self, nodeid: str) -> str:
        return "plugin node" if nodeid.startswith(ON_PLUGIN_NODE) else str(super()._split_scope(nodeid))
