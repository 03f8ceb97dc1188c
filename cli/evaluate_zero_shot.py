"""`stair-es evaluate zero-shot`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_MODEL
from stair_es.errors import UsageError

from . import options
from .evaluate_output import Against, Classes, Folder, Given, Out, PerClass, reported
from .output import note

if TYPE_CHECKING:
    from stair_es.eval.tables import Report


def zero_shot(
    folder: Folder,
    classes: Classes = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt with {} for the class name; may be given several times.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", exists=True, dir_okay=False, help="File of prompts, one per line.")
    ] = None,
    limit: PerClass = None,
    out: Out = None,
    model: options.Model = DEFAULT_MODEL,
    fit: options.FitOption = None,
    against: Against = None,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
    as_json: options.Json = False,
) -> None:
    """Classify images by class names alone, and measure the accuracy of token weights and dense vectors. Needs no cluster.

    A class is the mean of the unit vectors of its names in all prompts; an image belongs to the class with the largest dot
    product.

    **Examples**

    `stair-es evaluate zero-shot imagenet/val --classes LOC_synset_mapping.txt --limit 10`

    `stair-es evaluate zero-shot pets --prompt "a photo of a {}, a pet" --against openai/clip-vit-base-patch16`
    """
    given = Given(model=model, fit=fit, against=against, backend=backend, text_tower=text_tower, out=out, as_json=as_json)

    def work(progress: Callable[[str, int, int], None]) -> Report:
        from stair_es.eval.class_folders import read_folder
        from stair_es.eval.zero_shot import PROMPTS
        from stair_es.eval.zero_shot import zero_shot as run

        chosen = [*(prompt or ()), *_lines(prompts)] or PROMPTS
        labelled = read_folder(folder, classes=classes, limit=limit)
        return run(labelled, given.models(), chosen, say=note, progress=progress)

    reported(given, work)


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} isn't UTF-8 text: {error.reason}", "Write one prompt per line: a photo of a {}.") from error
    found = [line for line in lines if line]
    if not found:
        raise UsageError(f"{path} has no prompt in it", "Write one prompt per line: a photo of a {}.")
    return found
