"""`stair-es evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config import DEFAULT_MODEL, MAX_HITS
from stair_es.errors import StairError, UsageError

from . import options
from .bars import visible
from .output import emit_json, note, plain, stderr, stdout

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.eval.report import Evaluation
    from stair_es.eval.run import EvalOptions

_MOST_PROBLEMS = 5


def evaluate(
    captions: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="CAPTIONS",
            help="JSON Lines of {image, caption(s)}, COCO's `captions_*.json`, or Karpathy's `dataset_*.json`.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", exists=True, file_okay=False, help="The folder of the images; else that of CAPTIONS."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of Karpathy's files: test (taken if none is said), val, ...")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many images, the first ones.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Write evaluation.json and evaluation.md into this folder, too.")
    ] = None,
    url: options.Url = None,
    model: options.Model = DEFAULT_MODEL,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
    vector: Annotated[
        Literal["rank_features", "sparse_vector"],
        typer.Option("--vector", help="Field type of the words; sparse_vector is Elasticsearch's."),
    ] = "rank_features",
    shape: Annotated[
        Literal["rank_features", "neural_sparse", "sparse_vector", "weighted_tokens"] | None,
        typer.Option("--shape", help="Form of the queries; else what suits the cluster."),
    ] = None,
    depth: Annotated[
        int, typer.Option("--depth", min=10, max=MAX_HITS, help="Hits asked for; what isn't among them is ranked last.")
    ] = 1000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the temporary indices (eval-...) in the cluster.")] = False,
    as_json: options.Json = False,
) -> None:
    """Measure a model and the cluster on a set of images with captions, both ways, method beside method.

    Text to image and image to text: recall, nDCG, MRR and median rank of the model's words, of bags of words, of BM25 on
    captions and of dense vectors by kNN (where they can be had), by exact dot products and by the cluster, in temporary
    indices that are deleted at the end.

    **Examples**

    `stair-es evaluate examples/photos/captions.jsonl`

    `stair-es evaluate dataset_flickr30k.json --images flickr30k-images --limit 500 --out report`

    `stair-es evaluate captions_val2017.json --images val2017 --json`
    """
    from stair_es.eval.captions import read_captions
    from stair_es.eval.run import EvalOptions
    from stair_es.model.encoder import ModelSpec

    try:
        _check_out(out)
        chosen = EvalOptions(
            model=ModelSpec(name=model, backend=backend, text_tower=text_tower),
            vector=vector,
            shape=shape,
            depth=depth,
            keep=keep,
        )
        found = _run(read_captions(captions, images=images, split=split, limit=limit), url, chosen)
    except StairError as error:
        if as_json:
            emit_json({"error": error.message, "remedy": error.remedy})
        raise
    from stair_es.eval.markdown import markdown

    text = markdown(found)
    if out is not None:
        _write(out, found, text)
    if as_json:
        emit_json(found.to_dict())
    else:
        plain("\n".join(visible(line, stdout.encoding) for line in text.splitlines()))


def _run(captions: CaptionSet, url: str | None, chosen: EvalOptions) -> Evaluation:
    from stair_es.eval.run import evaluate as run
    from stair_es.model import catalogue

    encoder = catalogue.load(chosen.model)
    for problem in captions.problems[:_MOST_PROBLEMS]:
        note(f"left out: {problem}")
    if len(captions.problems) > _MOST_PROBLEMS:
        note(f"and {len(captions.problems) - _MOST_PROBLEMS} more entries (all of them are in --json and --out)")
    with _progress() as progress:
        return run(captions, encoder, options.connection(url), chosen, say=note, progress=progress)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for people; where stderr is no terminal, a line when a part is through."""
    if not stderr.is_terminal:
        yield lambda what, done, total: note(f"{what}: {done:,} of {total:,}") if done == total else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=stderr
    ) as bar:
        tasks = {what: bar.add_task(what, total=None, visible=False) for what in ("images", "texts", "queries")}
        yield lambda what, done, total: bar.update(tasks[what], completed=done, total=total, visible=True)


def _check_out(folder: Path | None) -> None:
    """Make the folder before an hour of work.

    Raises:
        UsageError: It can't be made.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make the folder {str(folder)!r}: {error.strerror}", "Name another one: --out DIR") from error


def _write(folder: Path, found: Evaluation, text: str) -> None:
    import json

    (folder / "evaluation.md").write_text(text, encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    note(f"written: {folder / 'evaluation.md'}, {folder / 'evaluation.json'}")
