"""`stair-es distill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.errors import ConfigError, OptionConflict, UsageError

from ..options import config_file, shared
from ..output.console import emit_json, print_notice, print_plain, print_skipped
from ..output.training import print_training_result

if TYPE_CHECKING:
    from stair_es.distill.dense_model import DenseModel
    from stair_es.distill.labels import DistillReport
    from stair_es.model.labels.word_list import WordKind
    from stair_es.sources.base import Locator
    from stair_es.training.train import TrainingResult

_LABELS_PANEL, _HEAD_PANEL = "With --method labels", "With --method head"

_Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Dense model: folder or hub id of a CLIP, SigLIP, ALIGN or BLIP (retrieval) model, or a stair-es checkpoint"
        " folder with a dense head.",
    ),
]
_Images = Annotated[
    list[str] | None,
    typer.Option(
        "--images",
        metavar="SOURCE",
        help="Images like those to be searched, given as for `stair-es ingest` (repeatable). `labels` learns from up to 1,000 of"
        " them what is usual for each word; `head` trains on all of them.",
    ),
]
_Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", file_okay=False, help="Folder for the new checkpoint.")]
_Method = Annotated[
    Literal["labels", "head"],
    typer.Option(
        "--method",
        help="`labels` scores words for each image, without training. `head` trains heads on top of the model, on images with"
        " captions or on images alone.",
    ),
]
_Words = Annotated[
    Path | None,
    typer.Option(
        "--words",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="File with more words, one word or phrase per line, perhaps with its kind after a tab: thing, scene, activity or"
        " attribute.",
    ),
]
_OnlyGivenWords = Annotated[
    bool,
    typer.Option(
        "--only-given-words",
        help="Use only the words of --words and --captions, without the 3,700 words that come with stair-es.",
    ),
]
_Captions = Annotated[
    list[Path] | None,
    typer.Option(
        "--captions",
        metavar="CAPTIONS",
        exists=True,
        help="Caption set with texts like the queries, given as for `stair-es evaluate retrieval` (repeatable). `labels` adds its"
        " words and subtracts the mean vector of up to 1,000 captions from texts; `head` trains on it.",
    ),
]
_Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="Prompt with {} for the word, such as 'a photo of a {}' (repeatable; the vectors are averaged)."
        " [default: by the kind of word]",
        rich_help_panel=_LABELS_PANEL,
    ),
]
_ImageTokens = Annotated[
    int, typer.Option("--image-tokens", metavar="N", min=1, max=1024, help="Maximum number of tokens per image.")
]
_TextTokens = Annotated[
    int,
    typer.Option(
        "--text-tokens",
        metavar="N",
        min=1,
        max=128,
        help="Maximum number of tokens per text. More tokens find more images and make searches slower.",
    ),
]
_Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        min=1,
        help="Maximum number of training steps. Training stops early when held-out images don't improve."
        " [default: by the number of images]",
        rich_help_panel=_HEAD_PANEL,
    ),
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Random seed.", rich_help_panel=_HEAD_PANEL)]
_Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="Device to train on; `auto` uses CUDA if available.", rich_help_panel=_HEAD_PANEL),
]
_Restart = Annotated[
    bool,
    typer.Option("--restart", help="Discard the training run in --out and start over.", rich_help_panel=_HEAD_PANEL),
]


def distill_command(
    model: _Model,
    out: _Out,
    images: _Images = None,
    method: _Method = "labels",
    words: _Words = None,
    only_given_words: _OnlyGivenWords = False,
    captions: _Captions = None,
    prompts: _Prompts = None,
    image_tokens: _ImageTokens = 64,
    text_tokens: _TextTokens = 64,
    steps: _Steps = None,
    seed: _Seed = 0,
    device: _Device = "auto",
    restart: _Restart = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Make a STAIR checkpoint from a dense model, such as CLIP, and your own images.

    **Examples**

    ```text
    stair-es distill openai/clip-vit-base-patch32 --images ~/Pictures --out models/clip-words
    stair-es distill ./siglip --images products.parquet --captions captions.jsonl --out models/products
    stair-es distill openai/clip-vit-base-patch32 --method head --captions captions.jsonl --out models/clip-head
    stair-es ingest ~/Pictures --index photos --model models/clip-words
    ```

    `--method labels` trains nothing. `--method head` trains on images with captions, or on images alone; run the command again
    after an interruption to resume. The dense model is copied to the output folder. To measure the result on your images, run
    `stair-es evaluate retrieval`, which also measures the dense model.
    """
    if only_given_words and not (words or captions):
        raise UsageError("--only-given-words is without words", "Give --words FILE or --captions CAPTIONS.", code="no-words")
    if method == "head":
        _refuse_options("labels", {"--prompt": bool(prompts)})
        if captions and (words or only_given_words):
            problem = "with --method head and --captions, the words are those of the captions"
            raise OptionConflict(problem, "Leave out --words and --only-given-words.")
        choices = {"image_tokens": image_tokens, "text_tokens": text_tokens, "steps": steps, "seed": seed, "device": device}
        collect = partial(_collect_words, words, only_given=only_given_words)
        result = _train_head(model, images, captions, collect, out, choices, restart=restart)
        print_training_result(result, as_json=as_json)
        return
    from stair_es.distill import labels

    from ..output.progress import show_evaluation_progress

    _refuse_options("head", {"--steps": steps is not None, "--restart": restart})
    if not images:
        remedy = "Give --images SOURCE: 100 or more like those to be searched."
        raise UsageError("--method labels requires images", remedy, code="no-images-given")
    labels.check_empty_folder(out)
    texts = labels.read_caption_texts(captions or ())
    collected = _collect_words(words, texts, only_given=only_given_words)
    options = labels.LabelOptions(image_tokens=image_tokens, text_tokens=text_tokens, **_build_prompts(prompts))
    dense, locators = _open_inputs(model, images)
    with show_evaluation_progress() as progress:
        report = labels.distill_labels(dense, locators, collected, out, options, progress, texts)
    _print_report(report, as_json=as_json)


