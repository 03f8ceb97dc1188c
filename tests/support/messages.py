"""Receive the messages that the library logs for its user."""

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
    """Call `receive` with each message of stair_es within the context; its exceptions propagate to the logging call."""
    logger, handler = logging.getLogger("stair_es"), _Forward(receive)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
