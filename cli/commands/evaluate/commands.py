"""`stair-es evaluate`: compare models by retrieval, classification, interpretability and cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config.defaults import MAX_HITS
from stair_es.errors import DatasetError, OptionConflict, UsageError
from stair_es.system.user_files import read_text_file
from stair_es.types import TokensType

from ...options.connections import ConnectionArguments, resolve_connection
from ...options.decorator import prepare_command
from ...output.console import print_skipped
from .options import (
    ClassFolderArgument,
    ClassNamesOption,
    EvaluationArguments,
    ImageFolderOption,
    LimitOption,
    PrintableReport,
    SplitOption,
    StoredTokensArguments,
)

if TYPE_CHECKING:
    from stair_es.eval.interpretability import InterpretabilityTask
    from stair_es.eval.sparsity import SparsityDataset

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Evaluate and compare models by retrieval, classification, interpretability and cost.

**Example**

```text
stair-es evaluate retrieval examples/photos/captions.jsonl --exact
```""",
)
_Captions = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTIONS",
        help="Caption set: JSON Lines, COCO (`captions_*.json`), Karpathy (`dataset_*.json`), TSV, CSV, Parquet,"
        " webdataset tars ('shards/{0000..0127}.tar', quoted), or a folder with a text file next to each image.",
    ),
]
_Exact = Annotated[bool, typer.Option("--exact", help="Compute only exact dot products, which requires no cluster.")]
_FieldType = Annotated[
    TokensType,
    typer.Option("--vector", help="Field type of the tokens; sparse_vector requires Elasticsearch."),
]
_QueryType = Annotated[
    Literal["rank_features", "neural_sparse", "sparse_vector"] | None,
    typer.Option("--query-type", help="Query type to search with. [default: chosen by the cluster]"),
]
_Depth = Annotated[
    int,
    typer.Option(
        "--depth", metavar="N", min=10, max=MAX_HITS, help="Number of hits to request per query; all other items are ranked last."
    ),
]
_KeepIndex = Annotated[bool, typer.Option("--keep-index", help="Keep the temporary indices (eval-...).")]


@app.command(name="retrieval")
@prepare_command
def evaluate_retrieval_command(
    captions: _Captions,
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    exact: _Exact = False,
    *,
    connection: ConnectionArguments,
    vector: _FieldType = "rank_features",
    query_type: _QueryType = None,
    depth: _Depth = 1000,
    keep_index: _KeepIndex = False,
    arguments: EvaluationArguments,
) -> None:
    """Measure how well models and the cluster find images by text, and texts by image.

    **Examples**

    ```text
    stair-es evaluate retrieval examples/photos/captions.jsonl --exact
    stair-es evaluate retrieval dataset_flickr30k.json --images flickr30k-images --limit 500 --out report
    stair-es evaluate retrieval dataset_coco.json --images coco --model my-stair --compare openai/clip-vit-base-patch16
    ```

    Prints recall, nDCG, MRR and median rank for token weights, bags of words, BM25 on captions, and kNN on dense vectors if the
    model has them, from exact dot products and from searches of the cluster. The cluster gets temporary indices, which are
    deleted at the end.
    """
    from stair_es.eval.datasets.captions import read_captions
    from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval

    with arguments.show_progress() as progress:
        if exact and (keep_index or query_type):
            raise OptionConflict(
                "--keep-index and --query-type don't apply to --exact, which uses no cluster", "Omit them, or omit --exact."
            )
        options = EvalOptions(vector=vector, query_type=query_type, depth=depth, keep_index=keep_index)
        dataset = read_captions(captions, images=images, split=split, limit=limit)
        models = arguments.load_models()
        print_skipped(dataset.problems)
        connected = None if exact else resolve_connection(connection)
        report = evaluate_retrieval(dataset, models, connected, options, progress=progress)
    arguments.print_report(report)


@app.command(name="zero-shot")
@prepare_command
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
    *,
    arguments: EvaluationArguments,
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
    from stair_es.eval.datasets.image_folder import read_image_folder
    from stair_es.eval.zero_shot import DEFAULT_PROMPTS, evaluate_zero_shot

    with arguments.show_progress() as progress:
        templates = [*(prompt or ()), *_read_prompts(prompts)] or DEFAULT_PROMPTS
        dataset = read_image_folder(folder, classes=classes, limit=limit)
        report = evaluate_zero_shot(dataset, arguments.load_models(), templates, progress=progress)
    arguments.print_report(report)


