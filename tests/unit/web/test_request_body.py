"""Request bodies: how much memory they take, and what is counted as held."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

from stair_es.web.config import MIB, ServerLimits
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import TooManyRequests
from stair_es.web.request_body import BodyReader

PARTS = 16


def build_request(parts: int = PARTS, content_length: str | None = None) -> Request:
    sizes: Iterator[int] = iter(range(parts))

    async def receive_part() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(MIB), "more_body": next(sizes) < parts - 1}

    headers = [(b"content-length", content_length.encode())] if content_length else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive_part)


def test_a_body_is_in_memory_once() -> None:
    async def measure_memory() -> tuple[int, int]:
        async with BodyReader(ServerLimits())(build_request(), PARTS * MIB) as body:
            return len(body), tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        size, used_bytes = asyncio.run(measure_memory())
    finally:
        tracemalloc.stop()
    assert size == PARTS * MIB <= used_bytes < (PARTS + 1) * MIB


def test_all_held_bodies_together_are_limited() -> None:
    async def read_bodies() -> None:
        reader = BodyReader(ServerLimits(max_held_bytes=PARTS * MIB))
        async with reader(build_request(), PARTS * MIB):
            with pytest.raises(TooManyRequests):
                async with reader(build_request(1), PARTS * MIB):
                    pass
        with pytest.raises(RequestRejected, match="larger"):
            async with reader(build_request(), MIB):
                pass
        for _ in range(2):
            async with reader(build_request(), PARTS * MIB) as body:
                assert len(body) == PARTS * MIB

    asyncio.run(read_bodies())


def test_a_content_length_above_the_limit_is_rejected_unread() -> None:
    async def read_length(content_length: str) -> int:
        async with BodyReader(ServerLimits())(build_request(1, content_length), MIB) as body:
            return len(body)

    for allowed in (str(MIB), "-1", "a lot", "9" * 20):  # what isn't a number is none: bytes are counted
        assert asyncio.run(read_length(allowed)) == MIB
    with pytest.raises(RequestRejected) as caught:
        asyncio.run(read_length(str(MIB + 1)))
    assert (caught.value.response.status, caught.value.response.code) == (413, "body-too-large")
