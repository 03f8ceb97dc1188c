"""Times of two HTTP services that get the same requests alternately, and their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from urllib.parse import urlsplit

Call = Callable[[], object]


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        """Connect lazily, with the first request."""
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def post(self, path: str, body: bytes) -> bytes:
        """Return the body of the response.

        Raises:
            SystemExit: If the response is an error.
        """
        return self._request("POST", path, body)

    def get(self, path: str) -> bytes:
        """Return the body of the response.

        Raises:
            SystemExit: If the response is an error.
        """
        return self._request("GET", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data


def measure_ms(call: Call) -> float:
    """Return the milliseconds that a call takes."""
    began_s = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began_s)


def measure_pairs(pairs: Sequence[tuple[Call, Call]], rounds: int) -> tuple[list[float], list[float]]:
    """Return the times of the bare request and of ours, in pairs; the first round isn't counted."""
    bare, whole = [], []
    for turn in range(rounds + 1):
        for number, (plain, ours) in enumerate(pairs):
            first, second = (plain, ours) if (turn + number) % 2 else (ours, plain)
            took = {first: measure_ms(first), second: measure_ms(second)}
            if turn:
                bare.append(took[plain])
                whole.append(took[ours])
    return bare, whole


def make_row(name: str, bare: list[float], whole: list[float]) -> tuple[str, ...]:
    """Return a row of the table."""
    times = (f"{statistics.median(values):.1f} / {compute_p95(values):.1f}" for values in (bare, whole))
    return (name, *times, f"{compute_ratio(bare, whole):.2f}")


def compute_ratio(bare: list[float], whole: list[float]) -> float:
    """Return the median of the ratios of the pairs."""
    return statistics.median(ours / plain for plain, ours in zip(bare, whole, strict=True))


def compute_p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
