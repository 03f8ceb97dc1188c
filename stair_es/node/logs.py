"""The node's log, read from its end."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

START_MARK = "=== stair-es starts the node: "
"""Begins the line that separates one run of the server from the next."""

_POLL_S = 0.3


def tail(path: Path, count: int) -> list[str]:
    """The last `count` lines; none if there is no log."""
    try:
        with path.open("rb") as file:
            return [_text(line) for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []


def follow(path: Path, count: int) -> Iterator[str]:
    """The last `count` lines and then what is added, without end; a log that is replaced is read from its start."""
    wanted: int | None = count
    while True:
        if path.exists():
            with path.open("rb") as file:
                yield from (_text(line) for line in deque(file, maxlen=wanted))
                yield from _added(path, file)
        else:
            time.sleep(_POLL_S)
        wanted = None


def _added(path: Path, file: BinaryIO) -> Iterator[str]:
    """What is written from here on, until another file takes the log's place."""
    half = b""
    while True:
        half += file.readline()
        if half.endswith(b"\n"):
            yield _text(half)
            half = b""
        elif _replaced(path, file):
            return
        else:
            time.sleep(_POLL_S)


def _replaced(path: Path, file: BinaryIO) -> bool:
    if not path.exists():
        return False
    now = path.stat()
    return now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")
