"""Columns that the user named, looked for in rows that may each have others: JSON Lines, tars."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stair_es.errors import UsageError

_ROWS = 1000
"""After so many rows without a column it is taken for a typing error: a corpus without its captions is worse than a stop."""
_SHOWN = 500
OPTIONS = "Name columns with --map FIELD=COLUMN and --image-column COLUMN."
"""How an ingest of images names columns; others put their own in its place."""


class Expected:
    """Which of the columns no row has had yet. For one listing."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._missing = [name for name in dict.fromkeys(columns) if name != "*"]
        self._names = dict[str, None]()
        self._rows = 0

    def saw(self, names: Collection[str]) -> None:
        """A row has these columns."""
        self._rows += 1
        if not self._missing:
            return
        self._missing = [name for name in self._missing if name not in names]
        if len(self._names) < _SHOWN:
            self._names |= dict.fromkeys(map(str, names))

    def check(self, uri: str, *, at_end: bool = False) -> None:
        """Nothing, as long as each column may still come.

        Args:
            uri: Of what the rows are in.
            at_end: Whether there are no more rows.

        Raises:
            UsageError: One isn't there.
        """
        if self._missing and self._rows and (at_end or self._rows >= _ROWS):
            where = uri if at_end else f"{uri}, in its first {self._rows} rows,"
            raise no_column(where, self._missing[0], self._names)


def no_column(where: str, name: str, names: Iterable[str]) -> UsageError:
    """The error for a column that isn't there."""
    return UsageError(f"{where} has no column {name!r}", f"It has: {', '.join(names)[:_SHOWN]}. {OPTIONS}")
