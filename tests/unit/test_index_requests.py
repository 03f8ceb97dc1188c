"""Requests name their index: one about all indices is refused to whoever may use some only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_proxy import is_of_all_indices

ROOT = Path(__file__).parents[2]
WITH_INDEX = {
    "client": {"bulk", "count", "delete_by_query", "mget", "msearch", "reindex", "search", "update_by_query"},
    "client.indices": {
        *("analyze", "create", "delete", "exists", "exists_alias", "get", "get_alias", "get_mapping", "get_settings"),
        *("put_alias", "put_mapping", "put_settings", "refresh", "stats"),
    },
}
"""Methods that go to all indices where none is named."""
WITHOUT = {("stair_es/eval/trial.py", "analyze")}
"""A measurement on a cluster of one's own: it asks before it has an index."""


def list_calls(tree: ast.AST) -> Iterator[tuple[ast.expr, set[str | None]]]:
    """What is called with which keywords; `partial(f, ...)` counts as a call of f."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            is_partial = isinstance(node.func, ast.Name) and node.func.id == "partial" and node.args
            yield (node.args[0] if is_partial else node.func), {keyword.arg for keyword in node.keywords}


def list_unindexed(source: str) -> list[str]:
    """The methods that are called without an index."""
    found = []
    for called, keywords in list_calls(ast.parse(source)):
        if not isinstance(called, ast.Attribute):
            continue
        receiver = ast.unparse(called.value).replace("_client", "client")
        for suffix, methods in WITH_INDEX.items():
            is_client = receiver == suffix or receiver.endswith(f".{suffix}")
            if is_client and called.attr in methods and "index" not in keywords:
                found.append(called.attr)
    return found


def test_every_request_names_its_index() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), method)
        for folder in ("stair_es", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for method in list_unindexed(path.read_text(encoding="utf-8"))
    }
    assert found == WITHOUT


@pytest.mark.parametrize(
    "source",
    ["client.indices.get_alias(name=a)", "self._client.search(body={})", "persistently(partial(self.client.indices.refresh))"],
)
def test_the_guard_sees_a_request_without_one(source: str) -> None:
    assert list_unindexed(source)


@pytest.mark.parametrize(
    ("path", "is_of_all"),
    [
        ("/_alias/photos", True),
        ("/_alias?local=true", True),
        ("/_search", True),
        ("/_all/_search", True),
        ("/*/_mapping", True),
        ("/_cat/indices?v", True),
        ("/_cat/indices/photos", False),
        ("/photos/_alias/photos", False),
        ("/_aliases", False),
        ("/_search/scroll", False),
        ("/_search/pipeline/two-phase", False),
        ("/_cluster/health", False),
        ("/", False),
    ],
)
def test_paths_of_all_indices_are_known(path: str, is_of_all: bool) -> None:
    assert is_of_all_indices(path) is is_of_all
