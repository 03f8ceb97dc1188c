"""`stair-es evaluate probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError

from .shared import EVALUATION_OPTIONS, LimitOption, run_and_report

if TYPE_CHECKING:
    from stair_es.eval.tables import TableReport
    from stair_es.types import PartProgressCallback

_TEST_FOLDERS = ("test", "val", "validation")


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
    arguments = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> TableReport:
        from stair_es.eval.datasets.image_folder import read_image_folder
        from stair_es.eval.linear_probe import evaluate_linear_probe
        from stair_es.optional import import_optional

        import_optional("sklearn", "eval")
        train_folder, test_folder = _resolve_folders(folder, train, test)
        return evaluate_linear_probe(
            read_image_folder(train_folder, limit=limit),
            read_image_folder(test_folder, limit=limit),
            arguments.load_models(),
            progress=progress,
        )

    run_and_report(arguments, build_report)


def _resolve_folders(folder: Path | None, train: Path | None, test: Path | None) -> tuple[Path, Path]:
    if folder is not None:
        train = train or folder / "train"
        test = test or next((path for name in _TEST_FOLDERS if (path := folder / name).is_dir()), folder / "test")
    if train is None or test is None:
        raise UsageError("both a training and a test folder are required", "Give FOLDER, or --train FOLDER and --test FOLDER.")
    for path in (train, test):
        if not path.is_dir():
            raise UsageError(
                f"no such folder: {path}", "Give FOLDER with train and test in it, or --train FOLDER and --test FOLDER."
            )
    return train, test
