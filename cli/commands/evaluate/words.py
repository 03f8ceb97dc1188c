"""`stair-es evaluate words`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError

from ...output.console import print_skipped
from .shared import EVALUATION_OPTIONS, ClassNamesOption, ImageFolderOption, LimitOption, SplitOption, run_and_report

if TYPE_CHECKING:
    from stair_es.eval.interpretability import InterpretabilityTask
    from stair_es.eval.tables import TableReport
    from stair_es.types import PartProgressCallback


def evaluate_words_command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|CAPTIONS", help="Folder with a subfolder of images per class, or a caption set."),
    ],
    classes: ClassNamesOption = None,
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="Prompt for dense vectors, with {} for the token.")
    ] = "{}",
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Also score the dense vectors of models with token weights. Encodes a text per token: minutes on a CPU.",
        ),
    ] = False,
) -> None:
    """Measure how often the correct word of an image ranks first in the whole vocabulary.

    **Examples**

    ```text
    stair-es evaluate words caltech101 --limit 20
    stair-es evaluate words examples/photos/captions.jsonl
    ```

    Scores every token of the vocabulary for each image, by its weight or, for models without token weights, by the cosine of
    dense vectors. In a folder of classes, the class name should rank first; in a caption set, a word of the captions. A folder
    with both is used as a caption set unless you give `--classes`. Requires no cluster.
    """
    arguments = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> TableReport:
        from stair_es.eval.interpretability import evaluate_interpretability

        task = _read_task(path, classes, images, split, limit)
        print_skipped(task.problems)
        return evaluate_interpretability(task, arguments.load_models(), prompt=prompt, dense=dense, progress=progress)

    run_and_report(arguments, build_report)


def _read_task(
    path: Path, classes: Path | None, images: Path | None, split: str | None, limit: int | None
) -> InterpretabilityTask:
    from stair_es.eval import interpretability
    from stair_es.eval.datasets.captions import read_captions
    from stair_es.eval.datasets.detect import is_caption_folder
    from stair_es.eval.datasets.image_folder import has_class_folders, read_image_folder

    is_caption_set = images is not None or split is not None
    if classes is not None and is_caption_set:
        raise UsageError(
            "--classes is for a folder of classes, --images and --split are for a caption set",
            "Omit the options of the other kind.",
        )
    if classes is not None or (not (is_caption_set or is_caption_folder(path)) and has_class_folders(path)):
        return interpretability.build_class_task(read_image_folder(path, classes=classes, limit=limit))
    if path.is_dir() and not is_caption_set and not is_caption_folder(path):
        raise UsageError(
            f"{path} has neither captions nor two folders with images in them",
            "Specify a folder with a subfolder of images per class, or a caption set (docs/evaluate.md).",
        )
    return interpretability.build_caption_task(read_captions(path, images=images, split=split, limit=limit))