def _refuse_options(method: str, given: Mapping[str, bool]) -> None:
    """Raise UsageError if an option of the other method is given."""
    for option, is_given in given.items():
        if is_given:
            raise OptionConflict(f"{option} applies only to --method {method}", f"Leave it out, or use --method {method}.")


def _train_head(
    model: str,
    images: list[str] | None,
    captions: list[Path] | None,
    collect_words: Callable[[], Mapping[str, WordKind]],
    out: Path,
    options: dict[str, Any],
    *,
    restart: bool,
) -> TrainingResult:
    """Train heads on images with captions, or on images alone."""
    if bool(images) == bool(captions):
        problem = "can't use both --captions and --images" if images else "requires --captions or --images"
        raise UsageError(
            f"--method head {problem}",
            "Give --captions FILE for images with captions, or --images SOURCE for images alone.",
            code="method-needs-images",
        )
    from stair_es.config.settings import resolve_settings
    from stair_es.optional import check_installed

    check_installed("torch", extra="train")
    from stair_es.distill.head import HeadOptions, distill_captions, distill_images
    from stair_es.sources.registry import open_source
    from stair_es.training.callbacks import Callbacks
    from stair_es.training.train import prepare_output_folder

    from ..output.progress import show_training_progress

    settings = resolve_settings(config_file.get_config().settings)
    if prepare_output_folder(out, restart=restart):
        print_notice(f"resuming the training in {out}")
    with show_training_progress() as (report_metrics, progress):
        callbacks = Callbacks(on_message=print_notice, on_metrics=report_metrics, on_progress=progress)
        if captions:
            return distill_captions(model, captions, out, HeadOptions(**options), callbacks, settings)
        sources = [open_source(argument) for argument in images or ()]
        return distill_images(model, sources, collect_words(), out, HeadOptions(**options), callbacks, settings)


def _collect_words(file: Path | None, texts: Sequence[str] = (), *, only_given: bool) -> Mapping[str, WordKind]:
    from stair_es.distill.labels import collect_words

    return collect_words(texts, file, with_own_list=not only_given)


def _build_prompts(prompts: list[str] | None) -> dict[str, Any]:
    """Return the prompts as an option, the same for each kind of word; none for the default ones."""
    from stair_es.model.labels.word_list import WORD_KINDS

    for prompt in prompts or ():
        if "{}" not in prompt:
            raise ConfigError(f"--prompt {prompt!r} has no {{}} for the word", "For example: --prompt 'a photo of a {}'.")
    return {"prompts": dict.fromkeys(WORD_KINDS, tuple(prompts))} if prompts else {}


def _open_inputs(model: str, images: list[str]) -> tuple[DenseModel, list[Locator]]:
    """Open the dense model, and sample the images that show what is usual for each word."""
    from stair_es.distill.dense_model import open_dense_model, sample_images
    from stair_es.distill.labels import MAX_SAMPLE_IMAGES
    from stair_es.model.base import ModelSpec
    from stair_es.sources.registry import open_source

    dense = open_dense_model(ModelSpec(name=model, settings=config_file.get_config().settings))
    items = sample_images([open_source(argument) for argument in images], MAX_SAMPLE_IMAGES, print_notice)
    return dense, [item.locator for item in items]


def _print_report(report: DistillReport, *, as_json: bool) -> None:
    if as_json:
        emit_json(report.to_dict())
        return
    print_skipped(report.problems, "images", "--json")
    print_plain(
        f"{report.folder}: {report.words:,} words, noise floors of {report.images:,} images, {report.tokens:.0f} tokens an image"
    )
    if report.has_few_images:
        print_notice("with 100 images or more like those to be searched, the words fit better")
    print_notice(
        f"nothing was trained; measure it on your images: stair-es evaluate retrieval CAPTIONS --model {report.folder} --exact"
    )
