"""`stair-es evaluate zero-shot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError
from stair_es.system.user_files import read_text_file

from .shared import EVALUATION_OPTIONS, ClassFolderArgument, ClassNamesOption, LimitOption, run_and_report

if TYPE_CHECKING:
    from stair_es.eval.tables import TableReport
    from stair_es.types import PartProgressCallback


def evaluate_zero_shot_command(
    folder: ClassFolderArgument,
    classes: ClassNamesOption = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Prompt with {} for the class name (repeatable).")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", exists=True, dir_okay=False, help="File with one prompt per line.")
    ] = None,
    limit: LimitOption = None,
) -> None:
    """Measure the accuracy of classifying images by class names alone.

    **Examples**

    ```text
    stair-es evaluate zero-shot imagenet/val --classes LOC_synset_mapping.txt --limit 10
    stair-es evaluate zero-shot pets --prompt "a photo of a {}, a pet" --compare openai/clip-vit-base-patch16
    ```

    Measures token weights and dense vectors. The vector of a class is the mean of the unit vectors of its names in all prompts,
    and an image belongs to the class with the largest dot product. Requires no cluster.
    """
    arguments = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> TableReport:
        from stair_es.eval.datasets.image_folder import read_image_folder
        from stair_es.eval.zero_shot import DEFAULT_PROMPTS, evaluate_zero_shot

        templates = [*(prompt or ()), *_read_prompts(prompts)] or DEFAULT_PROMPTS
        dataset = read_image_folder(folder, classes=classes, limit=limit)
        return evaluate_zero_shot(dataset, arguments.load_models(), templates, progress=progress)

    run_and_report(arguments, build_report)


def _read_prompts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in read_text_file(path).splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the prompts in {path} can't be read: {error}", "Write one prompt per line: a photo of a {}."
        ) from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise UsageError(f"{path} contains no prompt", "Write one prompt per line: a photo of a {}.")
    return prompts
