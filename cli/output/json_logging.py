"""Log lines as JSON on stderr, one object per line: our own notices, and the records of libraries."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

NOTICE_LOGGER = logging.getLogger("stair_es.notices")
_CONTROL_CHARACTERS = re.compile(r"[\x7f-\x9f]")
"""Control characters that JSON doesn't have to escape, as it does those below U+0020."""


def dump_json_line(value: Any) -> str:  # noqa: ANN401  any JSON value
    """Dump one line of JSON, with control characters escaped."""
    return _CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False, default=str))


class JsonLineFormatter(logging.Formatter):
    """Formatter for `time` (ISO 8601, UTC), `level`, `message`, the facts of a notice; elsewhere `logger` and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.name != NOTICE_LOGGER.name:
            line["logger"] = record.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return dump_json_line(line)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 has no StreamHandler[...]
    """Handler that writes to the current `sys.stderr`."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(JsonLineFormatter())

    @property
    def stream(self) -> Any:  # noqa: ANN401
        return sys.stderr


def is_json_logging() -> bool:
    """Return whether stderr is JSON."""
    return any(isinstance(handler, _StderrHandler) for handler in NOTICE_LOGGER.handlers)


def set_json_logging(enabled: bool) -> None:
    """Log everything in this process as JSON lines, warnings and uncaught exceptions included; or stop doing so."""
    logging.captureWarnings(enabled)
    sys.excepthook = _log_uncaught if enabled else sys.__excepthook__
    if enabled:
        threading.excepthook = _log_uncaught_in_thread
    elif threading.excepthook is _log_uncaught_in_thread:
        threading.excepthook = threading.__excepthook__
    for logger in (NOTICE_LOGGER, logging.root):
        for handler in [handler for handler in logger.handlers if isinstance(handler, _StderrHandler)]:
            logger.removeHandler(handler)
        if enabled:
            logger.addHandler(_StderrHandler())
    NOTICE_LOGGER.setLevel(logging.INFO)
    NOTICE_LOGGER.propagate = False


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    NOTICE_LOGGER.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value if args.exc_value is not None else args.exc_type()
    _log_uncaught(args.exc_type, error, args.exc_traceback)
