"""Waiting for writes to become searchable, where an index can't be refreshed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from stair_es.cluster.client.products import RecentWrites


class SearchedIndex:
    """An index whose searches find one state after another, each a second later: document -> sequence number."""

    def __init__(self, *states: dict[str, int]) -> None:
        self.states, self.now_s, self.writes = states, 0.0, RecentWrites(clock=lambda: self.now_s)

    def search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        state = self.states[min(int(self.now_s), len(self.states) - 1)]
        ids = set(body["query"]["ids"]["values"]) & state.keys()
        return {"hits": {"hits": [{"_id": id_, "_seq_no": state[id_]} for id_ in ids]}}

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(
    ("written", "states", "waited_s"),
    [
        ({"a": 5}, [{}, {"a": 4}, {"a": 5}], 2),
        ({"a": 5}, [{"a": 4}, {"a": 9}], 1),
        ({"a": 5, "b": 6}, [{"a": 5}, {"b": 6}], 1),
        ({"a": None}, [{"a": 4}, {"a": 4}, {}], 2),
        ({"a": 5, "b": None}, [{"b": 1}, {"a": 5, "b": 1}, {"a": 5}], 2),
        ({"a": 5}, [{}], 90),
        ({str(number): number for number in range(200)}, [{str(number): number for number in range(100, 200)}], 0),
    ],
)
def test_a_wait_ends_when_a_search_finds_the_writes(
    written: dict[str, int | None], states: list[dict[str, int]], waited_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    index = SearchedIndex(*states)
    index.writes.add("other", "c", 1)
    for id_, seq_no in written.items():
        index.writes.add("photos", id_, seq_no)
    for _ in range(2):  # it waits once
        index.writes.wait_until_visible("photos", index.search, index.sleep)
        assert index.now_s == waited_s
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (waited_s == 90)


def test_a_failed_search_and_a_later_write_are_waited_for() -> None:
    index = SearchedIndex({}, {"a": 5}, {"a": 6})
    index.writes.add("photos", "a", 5)
    with pytest.raises(KeyError):
        index.writes.wait_until_visible("photos", lambda _: {}, index.sleep)

    def write_again(seconds: float) -> None:
        index.sleep(seconds)
        index.writes.add("photos", "a", 6)

    index.writes.wait_until_visible("photos", index.search, write_again)
    assert index.now_s == 1
    index.writes.wait_until_visible("photos", index.search, index.sleep)
    assert index.now_s == 2
