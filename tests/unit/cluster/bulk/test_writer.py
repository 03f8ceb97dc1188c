import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearchpy import exceptions

from stair_es.cluster.bulk.actions import (
    ItemResult,
    build_delete_action,
    build_index_action,
    build_noop_action,
    build_update_action,
    chunk_actions,
    classify_item,
    classify_request_error,
    count_action_bytes,
    parse_bulk_response,
)
from stair_es.cluster.bulk.throttle import BulkPolicy


def test_an_operation_is_two_lines_of_json() -> None:
    id_, lines = build_index_action("7", {"uri": "a\nb", "tokens": {"dog": 0.5}})
    action, source, rest = lines.split(b"\n")
    assert (id_, json.loads(action), json.loads(source), rest) == (
        "7",
        {"index": {"_id": "7"}},
        {"uri": "a\nb", "tokens": {"dog": 0.5}},
        b"",
    )


def test_updates_name_their_fields_and_deletions_their_document() -> None:
    assert build_update_action("7", {"a": 1})[1] == b'{"update":{"_id":"7","retry_on_conflict":3}}\n{"doc":{"a":1}}\n'
    assert build_delete_action("7", {})[1] == b'{"delete":{"_id":"7"}}\n'


def test_a_probe_is_another_document_on_the_same_shard() -> None:
    id_, line = build_noop_action("7")
    assert json.loads(line) == {"delete": {"_id": id_, "routing": "7"}}
    assert id_ != "7"


@given(sizes=st.lists(st.integers(1, 120)), max_bytes=st.integers(1, 100), max_docs=st.integers(1, 5))
def test_chunks_keep_order_and_limits_and_lose_nothing(sizes: list[int], max_bytes: int, max_docs: int) -> None:
    """Each is as large as the limits permit; only a single action may exceed them."""
    actions = [(str(i), b"x" * size) for i, size in enumerate(sizes)]
    chunks = list(chunk_actions(actions, max_bytes, max_docs))
    assert [action for chunk in chunks for action in chunk] == actions
    for chunk in chunks:
        assert 1 <= len(chunk) <= max_docs
        assert len(chunk) == 1 or count_action_bytes(chunk) <= max_bytes
    for chunk, following in pairwise(chunks):
        assert len(chunk) == max_docs or count_action_bytes([*chunk, following[0]]) > max_bytes


@pytest.mark.parametrize(("chosen", "workers", "maximum"), [(0, 1, 8), (0, 4, 8), (0, 64, 128), (2, 64, 2), (300, 1, 300)])
def test_concurrency_grows_with_the_workers_unless_chosen(chosen: int, workers: int, maximum: int) -> None:
    assert BulkPolicy(max_concurrency=chosen).choose_concurrency(workers) == maximum


@pytest.mark.parametrize(("attempt", "full"), [(1, 0.5), (2, 1.0), (4, 4.0), (30, 15.0)])
def test_backoff_doubles_with_jitter_up_to_its_limit(attempt: int, full: float) -> None:
    waits = [BulkPolicy().compute_delay_s(attempt) for _ in range(200)]
    assert full / 2 <= min(waits) < max(waits) <= full


@pytest.mark.parametrize(
    ("requested_s", "low", "high"), [(0.0, 0.25, 0.5), (2.0, 2.0, 2.5), (59.0, 59.0, 59.5), (1e9, 60.0, 60.5)]
)
def test_a_requested_wait_is_kept_up_to_its_limit(requested_s: float, low: float, high: float) -> None:
    waits = [BulkPolicy().compute_delay_s(1, requested_s) for _ in range(200)]
    assert low <= min(waits) < max(waits) <= high


@pytest.mark.parametrize(
    ("kind", "status", "error", "status_name"),
    [
        ("index", 201, None, "done"),
        ("delete", 404, None, "done"),
        ("update", 404, "document_missing_exception", "done"),
        ("index", 400, "mapper_parsing_exception", "failed"),
        ("index", 429, "es_rejected_execution_exception", "busy"),
        ("index", 503, "unavailable_shards_exception", "busy"),
        ("index", 500, "null_pointer_exception", "busy"),
        ("update", 409, "version_conflict_engine_exception", "busy"),
        ("delete", 409, "version_conflict_engine_exception", "failed"),
        ("delete", 409, "version conflict, required seqNo [2], primary term [1]. but no document was found", "done"),
        ("index", 403, "cluster_block_exception", "busy"),
        ("index", 429, "cluster_block_exception", "busy"),
        ("index", 403, "security_exception", "forbidden"),
        ("index", 404, "index_not_found_exception", "closed"),
        ("delete", 404, "index_not_found_exception", "closed"),
        ("index", 400, "index_closed_exception", "closed"),
    ],
)
def test_a_document_fails_only_because_of_itself(kind: str, status: int, error: str | None, status_name: str) -> None:
    outcome = {"_index": "x", "status": status, "error": error and {"type": error, "reason": "why"}}
    assert classify_item(kind, outcome, "x").status == status_name


