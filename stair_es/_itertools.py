"""Helpers for iterables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def batched(rows: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield the rows in lists of `size`; the last one may be shorter."""
    batch: list[_T] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
