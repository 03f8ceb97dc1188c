"""The checks of `make compatibility` on one node: they pass where they should, and detect faults."""

from __future__ import annotations

from pathlib import Path

from check_versions import run_checks
from opensearchpy import OpenSearch
from support.versions.bench import Bench
from support.versions.checks import CHECKS
from support.versions.commands import CommandRunner
from support.versions.nodes import VERSIONS

INGEST, SEARCH, OTHER = "ingest --vector rank_features", "search --query-type rank_features", "search --query-type sparse_vector"


def test_checks_pass_on_a_node_and_detect_faults(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> None:
    bench = Bench(CommandRunner(node_url, tmp_path, {}), f"{index_name}-")
    version = next(version for version in VERSIONS if version.origin.startswith("the embedded node"))
    ingested, searched, rejected = run_checks(bench, version, {name: CHECKS[name] for name in (INGEST, SEARCH, OTHER)})
    assert (ingested.status, searched.status, rejected.status) == ("ok", "ok", "engine")
    assert all(fact in rejected.message for fact in ("--query-type", "rank_features"))

    best = {"query": {"term": {"uri": bench.best}}}
    client.delete_by_query(index=bench.alias("rank_features"), body=best, params={"refresh": "true"})
    (missing,) = run_checks(bench, version, {SEARCH: CHECKS[SEARCH]})
    assert missing.status == "failed"
    assert "not tabby-cat.jpg" in missing.message
