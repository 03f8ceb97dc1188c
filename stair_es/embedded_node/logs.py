"""The node's log: read its end, follow it, and explain from it why a start failed."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stair_es.embedded_node.ports import build_port_error
from stair_es.embedded_node.spec import NodeSpec
from stair_es.errors import NodeError

START_MARK = "=== stair-es starts the node: "
"""Start of the line that separates one run of the server from the next."""

_POLL_S = 0.3


def read_log_tail(path: Path, count: int) -> list[str]:
    """Return the last `count` lines; empty if there is no log."""
    try:
        with path.open("rb") as file:
            return [_decode_line(line) for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []


def follow_log(path: Path, count: int) -> Iterator[str]:
    """Yield the last `count` lines and then each new line, endlessly; a log that is replaced is read from its start."""
    max_lines: int | None = count
    while True:
        if path.exists():
            with path.open("rb") as file:
                yield from (_decode_line(line) for line in deque(file, maxlen=max_lines))
                yield from _read_added_lines(path, file)
        else:
            time.sleep(_POLL_S)
        max_lines = None


def _read_added_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Yield new lines until the log is replaced by another file."""
    line = b""
    while True:
        line += file.readline()
        if line.endswith(b"\n"):
            yield _decode_line(line)
            line = b""
        elif _is_replaced(path, file):
            return
        else:
            time.sleep(_POLL_S)


def _is_replaced(path: Path, file: BinaryIO) -> bool:
    if not path.exists():
        return False
    status = path.stat()
    return status.st_ino != os.fstat(file.fileno()).st_ino or status.st_size < file.tell()


def _decode_line(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")


_SHOWN_LINES = 12
_READ_LINES = 200
_ERROR_SIGNS = ("[ERROR]", "Error: ", "Exception", "Caused by", "Unrecognized", "Could not")


def explain_startup_failure(spec: NodeSpec) -> NodeError:
    """Return the error for a server that ended while it started, based on its last log lines."""
    lines = read_log_tail(spec.log_file, _READ_LINES)
    starts = [number for number, line in enumerate(lines) if line.startswith(START_MARK)]
    lines = lines[starts[-1] + 1 :] if starts else lines
    text = "\n".join(lines)
    if "BindHttpException" in text or "Address already in use" in text:
        return build_port_error(spec.port)
    if "failed to obtain node locks" in text:
        return NodeError(
            f"another process uses the data in {spec.data}",
            "It may run in another container or have lost its state file: stop it there, or set STAIR_ES_HOME to another folder.",
            code="node-data-in-use",
        )
    if "Could not reserve enough space" in text or "Cannot allocate memory" in text:
        return NodeError(f"not enough memory for a heap of {spec.heap}", "Use a smaller heap: --heap 256m", code="heap-too-large")
    error_lines = [line for line in lines if not line.startswith("\tat ") and any(sign in line for sign in _ERROR_SIGNS)]
    shown = "\n".join(f"  {line[:200]}" for line in (error_lines or lines)[-_SHOWN_LINES:])
    return NodeError(f"the embedded node exited during startup:\n{shown}", f"Complete log: {spec.log_file}", code="node-exited")
