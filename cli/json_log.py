"""Log lines as JSON on stderr, one object per line: our own notices, and the records of libraries."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

LOG = logging.getLogger("stair_es.said")
_CONTROLS = re.compile(r"[\x7f-\x9f]")
"""Control characters that JSON doesn't have to escape, as it does those below U+0020."""


def json_text(value: Any) -> str:  # noqa: ANN401  any JSON value
    """Dump one line of JSON, with control characters escaped."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False, default=str))


class JsonLine(logging.Formatter):
    """Formatter for `time` (ISO 8601, UTC), `level`, `message`, the facts of a notice; elsewhere `logger` and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.name != LOG.name:
            line["logger"] = record.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_text(line)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 has no StreamHandler[...]
    """Handler that writes to the current `sys.stderr`."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(JsonLine())

    @property
    def stream(self) -> Any:  # noqa: ANN401
        return sys.stderr


def lines_are_json() -> bool:
    """Return whether stderr is JSON."""
    return any(isinstance(handler, _Stderr) for handler in LOG.handlers)


def to_json_lines(wanted: bool) -> None:
    """Log everything in this process as JSON lines, warnings and uncaught exceptions included; or stop doing so."""
    logging.captureWarnings(wanted)
    sys.excepthook = _uncaught if wanted else sys.__excepthook__
    if wanted:
        threading.excepthook = _uncaught_in_thread
    elif threading.excepthook is _uncaught_in_thread:
        threading.excepthook = threading.__excepthook__
    for logger in (LOG, logging.root):
        for handler in [each for each in logger.handlers if isinstance(each, _Stderr)]:
            logger.removeHandler(handler)
        if wanted:
            logger.addHandler(_Stderr())
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    LOG.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _uncaught_in_thread(end: threading.ExceptHookArgs) -> None:
    error = end.exc_value if end.exc_value is not None else end.exc_type()
    _uncaught(end.exc_type, error, end.exc_traceback)
