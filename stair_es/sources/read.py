"""The bytes of an image, with the limits that keep a worker alive."""

from __future__ import annotations

import os
import stat

from stair_es.errors import DecodeError
from stair_es.sources.paths import path_of


def read(uri: str, max_bytes: int) -> bytes:
    """The bytes at a `file://` URI.

    Raises:
        DecodeError: Gone, unreadable, no regular file, or larger than `max_bytes`.
    """
    path = path_of(uri)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("not a regular file")
            if status.st_size > max_bytes:
                raise DecodeError(f"{status.st_size} bytes exceed the limit of {max_bytes}")
            return file.read()
    except OSError as error:
        raise DecodeError(f"can't be read: {error.strerror or error}") from error
