"""`stair-es train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.errors import UsageError

from ..options import config_file, shared
from ..output.console import emit_json, print_notice, print_plain

if TYPE_CHECKING:
    from stair_es.training.config.train_config import TrainConfig
    from stair_es.training.train import TrainingResult


def _print_recipes(is_requested: bool) -> None:
    if is_requested:
        from stair_es.training.config.train_config import list_recipes

        for name, description in sorted(list_recipes().items()):
            print_plain(f"{name}: {description}")
        raise typer.Exit


_Config = Annotated[
    Path,
    typer.Argument(
        exists=True, dir_okay=False, readable=True, metavar="CONFIG", help="Configuration file (TOML); see docs/training.md."
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        file_okay=False,
        help="Folder for the checkpoint, state and logs, shared by all workers. [default: the name of CONFIG without .toml]",
    ),
]
_Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of CONFIG, such as optim.lr=1e-3 (repeatable)."),
]
_Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="Device to train on; `auto` uses CUDA if available.", rich_help_panel=shared.EXECUTION_PANEL),
]
_Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Number of Ray training workers, each with one GPU unless --device is `cpu`.",
        rich_help_panel=shared.EXECUTION_PANEL,
    ),
]
_Restart = Annotated[bool, typer.Option("--restart", help="Discard the training run in --out and start over.")]
_Recipes = Annotated[
    bool,
    typer.Option("--recipes", callback=_print_recipes, is_eager=True, help="List the named recipes and exit."),
]


def train_command(
    config: _Config,
    out: _Out = None,
    changes: _Changes = None,
    device: _Device = "auto",
    workers: _Workers = 1,
    ray_address: shared.RayAddressOption = None,
    restart: _Restart = False,
    recipes: _Recipes = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Train a STAIR model on images with captions.

    **Examples**

    ```text
    stair-es train grounded.toml
    stair-es train coco.toml --out models/coco --workers 4
    stair-es train grounded.toml --set optim.lr=1e-3 --set seed=1 --out models/second
    stair-es ingest photos --model models/coco
    ```

    Run the command again after an interruption to resume. The output folder is a checkpoint for `--model`.
    """
    from stair_es.optional import check_installed
    from stair_es.training.config.train_config import read_train_config

    folder = out or Path(config.stem)
    try:
        check_installed("torch", extra="train")
        from stair_es.training.train import prepare_output_folder

        train_config = read_train_config(config, dict(map(_parse_change, changes or ())))
        if prepare_output_folder(folder, restart=restart):
            print_notice(f"resuming the training in {folder}")
        result = _run_training(train_config, folder, device, workers, ray_address)
    except (KeyboardInterrupt, SystemExit):
        from stair_es.training.checkpointing import STATE_FILE

        outcome = "resumes from its last saved state" if (folder / STATE_FILE).is_file() else "starts over: nothing was saved yet"
        print_notice(f"the same command {outcome}")
        raise
    print_training_result(result, as_json=as_json)


def _parse_change(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`, the value as TOML or otherwise as text."""
    from stair_es.training.config.toml import parse_training_toml

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text!r} isn't KEY=VALUE", "For example: --set optim.lr=1e-3.")
    try:
        return name.strip(), parse_training_toml(f"value = {value}", "--set")["value"]
    except UsageError:
        return name.strip(), value


def _run_training(config: TrainConfig, out: Path, device: str, workers: int, ray_address: str | None) -> TrainingResult:
    from stair_es.training.callbacks import Callbacks

    from ..output.progress import show_training_progress

    settings = config_file.get_config().settings
    with show_training_progress() as (report_metrics, progress):
        callbacks = Callbacks(on_message=print_notice, on_metrics=report_metrics, on_progress=progress)
        if workers > 1:
            from stair_es.training.ray_train import train_on_ray

            return train_on_ray(config, out, callbacks, workers=workers, device=device, address=ray_address, settings=settings)
        from stair_es.training.train import train_model

        return train_model(config, out, callbacks, device=device, settings=settings)


def print_training_result(result: TrainingResult, *, as_json: bool) -> None:
    """Print the result of a training."""
    if as_json:
        emit_json(
            {
                "checkpoint": str(result.folder),
                "steps": result.steps,
                "best": result.best if result.best_step >= 0 else None,
                "best_step": result.best_step if result.best_step >= 0 else None,
                "pairs": result.pairs,
                "problems": list(result.problems),
                "stopped_early": result.stopped_early,
            }
        )
        return
    best = f", recall@1 {100 * result.best:.1f} % at step {result.best_step:,}" if result.best_step >= 0 else ""
    early = ", stopped early" if result.stopped_early else ""
    print_plain(f"{result.folder}: {result.pairs:,} pairs, {result.steps:,} steps{early}{best}")
