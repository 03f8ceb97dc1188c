"""Expect an error by its code: messages are pinned once, in `docs/reference/errors.md`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stair_es.errors import StairError


@contextmanager
def expect_error(code: str, kind: type[StairError] = StairError) -> Iterator[pytest.ExceptionInfo[StairError]]:
    """Assert that the block raises an error of the kind with the code.

    What is yielded holds it afterwards: look for facts in `str(caught.value)`, such as a path, a name or a number.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
