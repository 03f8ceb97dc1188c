"""What the library logs for its user, as a test or a benchmark wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Forward(logging.Handler):
    def __init__(self, receive: Callable[[str], object]) -> None:
        super().__init__(logging.INFO)
        self._receive = receive

    def emit(self, record: logging.LogRecord) -> None:
        self._receive(record.getMessage())


@contextmanager
def forward_messages(receive: Callable[[str], object]) -> Iterator[None]:
    """Call `receive` with each message of stair_es until the end of the `with`; what it raises goes to whoever logs."""
    logger, handler = logging.getLogger("stair_es"), _Forward(receive)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
