"""Shared parts of the `stair-es evaluate` commands: options, models and the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import UsageError

from ...options import config_file, shared
from ...options.connections import ConnectionArguments, open_cluster
from ...output.bars import escape_control
from ...output.console import emit_json, print_notice, print_plain, stdout

if TYPE_CHECKING:
    from stair_es.eval.datasets.captions import WordLists
    from stair_es.eval.models import EvaluatedModel
    from stair_es.eval.tables import TableReport
    from stair_es.types import PartProgressCallback

CompareOption = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="MODEL",
        help="Another model to compare with, in its default settings (repeatable).",
    ),
]
OutFolderOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", file_okay=False, help="Also write evaluation.json and evaluation.md to this folder."),
]
ImageFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        exists=True,
        file_okay=False,
        help="Folder with the images. [default: the folder of CAPTIONS]",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Split of a Karpathy file: train, val or test. [default: test]")
]
ClassFolderArgument = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, metavar="FOLDER", help="Folder with a subfolder of images per class."),
]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Class names by folder: a .json file, or a .txt file with `FOLDER NAME, OTHER NAME` per line."
        " [default: the folder names]",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Use only the first N images, or the first N of each class.")
]


@dataclass(frozen=True, kw_only=True)
class StoredTokensArguments:
    """Options of a command that may read tokens from the documents of an index instead of loading a model."""

    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            metavar="ALIAS",
            help="Measure the tokens in the documents of this index, whoever wrote them, instead of --model. Only for LISTS.",
        ),
    ] = None
    tokens_field: Annotated[
        str | None,
        typer.Option(
            "--tokens-field",
            metavar="FIELD",
            help="Field of the documents with tokens and weights, with dots for objects. [default: tokens]",
        ),
    ] = None
    image_field: Annotated[
        str | None,
        typer.Option(
            "--image-field",
            metavar="FIELD",
            help="Field of the documents with the path or URL of the image, with dots for objects. [default: uri]",
        ),
    ] = None

    @property
    def fields(self) -> dict[str, str | None]:
        """The options that only apply to an index."""
        return {"--tokens-field": self.tokens_field, "--image-field": self.image_field}

    def measure_readability(self, lists: WordLists, connection: ConnectionArguments) -> TableReport:
        """Measure the readability of the tokens in the index."""
        from stair_es.eval.readability import evaluate_index_readability

        given = {"tokens_field": self.tokens_field, "image_field": self.image_field}
        with open_cluster(connection) as cluster:
            return evaluate_index_readability(
                lists, cluster, self.index or "", **{name: field for name, field in given.items() if field}
            )


class PrintableReport(Protocol):
    """Result of a command."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""

    def to_markdown(self) -> str:
        """Return the report as Markdown."""


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments:
    """Options of every `evaluate` command."""

    out: OutFolderOption = None
    model: shared.ModelOption = DEFAULT_MODEL
    fit: shared.FitOption = None
    """Applies to `model` only."""
    compare: CompareOption = None
    backend: shared.BackendOption = "auto"
    precision: shared.PrecisionOption = "auto"
    text_tower: shared.TextTowerOption = "full"
    as_json: shared.JsonOption = False

    def load_models(self) -> list[EvaluatedModel]:
        """Load the model of `--model`, then those of `--compare`."""
        from stair_es.eval.models import load_models
        from stair_es.model.base import ModelSpec

        settings = config_file.get_config().settings
        compared = ModelSpec(name="", precision=self.precision, settings=settings)
        spec = replace(compared, name=self.model, fit=self.fit, backend=self.backend, text_tower=self.text_tower)
        return load_models([spec, *(replace(compared, name=name) for name in self.compare or ())])

    @contextmanager
    def show_progress(self) -> Iterator[PartProgressCallback]:
        """Make the folder of `--out` before the long work begins, and show the progress of the work."""
        from ...output.progress import show_evaluation_progress

        try:
            if self.out is not None:
                self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"can't create the folder {str(self.out)!r}: {error.strerror}"
            raise UsageError(problem, "Use another one: --out FOLDER", code="output-not-writable") from error
        with show_evaluation_progress() as progress:
            yield progress

    def print_report(self, report: PrintableReport) -> None:
        """Print the report, and write it to the folder of `--out`."""
        if self.out is not None:
            _write_report(self.out, report)
        print_report(report, as_json=self.as_json)


def print_report(report: PrintableReport, *, as_json: bool) -> None:
    """Print a report as Markdown or JSON."""
    if as_json:
        emit_json(report.to_dict())
    else:
        print_plain("\n".join(escape_control(line, stdout.encoding) for line in report.to_markdown().splitlines()))


def _write_report(folder: Path, report: PrintableReport) -> None:
    import json

    (folder / "evaluation.md").write_text(report.to_markdown(), encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print_notice(f"written: {folder / 'evaluation.md'}, {folder / 'evaluation.json'}")
