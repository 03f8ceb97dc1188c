"""`stair-es evaluate sparsity`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_MODEL

from . import options
from .evaluate_output import Against, Given, Images, Out, Split, reported, say_problems
from .output import note

if TYPE_CHECKING:
    from stair_es.eval.sparsity import Items
    from stair_es.eval.tables import Report


def sparsity(
    path: Annotated[Path, typer.Argument(metavar="CAPTIONS|FOLDER", help="A caption set, or a folder of images.")],
    images: Images = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N images.")] = None,
    out: Out = None,
    model: options.Model = DEFAULT_MODEL,
    fit: options.FitOption = None,
    against: Against = None,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
    as_json: options.Json = False,
) -> None:
    """Measure the cost of token vectors: tokens per item, multiplications per comparison, balance of the posting lists.

    Needs no cluster.

    **Examples**

    `stair-es evaluate sparsity examples/photos/captions.jsonl`

    `stair-es evaluate sparsity photos --limit 1000 --json`
    """
    given = Given(model=model, fit=fit, against=against, backend=backend, text_tower=text_tower, out=out, as_json=as_json)

    def work(progress: Callable[[str, int, int], None]) -> Report:
        from stair_es.eval.sparsity import sparsity as run

        items = _items(path, images, split, limit)
        say_problems(items.problems)
        return run(items, given.models(), say=note, progress=progress)

    reported(given, work)


def _items(path: Path, images: Path | None, split: str | None, limit: int | None) -> Items:
    """Return the items of a caption set, or the images of any other folder."""
    from stair_es.eval import sparsity
    from stair_es.eval.captions import read_captions
    from stair_es.eval.formats import is_caption_folder

    if path.is_dir() and images is None and split is None and not is_caption_folder(path):
        return sparsity.of_folder(path, limit)
    return sparsity.of_captions(read_captions(path, images=images, split=split, limit=limit))
