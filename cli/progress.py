"""Progress of long work on stderr: a bar for people, now and then a line where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .output import note, stderr

if TYPE_CHECKING:
    from stair_es.ingest.report import Books

_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f} images/s" if task.speed else "- images/s")


@contextmanager
def image_progress(total: int) -> Iterator[Callable[[Books], None]]:
    """A callback that shows how far the books of an ingest are."""
    if stderr.is_terminal:
        with _bar(total) as update:
            yield update
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Books], None]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task("", total=total)

        def update(books: Books) -> None:
            bar.update(task, completed=books.done, description=f"{books.kinds['dead']} dead" if books.kinds["dead"] else "")

        yield update


def _lines(total: int) -> Callable[[Books], None]:
    start = last = time.monotonic()

    def update(books: Books) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            rate = books.done / (now - start)
            eta_s = (total - books.done) / rate if rate else 0.0
            note(f"{books.done:,}/{total:,} images, {rate:,.1f} images/s, ETA {eta_s:,.0f} s, {books.kinds['dead']} dead")

    return update