def _read_prompts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in read_text_file(path).splitlines()]
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the prompts in {path} can't be read: {error}", "Write one prompt per line: a photo of a {}."
        ) from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise DatasetError(f"{path} contains no prompt", "Write one prompt per line: a photo of a {}.")
    return prompts


_TEST_FOLDERS = ("test", "val", "validation")


@app.command(name="probe")
@prepare_command
def evaluate_probe_command(
    folder: Annotated[
        Path | None,
        typer.Argument(
            exists=True, file_okay=False, metavar="FOLDER", help="Folder that contains `train` and `test` (or `val`)."
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="FOLDER", exists=True, file_okay=False, help="Folder of classes to train on."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="FOLDER", exists=True, file_okay=False, help="Folder of classes to test on.")
    ] = None,
    limit: LimitOption = None,
    *,
    arguments: EvaluationArguments,
) -> None:
    """Measure the accuracy of a linear probe on image vectors.

    **Examples**

    ```text
    stair-es evaluate probe pets
    stair-es evaluate probe --train imagenet/train --test imagenet/val --limit 50 --compare google/siglip-base-patch16-224
    ```

    Fits a multinomial logistic regression on the unscaled token weights, and another on the dense vectors. The regularization
    parameter C is chosen on a fifth of the training images. Requires the extra `eval` (scikit-learn), but no cluster.
    """
    from stair_es.eval.datasets.image_folder import read_image_folder
    from stair_es.eval.linear_probe import evaluate_linear_probe
    from stair_es.optional import import_optional

    with arguments.show_progress() as progress:
        import_optional("sklearn", "eval")
        train_folder, test_folder = _resolve_probe_folders(folder, train, test)
        report = evaluate_linear_probe(
            read_image_folder(train_folder, limit=limit),
            read_image_folder(test_folder, limit=limit),
            arguments.load_models(),
            progress=progress,
        )
    arguments.print_report(report)


def _resolve_probe_folders(folder: Path | None, train: Path | None, test: Path | None) -> tuple[Path, Path]:
    if folder is not None:
        train = train or folder / "train"
        test = test or next((path for name in _TEST_FOLDERS if (path := folder / name).is_dir()), folder / "test")
    if train is None or test is None:
        raise UsageError(
            "both a training and a test folder are required",
            "Give FOLDER, or --train FOLDER and --test FOLDER.",
            code="no-probe-folders",
        )
    for path in (train, test):
        if not path.is_dir():
            raise UsageError(
                f"no such folder: {path}",
                "Give FOLDER with train and test in it, or --train FOLDER and --test FOLDER.",
                code="no-such-folder",
            )
    return train, test


_WordsPath = Annotated[
    Path,
    typer.Argument(
        metavar="LISTS|FOLDER|CAPTIONS",
        help="JSON Lines of images with `accepted` words, folder with a subfolder of images per class, or caption set.",
    ),
]
_TokenPrompt = Annotated[str, typer.Option("--prompt", metavar="TEXT", help="Prompt for dense vectors, with {} for the token.")]
_Dense = Annotated[
    bool,
    typer.Option(
        "--dense", help="Also score the dense vectors of models with token weights. Encodes a text per token: minutes on a CPU."
    ),
]


