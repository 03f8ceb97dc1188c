import json

import pytest

from stair_es.cluster.bulk import BulkPolicy, chunks, operation
from stair_es.cluster.retry import backoff_s


def test_an_operation_is_two_lines_of_json() -> None:
    id_, lines = operation("7", {"uri": "a\nb", "tokens": {"dog": 0.5}})
    action, source, rest = lines.split(b"\n")
    assert (id_, json.loads(action), json.loads(source), rest) == (
        "7",
        {"index": {"_id": "7"}},
        {"uri": "a\nb", "tokens": {"dog": 0.5}},
        b"",
    )


def test_chunks_keep_order_and_limits_and_lose_nothing() -> None:
    operations = [(str(i), b"x" * size) for i, size in enumerate([40, 40, 40, 200, 10, 10, 10, 10, 10])]
    policy = BulkPolicy(max_chunk_bytes=100, max_chunk_docs=4)
    cut = list(chunks(operations, policy))
    assert [[id_ for id_, _ in chunk] for chunk in cut] == [["0", "1"], ["2"], ["3"], ["4", "5", "6", "7"], ["8"]]
    assert list(chunks([], policy)) == []


@pytest.mark.parametrize(("attempt", "full"), [(1, 0.5), (2, 1.0), (4, 4.0), (30, 15.0)])
def test_backoff_doubles_with_jitter_up_to_its_limit(attempt: int, full: float) -> None:
    waits = [backoff_s(attempt, BulkPolicy()) for _ in range(200)]
    assert full / 2 <= min(waits) < max(waits) <= full
