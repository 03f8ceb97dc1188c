"""Progress of long work on stderr: a bar for people, now and then a line where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .bars import visible
from .output import note, stderr

if TYPE_CHECKING:
    from stair_es.ingest.run_accounting import Books

_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    def __init__(self, noun: str) -> None:
        super().__init__()
        self._noun = noun

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f} {self._noun}/s" if task.speed else f"- {self._noun}/s")


@contextmanager
def books_progress(noun: str = "images") -> Iterator[Callable[[Books], None]]:
    """A callback that shows how far the books of an ingest are. The total grows until everything is listed."""
    if stderr.is_terminal:
        with _bar(noun) as update:
            yield update
    else:
        yield _lines(noun)


@contextmanager
def _bar(noun: str) -> Iterator[Callable[[Books], None]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(noun),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task("", total=None, visible=False)

        def update(books: Books) -> None:
            dead = f"{books.kinds['dead']} dead" if books.kinds["dead"] else ""
            listing = "" if books.listing_done else f"{books.listed:,} listed so far"
            total = books.listed if books.listing_done else None
            description = " ".join(filter(None, (listing, dead, visible(books.waiting))))
            bar.update(task, completed=books.done, total=total, description=description, visible=True)

        yield update


def _lines(noun: str) -> Callable[[Books], None]:
    start = last = time.monotonic()

    def update(books: Books) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            rate = books.done / (now - start)
            left = books.listed - books.done
            eta = f"ETA {left / rate if rate else 0.0:,.0f} s" if books.listing_done else "still listing"
            note(
                f"{books.done:,}/{books.listed:,} {noun}, {rate:,.1f} {noun}/s, {eta}, {books.kinds['dead']} dead"
                + (f", {visible(books.waiting)}" if books.waiting else ""),
                done=books.done,
                listed=books.listed,
                listing_done=books.listing_done,
                dead=books.kinds["dead"],
                per_s=round(rate, 1),
                waiting=books.waiting,
            )

    return update
