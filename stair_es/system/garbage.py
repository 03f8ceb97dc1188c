"""The garbage collector of a process that holds many small objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG_OBJECTS = 50_000


@contextmanager
def collect_garbage_rarely() -> Iterator[None]:
    """Look for cyclic garbage only after 50,000 new objects, while the block runs.

    For a process with many small objects and few cycles, such as the driver with all the images in flight: after the default of
    700 or 2,000 the collector takes a quarter of its time (`benchmarks/driver.py`). Not for one that holds pixels.
    """
    _, *older = before = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, *older)
    try:
        yield
    finally:
        gc.set_threshold(*before)
