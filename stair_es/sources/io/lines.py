"""Numbered lines of a file, none longer than a limit."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from stair_es.errors import SourceError
from stair_es.sources.limits import MAX_BLANK_BYTES, MAX_SKIPPED_BYTES

_REMEDY = "Check that the file has the format that its name suggests."


def read_numbered_lines(file: BinaryIO, max_bytes: int, comment: bytes | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line without its end) of the non-empty lines; None instead of a line longer than `max_bytes` bytes.

    Lines with the prefix `comment` are skipped like empty ones.

    Raises:
        SourceError: If `MAX_BLANK_BYTES` of empty lines and comments follow each other, or a line has no end within
            `MAX_SKIPPED_BYTES`.
    """
    number = blank_bytes = 0
    while line := file.readline(max_bytes + 2):
        number += 1
        content = line.rstrip(b"\r\n")
        if number == 1:
            content = content.removeprefix(b"\xef\xbb\xbf")
        if len(content) > max_bytes:
            yield number, None
            if not line.endswith(b"\n"):
                skip_line(file, number)
        elif not (text := content.lstrip()) or (comment and text.startswith(comment)):
            lines, bytes_ = (0, 0) if text else _skip_blank(file)
            number += lines
            blank_bytes += len(line) + bytes_
            if blank_bytes > MAX_BLANK_BYTES:
                check_blank_bytes(blank_bytes, number)
            continue
        else:
            yield number, content
        blank_bytes = 0


def check_blank_bytes(bytes_: int, number: int) -> None:
    """Raise SourceError if there are too many bytes without a value before the end of line `number`."""
    if bytes_ > MAX_BLANK_BYTES:
        raise SourceError(
            f"more than {MAX_BLANK_BYTES:,} bytes of empty lines and comments up to line {number}: the rest is not read",
            _REMEDY,
            code="too-many-empty-lines",
        )


def skip_line(file: BinaryIO | TextIO, number: int) -> None:
    """Skip the rest of line `number`, whose beginning has been read.

    Raises:
        SourceError: If it has no end within `MAX_SKIPPED_BYTES`.
    """
    for _ in range(MAX_SKIPPED_BYTES >> 20):
        line = file.readline(1 << 20)
        if not line or line[-1:] in (b"\n", "\n", "\r"):
            return
    raise SourceError(
        f"line {number} doesn't end within {MAX_SKIPPED_BYTES:,} bytes: the rest is not read", _REMEDY, code="line-too-long"
    )


def _skip_blank(file: BinaryIO) -> tuple[int, int]:
    """Skip all empty lines in the file's buffer at once; return their number and bytes."""
    if not isinstance(file, (io.BufferedReader, gzip.GzipFile)):
        return 0, 0
    buffered = file.peek(1)
    end = buffered.rfind(b"\n", 0, len(buffered) - len(buffered.lstrip())) + 1
    file.read(end)
    return buffered.count(b"\n", 0, end), end
