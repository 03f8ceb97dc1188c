"""Lines of a file, numbered, none longer than what may be held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO


def numbered(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """(number, line without its end); None instead of one that is longer than `longest` bytes."""
    number = 0
    while line := file.readline(longest + 2):
        number += 1
        whole = line.rstrip(b"\r\n")
        if len(whole) <= longest:
            yield number, whole.removeprefix(b"\xef\xbb\xbf") if number == 1 else whole
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
        yield number, None
