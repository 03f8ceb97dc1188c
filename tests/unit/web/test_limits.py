"""The limiter for concurrent work."""

import threading
from contextlib import ExitStack

import pytest

from stair_es.web.limits import ConcurrencyLimiter, TooManyRequests


def test_requests_without_a_free_slot_are_rejected() -> None:
    gate = ConcurrencyLimiter(max_concurrent=1, max_waiting=1, wait_s=30.0)
    entered: list[int] = []
    with ExitStack() as inside:
        inside.enter_context(gate())
        waiting = threading.Thread(target=lambda: enter_gate(gate, entered))
        waiting.start()
        while gate._admitted.acquire(blocking=False):  # until the thread waits
            gate._admitted.release()
        with pytest.raises(TooManyRequests), gate():
            pass
        assert not entered
    waiting.join(10)
    assert entered == [1]
    with gate():
        pass


def test_long_waits_time_out() -> None:
    gate = ConcurrencyLimiter(max_concurrent=1, max_waiting=1, wait_s=0.01)
    with gate(), pytest.raises(TooManyRequests), gate():
        pass


def test_an_error_releases_the_slot() -> None:
    gate = ConcurrencyLimiter(max_concurrent=1, max_waiting=0, wait_s=0.01)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate():
            raise ZeroDivisionError


def enter_gate(gate: ConcurrencyLimiter, entered: list[int]) -> None:
    with gate():
        entered.append(1)
