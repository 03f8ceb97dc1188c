"""What the commands of `stair-es evaluate` share: options, the models, progress, and where a report goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from stair_es.errors import StairError, UsageError

from .bars import visible
from .output import emit_json, note, plain, stdout

if TYPE_CHECKING:
    from stair_es.eval.contenders import Contender
    from stair_es.model.encoder import Backend, TextTower
    from stair_es.types import Fit

Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="A further model in the same tables, as it runs by default; may be given several times.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", file_okay=False, help="Write evaluation.json and evaluation.md into this folder, too."),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", exists=True, file_okay=False, help="The folder of the images; else that of CAPTIONS."),
]
Split = Annotated[str | None, typer.Option("--split", help="Of Karpathy's files: test (taken if none is said), val, ...")]
Folder = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, metavar="FOLDER", help="A folder with a folder of images for each class."),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        exists=True,
        dir_okay=False,
        help="Names of the classes by folder: .json, or .txt with `folder name, other name` a line. Else the folders' own names.",
    ),
]
PerClass = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many images of each class, the first ones.")]

_MOST_PROBLEMS = 5


class Report(Protocol):
    """What a command has found."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

    def markdown(self) -> str:
        """For people."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The options that every command has."""

    model: str
    fit: Fit | None
    """Of `model` alone."""
    against: Sequence[str] | None
    backend: Backend
    text_tower: TextTower
    out: Path | None
    as_json: bool

    def models(self) -> list[Contender]:
        """The models, loaded.

        Raises:
            StairError: One is unknown, broken or given twice.
        """
        from stair_es.eval.contenders import load
        from stair_es.model.encoder import ModelSpec

        first = ModelSpec(name=self.model, fit=self.fit, backend=self.backend, text_tower=self.text_tower)
        return load([first, *(ModelSpec(name=name) for name in self.against or ())])


def reported(given: Given, work: Callable[[Callable[[str, int, int], None]], Report]) -> None:
    """Do the work, with a progress to tell, and put its report where it is wanted.

    Raises:
        StairError: What the work failed of, or the folder of `--out` that can't be made; said as JSON, too.
    """
    from .progress import show_evaluation_progress

    try:
        _check_out(given.out)
        with show_evaluation_progress() as progress:
            found = work(progress)
    except StairError as error:
        if given.as_json:
            emit_json({"error": error.message, "remedy": error.remedy})
        raise
    text = found.markdown()
    if given.out is not None:
        _write(given.out, found, text)
    if given.as_json:
        emit_json(found.to_dict())
    else:
        plain("\n".join(visible(line, stdout.encoding) for line in text.splitlines()))


def say_problems(problems: Sequence[str]) -> None:
    """What was left out of a set; a few of many."""
    for problem in problems[:_MOST_PROBLEMS]:
        note(f"left out: {problem}")
    if len(problems) > _MOST_PROBLEMS:
        note(f"and {len(problems) - _MOST_PROBLEMS} more entries (all of them are in --json and --out)")


def _check_out(folder: Path | None) -> None:
    """Make the folder before an hour of work."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make the folder {str(folder)!r}: {error.strerror}", "Name another one: --out DIR") from error


def _write(folder: Path, found: Report, text: str) -> None:
    import json

    (folder / "evaluation.md").write_text(text, encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    note(f"written: {folder / 'evaluation.md'}, {folder / 'evaluation.json'}")