@app.command(name="words")
@prepare_command
def evaluate_words_command(
    path: _WordsPath,
    classes: ClassNamesOption = None,
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    prompt: _TokenPrompt = "{}",
    dense: _Dense = False,
    *,
    stored: StoredTokensArguments,
    connection: ConnectionArguments,
    arguments: EvaluationArguments,
) -> None:
    """Measure how many of an image's heaviest tokens are words that a person accepts, or how the correct word ranks.

    **Examples**

    ```text
    stair-es evaluate words benchmarks/data/accepted_unseen.jsonl
    stair-es evaluate words benchmarks/data/accepted_unseen.jsonl --index catalog --tokens-field labels --image-field photo
    stair-es evaluate words caltech101 --limit 20
    stair-es evaluate words examples/photos/captions.jsonl
    ```

    With LISTS, counts the accepted words among the heaviest tokens (docs/readability.md).

    Otherwise, scores every token of the vocabulary for each image, by its weight or, for models without token weights, by the
    cosine of dense vectors. In a folder of classes, the class name should rank first; in a caption set, a word of the captions.
    A folder with both is used as a caption set unless you give `--classes`. Only `--index` requires a cluster.
    """
    from stair_es.eval.datasets.captions import read_word_lists
    from stair_es.eval.datasets.detect import has_accepted_words
    from stair_es.eval.interpretability import evaluate_interpretability
    from stair_es.eval.readability import evaluate_readability

    report: PrintableReport
    with arguments.show_progress() as progress:
        if stored.index is None:
            _check_absent(stored.fields, "without --index")
        else:
            _check_absent(
                {"--images": images, "--compare": arguments.compare, "--dense": dense, "--prompt": prompt != "{}"}, "with --index"
            )
        if stored.index is not None or has_accepted_words(path):
            _check_absent({"--classes": classes, "--split": split}, "for lists of accepted words")
            lists = read_word_lists(path, images=images, limit=limit, with_images=stored.index is None)
            print_skipped(lists.problems)
            if stored.index is not None:
                report = stored.measure_readability(lists, connection)
            else:
                report = evaluate_readability(lists, arguments.load_models(), prompt=prompt, dense=dense, progress=progress)
        else:
            task = _read_interpretability_task(path, classes, images, split, limit)
            print_skipped(task.problems)
            report = evaluate_interpretability(task, arguments.load_models(), prompt=prompt, dense=dense, progress=progress)
    arguments.print_report(report)


def _check_absent(options: Mapping[str, object], where: str) -> None:
    if given := [name for name, value in options.items() if value]:
        raise OptionConflict(f"{', '.join(given)} can't be used {where}", "Omit the options that don't apply.")


def _read_interpretability_task(
    path: Path, classes: Path | None, images: Path | None, split: str | None, limit: int | None
) -> InterpretabilityTask:
    from stair_es.eval import interpretability
    from stair_es.eval.datasets.captions import read_captions
    from stair_es.eval.datasets.detect import is_caption_folder
    from stair_es.eval.datasets.image_folder import has_class_folders, read_image_folder

    is_caption_set = images is not None or split is not None
    if classes is not None and is_caption_set:
        raise OptionConflict(
            "--classes is for a folder of classes, --images and --split are for a caption set",
            "Omit the options of the other kind.",
        )
    if classes is not None or (not (is_caption_set or is_caption_folder(path)) and has_class_folders(path)):
        return interpretability.build_class_task(read_image_folder(path, classes=classes, limit=limit))
    if path.is_dir() and not is_caption_set and not is_caption_folder(path):
        raise DatasetError(
            f"{path} has neither captions nor two folders with images in them",
            "Specify a folder with a subfolder of images per class, or a caption set (docs/evaluate.md).",
        )
    return interpretability.build_caption_task(read_captions(path, images=images, split=split, limit=limit))


@app.command(name="sparsity")
@prepare_command
def evaluate_sparsity_command(
    path: Annotated[Path, typer.Argument(metavar="CAPTIONS|FOLDER", help="Caption set, or folder of images.")],
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Use only the first N images.")] = None,
    *,
    arguments: EvaluationArguments,
) -> None:
    """Measure the cost of token vectors.

    **Examples**

    ```text
    stair-es evaluate sparsity examples/photos/captions.jsonl
    stair-es evaluate sparsity photos --limit 1000 --json
    ```

    Prints tokens per item, multiplications per comparison, and the balance of the posting lists. Requires no cluster.
    """
    from stair_es.eval.sparsity import evaluate_sparsity

    with arguments.show_progress() as progress:
        items = _read_sparsity_items(path, images, split, limit)
        print_skipped(items.problems)
        report = evaluate_sparsity(items, arguments.load_models(), progress=progress)
    arguments.print_report(report)


def _read_sparsity_items(path: Path, images: Path | None, split: str | None, limit: int | None) -> SparsityDataset:
    """Return the items of a caption set, or the images of any other folder."""
    from stair_es.eval import sparsity
    from stair_es.eval.datasets.captions import read_captions
    from stair_es.eval.datasets.detect import is_caption_folder

    if path.is_dir() and images is None and split is None and not is_caption_folder(path):
        return sparsity.read_sparsity_folder(path, limit)
    return sparsity.build_sparsity_dataset(read_captions(path, images=images, split=split, limit=limit))
