"""`stair-es evaluate sparsity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...output.console import print_skipped
from .shared import EVALUATION_OPTIONS, ImageFolderOption, SplitOption, run_and_report

if TYPE_CHECKING:
    from stair_es.eval.sparsity import SparsityDataset
    from stair_es.eval.tables import TableReport
    from stair_es.types import PartProgressCallback


def evaluate_sparsity_command(
    path: Annotated[Path, typer.Argument(metavar="CAPTIONS|FOLDER", help="Caption set, or folder of images.")],
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Use only the first N images.")] = None,
) -> None:
    """Measure the cost of token vectors.

    **Examples**

    ```text
    stair-es evaluate sparsity examples/photos/captions.jsonl
    stair-es evaluate sparsity photos --limit 1000 --json
    ```

    Prints tokens per item, multiplications per comparison, and the balance of the posting lists. Requires no cluster.
    """
    arguments = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> TableReport:
        from stair_es.eval.sparsity import evaluate_sparsity

        items = _read_items(path, images, split, limit)
        print_skipped(items.problems)
        return evaluate_sparsity(items, arguments.load_models(), progress=progress)

    run_and_report(arguments, build_report)


def _read_items(path: Path, images: Path | None, split: str | None, limit: int | None) -> SparsityDataset:
    """Return the items of a caption set, or the images of any other folder."""
    from stair_es.eval import sparsity
    from stair_es.eval.datasets.captions import read_captions
    from stair_es.eval.datasets.detect import is_caption_folder

    if path.is_dir() and images is None and split is None and not is_caption_folder(path):
        return sparsity.read_sparsity_folder(path, limit)
    return sparsity.build_sparsity_dataset(read_captions(path, images=images, split=split, limit=limit))