@pytest.mark.parametrize(("kind", "status"), [("index", 201), ("update", 200), ("delete", 404), ("index", 400)])
def test_an_item_of_another_index_is_reported_as_wrong_index(kind: str, status: int) -> None:
    assert classify_item(kind, {"_index": "y", "status": status}, "x") == ItemResult("wrong_index", "y")


def test_a_response_without_the_index_is_not_a_success() -> None:
    for outcome in ({"status": 201}, {"_index": "x.write", "status": 201}):
        assert classify_item("index", outcome, "x").status == "busy"
    assert (
        classify_item("index", {"_index": "x.write", "status": 404, "error": {"type": "index_not_found_exception"}}, "x").status
        == "closed"
    )


@pytest.mark.parametrize(
    ("kind", "stored_in", "status_name"),
    [("index", "x", "failed"), ("index", "x.write", "failed"), ("index", None, "failed"), ("update", "x", "done")],
)
def test_a_document_that_a_pipeline_drops_fails(kind: str, stored_in: str | None, status_name: str) -> None:
    assert classify_item(kind, {"_index": stored_in, "status": 200, "result": "noop"}, "x").status == status_name


def test_a_missing_pipeline_does_not_fail_the_document() -> None:
    error = {"type": "illegal_argument_exception", "reason": "pipeline with id [prune] does not exist"}
    assert classify_item("index", {"status": 400, "error": error}, "x").status == "closed"


@pytest.mark.parametrize(
    "error",
    [
        {
            "type": "document_parsing_exception",
            "reason": "[1:12] failed to parse: data stream timestamp field [@timestamp] is missing",
        },
        {
            "type": "mapper_parsing_exception",
            "reason": "failed to parse",
            "caused_by": {"reason": "data stream timestamp field [@timestamp] is missing"},
        },
    ],
)
def test_an_index_for_logs_stops_the_run(error: dict[str, Any]) -> None:
    result = classify_item("index", {"status": 400, "error": error}, "x")
    assert (result.status, "template" in result.remedy) == ("closed", True)
    quoted = {"type": "document_parsing_exception", "reason": f"failed to parse field [a]: '{error['reason']}'"}
    assert classify_item("index", {"status": 400, "error": quoted}, "x").status == "failed"


@pytest.mark.parametrize("cause", ["script_lang not supported [painless]", "cannot execute [inline] scripts"])
def test_a_cluster_without_scripts_stops_the_run(cause: str) -> None:
    error = {"type": "illegal_argument_exception", "reason": "failed to execute script", "caused_by": {"reason": cause}}
    result = classify_item("update", {"status": 400, "error": error}, "x")
    assert (result.status, "painless" in result.remedy) == ("closed", True)


def test_a_reason_names_type_reason_and_cause() -> None:
    error = {"type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": {"reason": "no number"}}
    reason = classify_item("index", {"status": 400, "error": error}, "x").reason
    for fact in ("400", "mapper_parsing_exception", "failed to parse", "no number"):
        assert fact in reason


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"items": None}, {"items": 3}, "page", {"items": [3, {"index": 3}, {"index": {"_id": "a"}}]}]
)
def test_an_invalid_response_has_no_results(answer: object) -> None:
    assert parse_bulk_response(answer, "x") == {}


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.TransportError(413, "too large", None), "too large"),
        (exceptions.TransportError(429, "rejected", None), "busy"),
        (exceptions.TransportError(500, "oops", None), "busy"),
        (exceptions.TransportError(502, "gateway", None), "busy"),
        (exceptions.ConnectionError("N/A", "refused", OSError()), "busy"),
        (exceptions.ConnectionTimeout("TIMEOUT", "slow", OSError()), "busy"),
        (exceptions.AuthorizationException(403, "cluster_block_exception", None), "busy"),
        (exceptions.AuthorizationException(403, "security_exception", None), "fatal"),
        (exceptions.AuthenticationException(401, "", None), "fatal"),
        (exceptions.RequestError(400, "illegal_argument_exception", None), "malformed"),
        (exceptions.NotFoundError(404, "", None), "fatal"),
    ],
)
def test_the_failure_of_a_whole_request(error: exceptions.TransportError, meaning: str) -> None:
    assert classify_request_error(error) == meaning
