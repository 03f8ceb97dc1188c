"""Every request names its index, as restricted users need."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from opensearchpy.client.cat import CatClient
from opensearchpy.client.indices import IndicesClient
from support.servers.recording_proxy import is_refused

ROOT = Path(__file__).parents[3]


def list_index_methods(client: type) -> set[str]:
    """Return the methods of a client that take an index."""
    methods = inspect.getmembers(client, inspect.isfunction)
    return {name for name, method in methods if not name.startswith("_") and "index" in inspect.signature(method).parameters}


WITH_INDEX = {
    "client": list_index_methods(OpenSearch),
    "client.indices": list_index_methods(IndicesClient),
    "client.cat": list_index_methods(CatClient),
}
"""Methods that go to all indices where none is named, or can't do without one."""
WITHOUT = {("stair_es/eval/retrieval/runner.py", "analyze")}
"""A measurement on a cluster of one's own: it asks before it has an index."""


def list_calls(tree: ast.AST) -> Iterator[tuple[ast.expr, set[str | None]]]:
    """What is called with which keywords; `partial(f, ...)` and `cluster.call(f, ...)` count as a call of f."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_partial = name in ("partial", "call") and node.args
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
    [
        "client.indices.get_alias(name=a)",
        "self._client.search(body={})",
        "partial(self.client.indices.refresh)",
        "cluster.call(cluster.client.indices.refresh)",
        "self._cluster.call(self._cluster.client.search, body={})",
        "client.search_template(body={})",
        "client.cat.indices()",
    ],
)
def test_the_guard_sees_a_request_without_one(source: str) -> None:
    assert list_unindexed(source)


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/_alias/photos", True),
        ("/_alias?local=true", True),
        ("/_search", True),
        ("/_all/_search", True),
        ("/*/_mapping", True),
        ("/photos,*/_search", True),
        ("/%2A/_search", True),
        ("/_cat/indices?v", True),
        ("/_search/template", True),
        ("/_search/pipeline/heavy", True),
        ("/_msearch/template", True),
        ("/_reindex", True),
        ("/_cluster/state", True),
        ("/_nodes/stats", True),
        ("/_something_new", True),
        ("/photos*/_stats/docs,store?expand_wildcards=all", False),
        ("/photos/_alias/photos", False),
        ("/_aliases", False),
        ("/_search/scroll", False),
        ("/_tasks/node:12345/_cancel", False),
        ("/_tasks?actions=*update/byquery", False),
        ("/_scripts/stair-es-tokens", False),
        ("/_nodes/_local?filter_path=nodes.*.version", False),
        ("/_cluster/health", False),
        ("/", False),
    ],
)
def test_a_path_without_an_index_is_rejected_unless_it_is_listed(path: str, refused: bool) -> None:
    assert is_refused(path) is refused
