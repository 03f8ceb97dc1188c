"""What the page tells of its work, for whoever counts or times it; nobody does by default."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeAlias

What: TypeAlias = Literal["text", "image"]
PATTERN = "stair_es.pattern"
"""Key of an ASGI scope: the path of the route that answered, with `{id}` and the like in it. Absent where none did."""


class Watch(Protocol):
    """Gets word from many threads at once."""

    def encoding(self, what: What) -> AbstractContextManager[object]:
        """Around the work of a model on a text or an image; waiting for its turn is not in it."""

    def took(self, seconds: float) -> None:
        """The cluster says that it worked so long on a search."""

    def uploading(self) -> AbstractContextManager[object]:
        """Around a dropped image, from its first byte to its words."""

    def thumbnail(self, *, ready: bool) -> None:
        """A thumbnail was asked for; whether it lay ready."""


class Unwatched:
    """See `Watch`."""

    def encoding(self, what: What) -> AbstractContextManager[object]:
        """See `Watch`."""
        return nullcontext()

    def took(self, seconds: float) -> None:
        """See `Watch`."""

    def uploading(self) -> AbstractContextManager[object]:
        """See `Watch`."""
        return nullcontext()

    def thumbnail(self, *, ready: bool) -> None:
        """See `Watch`."""
