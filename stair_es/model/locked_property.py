"""A cached property for parts of an encoder that several threads may use first."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

_T = TypeVar("_T")


class LockedProperty(cached_property[_T]):
    """A cached property that one thread computes while others wait, by the instance's reentrant `_lock`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> _T:  # type: ignore[override]  # noqa: ANN401
        with instance._lock:
            value: _T = super().__get__(instance, owner)
        return value
