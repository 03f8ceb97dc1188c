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
            exists=True, file_okay=False, metavar="FOLDER", help="A folder that contains `train` and `test` (or `val`)."
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", exists=True, file_okay=False, help="Folder of classes for training.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", exists=True, file_okay=False, help="Folder of classes for testing.")
    ] = None,
    limit: LimitOption = None,
) -> None:
    """Measure the accuracy of a linear probe on image vectors. Needs no cluster.

    Fits a multinomial logistic regression on the unscaled token weights, and on the dense vectors; C is chosen on a fifth of the
    training images. Needs the extra `eval` (scikit-learn).

    **Examples**

    `stair-es evaluate probe pets`

    `stair-es evaluate probe --train imagenet/train --test imagenet/val --limit 50 --compare google/siglip-base-patch16-224`
    """
    given = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> TableReport:
        from stair_es.eval.datasets.image_folder import read_image_folder
        from stair_es.eval.linear_probe import evaluate_linear_probe as run
        from stair_es.optional import import_optional

        import_optional("sklearn", "eval")
        learn, ask = _resolve_folders(folder, train, test)
        return run(
            read_image_folder(learn, limit=limit),
            read_image_folder(ask, limit=limit),
            given.load_models(),
            progress=progress,
        )

    run_and_report(given, build_report)


def _resolve_folders(folder: Path | None, train: Path | None, test: Path | None) -> tuple[Path, Path]:
    if folder is not None:
        train = train or folder / "train"
        test = test or next((found for name in _TEST_FOLDERS if (found := folder / name).is_dir()), folder / "test")
    if train is None or test is None:
        raise UsageError("both a training and a test folder are required", "Give FOLDER, or --train DIR and --test DIR.")
    for path in (train, test):
        if not path.is_dir():
            raise UsageError(f"no such folder: {path}", "Give FOLDER with train and test in it, or --train DIR and --test DIR.")
    return train, test
