"""A node for the pages alone: they use literal names of indices, and each begins on an empty cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.snippets.fixtures import PageEnvironment, start_servers
from support.warm_commands import IMPORTED
from support.warm_script import start_warm_script


@pytest.fixture(scope="session")
def page_environment(get_node_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageEnvironment]:
    """Of all pages, one after the other. Their commands and snippets start with PyTorch already imported."""
    with (
        start_warm_script(tmp_path_factory.mktemp("warm"), *IMPORTED) as script,
        start_servers(get_node_url("pages"), tmp_path_factory.mktemp("pages"), script) as environment,
    ):
        yield environment
