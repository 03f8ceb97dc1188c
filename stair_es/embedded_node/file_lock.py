"""A file lock across processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stair_es.errors import NodeError

logger = logging.getLogger(__name__)

_PATIENCE_S = 900.0


@contextmanager
def hold_lock(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold the lock file. The operating system releases it when its holder dies, so a stale file doesn't block.

    `waiting_for` describes the work of the holder in messages.

    Raises:
        NodeError: If the file cannot be written, or another process held the lock for 15 minutes.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("waiting for another process that %s", waiting_for)
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise NodeError(
            f"{path} was held for {_PATIENCE_S:.0f} s by a process that {waiting_for}",
            "If another stair-es process hangs, stop it and try again.",
            code="lock-held",
        ) from None
    except OSError as error:
        raise build_write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


def build_write_error(path: Path, error: OSError) -> NodeError:
    """Return the error for a data folder that cannot be written."""
    return NodeError(
        f"can't write {error.filename or path}: {error.strerror or error}",
        "Free some space, or set STAIR_ES_HOME to a writable folder.",
        code="home-not-writable",
    )
