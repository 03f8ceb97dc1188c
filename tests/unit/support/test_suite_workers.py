"""How the suite is spread over workers."""

from __future__ import annotations

import pytest
from support.suite_workers import ON_PLUGIN_NODE


def test_the_plugin_node_starts_on_one_worker(request: pytest.FixtureRequest) -> None:
    """Its tests stand in the list, and the list names no others."""
    items = request.session.items
    found = {item.nodeid for item in items if "plugin_url" in getattr(item, "fixturenames", ())}
    assert all(nodeid.startswith(ON_PLUGIN_NODE) for nodeid in found)
    files = {item.nodeid.partition("::")[0] for item in items}
    for begin in ON_PLUGIN_NODE:
        assert begin.partition("::")[0] not in files or any(nodeid.startswith(begin) for nodeid in found), begin
