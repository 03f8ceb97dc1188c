"""Lines of a file, numbered, none longer than what may be held in memory."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from stair_es.errors import SourceError
from stair_es.sources.limits import BLANK_BYTES, ENDLESS_BYTES

_REMEDY = "Look into the file: is it what its name says?"


def numbered(file: BinaryIO, longest: int, comment: bytes | None = None) -> Iterator[tuple[int, bytes | None]]:
    """(number, line without its end) of the lines that aren't empty; None instead of one that is longer than `longest` bytes.

    Args:
        file: Read from where it is.
        longest: Of a line, in bytes, its end not counted.
        comment: What lines begin with that are passed over as empty ones are.

    Raises:
        SourceError: There are `BLANK_BYTES` of empty lines and comments in a row, or `ENDLESS_BYTES` without a line end.
    """
    number = blank_bytes = 0
    while line := file.readline(longest + 2):
        number += 1
        whole = line.rstrip(b"\r\n")
        if number == 1:
            whole = whole.removeprefix(b"\xef\xbb\xbf")
        if len(whole) > longest:
            yield number, None
            if not line.endswith(b"\n"):
                skip_line(file, number)
        elif not (text := whole.lstrip()) or (comment and text.startswith(comment)):
            lines, bytes_ = (0, 0) if text else _skip_blank(file)
            number += lines
            blank_bytes += len(line) + bytes_
            if blank_bytes > BLANK_BYTES:
                check_blank(blank_bytes, number)
            continue
        else:
            yield number, whole
        blank_bytes = 0


def check_blank(bytes_: int, number: int) -> None:
    """Nothing, if so many bytes without a value before the end of line `number` may be passed over.

    Raises:
        SourceError: They are too many.
    """
    if bytes_ > BLANK_BYTES:
        raise SourceError(
            f"more than {BLANK_BYTES:,} bytes of empty lines and comments up to line {number}: the rest isn't read", _REMEDY
        )


def skip_line(file: BinaryIO | TextIO, number: int) -> None:
    """Go to the line after line `number`, whose beginning is read already.

    Raises:
        SourceError: It has no end within `ENDLESS_BYTES`.
    """
    for _ in range(ENDLESS_BYTES >> 20):
        line = file.readline(1 << 20)
        if not line or line[-1:] in (b"\n", "\n", "\r"):
            return
    raise SourceError(f"line {number} has no end within {ENDLESS_BYTES:,} bytes: the rest isn't read", _REMEDY)


def _skip_blank(file: BinaryIO) -> tuple[int, int]:
    """How many empty lines were passed over, and how many bytes they had: all of them at once that the file has in its buffer."""
    if not isinstance(file, (io.BufferedReader, gzip.GzipFile)):
        return 0, 0
    ahead = file.peek(1)
    end = ahead.rfind(b"\n", 0, len(ahead) - len(ahead.lstrip())) + 1
    file.read(end)
    return ahead.count(b"\n", 0, end), end
