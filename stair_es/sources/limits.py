"""How large an image's bytes may be."""

from __future__ import annotations

from stair_es.errors import ReadError


def within(size: int, max_bytes: int) -> None:
    """Nothing, if `size` may be read.

    Raises:
        ReadError: It is more than `max_bytes`.
    """
    if size > max_bytes:
        raise ReadError(f"{size} bytes exceed the limit of {max_bytes}")
