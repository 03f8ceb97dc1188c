"""Read files of users, and of models that others made: only regular files, with limits on their size, depth and values."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MAX_TEXT_BYTES = 64 << 20
"""A text or JSON file: tokenizers have up to 35 MB."""
MAX_DATA_SET_BYTES = 1 << 30
"""A JSON file of captions, images and annotations."""
MAX_TOML_BYTES = 1 << 20
MAX_DEPTH = 100
"""Lists and objects within each other, and the parts of a name in TOML."""
_BYTES_PER_VALUE = 8
"""A file may have one value for so many bytes of its limit. A value can take 64 bytes of memory."""
_MARKS = (",", ":", "[", "{")
_TOML_STRING_OR_COMMENT = re.compile(
    r'''"""(?:\\.|[^\\])*?(?:"""|\Z)|'{3}.*?(?:'{3}|\Z)|"(?:\\.|[^"\\\n])*"?|'[^'\n]*'?|#[^\n]*''', re.DOTALL
)
"""A string that doesn't end is none, but must not be looked for again from each of its quotes."""
_NOT_IN_TOML_NAME = re.compile(r"[^\w\-. \t]+")
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotARegularFile(OSError):
    """A folder, a device or a pipe where a file is expected: it may have no end, or never a beginning."""


def open_regular_file(path: str | Path) -> BinaryIO:
    """Open a regular file, without waiting for the writer of a named pipe.

    Raises:
        NotARegularFile: If it is not a regular file.
        OSError: If it can't be opened.
    """
    descriptor = os.open(path, _FLAGS)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise NotARegularFile(errno.EINVAL, "not a regular file", str(path))


def read_bytes_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: If it can't be read, or isn't a regular file.
        ValueError: If it has more than `max_bytes`.
    """
    with open_regular_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data


def read_text_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    r"""Return the text of a file in UTF-8, without a byte order mark and with `\n` as line ends.

    Raises:
        OSError: If it can't be read, or isn't a regular file.
        ValueError: If it isn't UTF-8, or has more than `max_bytes`.
    """
    text = read_bytes_file(path, max_bytes).decode().removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_json_file(
    path: Path, max_bytes: int = MAX_TEXT_BYTES, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:  # noqa: ANN401  JSON
    """Return the value of a JSON file.

    Raises:
        OSError: If it can't be read, or isn't a regular file.
        ValueError: If it isn't JSON, or too large or deep.
    """
    text = read_text_file(path, max_bytes)
    if sum(map(text.count, _MARKS)) > max_bytes // _BYTES_PER_VALUE:
        raise ValueError(f"it has more than {max_bytes // _BYTES_PER_VALUE:,} values")
    return parse_json(text, object_pairs_hook)


def parse_json(text: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:  # noqa: ANN401  JSON
    """Return the value of a JSON text.

    Raises:
        ValueError: If it isn't JSON, or too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise _build_depth_error() from None
    check_depth(value)
    return value


def parse_toml_text(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        ValueError: If it isn't TOML, or too large or deep.
    """
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"it has more than {MAX_TOML_BYTES:,} characters")
    # The parser takes quadratic time for a name of many parts: only names have dots next to each other, outside of strings.
    bare_text = _TOML_STRING_OR_COMMENT.sub(lambda found: "" if found[0].startswith("#") else "x", text)
    if any(name.count(".") > MAX_DEPTH for name in _NOT_IN_TOML_NAME.split(bare_text)):
        raise ValueError(f"it has a name of more than {MAX_DEPTH} parts")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _build_depth_error() from None
    check_depth(values)
    return values


def check_depth(value: object) -> None:
    """Raise ValueError if dicts and lists are nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [each for each in level if isinstance(each, (dict, list))]
        if not containers:
            return
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    raise _build_depth_error()


def _build_depth_error() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
