"""`stair-es train` and `stair-es export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import ConfigError, OptionConflict, StairError, UsageError

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
_Words = Annotated[
    Path | None,
    typer.Option(
        "--words", metavar="FILE", help="Taught words to add to --table, from `stair-es teach --export`.", dir_okay=False
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
_CaptionsFrom = Annotated[
    str | None,
    typer.Option(
        "--captions-from",
        metavar="URL",
        help="Caption images without captions by an endpoint in OpenAI's form, such as http://localhost:8000/v1.",
    ),
]
_MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts",
        metavar="N",
        min=0,
        help="Number of restarts from the last saved state if a Ray worker is lost. Torchrun has an option of the same name.",
        rich_help_panel=shared.EXECUTION_PANEL,
    ),
]
_Restart = Annotated[bool, typer.Option("--restart", help="Discard the training run in --out and start over.")]
_ResumeFrom = Annotated[
    int | None,
    typer.Option(
        "--resume-from",
        metavar="STEP",
        min=0,
        help="Resume from the saved state of this step; later ones are deleted. See validation.keep_states. [default: the last]",
        show_default=False,
    ),
]
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
    max_restarts: _MaxRestarts = 3,
    ray_address: shared.RayAddressOption = None,
    captions_from: _CaptionsFrom = None,
    restart: _Restart = False,
    resume_from: _ResumeFrom = None,
    recipes: _Recipes = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Train a STAIR model on images with captions.

    **Examples**

    ```text
    stair-es train grounded.toml
    stair-es train coco.toml --out models/coco --workers 4
    torchrun --nproc-per-node 4 -m stair_es.cli train coco.toml --out models/coco
    stair-es train grounded.toml --set optim.lr=1e-3 --set seed=1 --out models/second
    stair-es ingest photos --model models/coco
    ```

    Run the command again after an interruption to resume. The output folder is a checkpoint for `--model`.
    """
    from stair_es.optional import check_installed
    from stair_es.training.config.train_config import read_train_config

    if restart and resume_from is not None:
        raise OptionConflict("--restart starts over, --resume-from resumes", "Give only one of them.")
    folder = out or Path(config.stem)
    try:
        check_installed("torch", extra="train")
        from stair_es.training.workers import is_started_by_torchrun

        overrides = dict(map(_parse_change, changes or ()))
        if captions_from is not None:
            overrides["data.captions_from"] = captions_from
        train_config = read_train_config(config, overrides)
        if is_started_by_torchrun():
            result = _run_under_torchrun(train_config, folder, device, workers, restart=restart, resume_from=resume_from)
        else:
            _prepare_folder(train_config, folder, restart=restart, resume_from=resume_from)
            result = _run_training(train_config, folder, device, workers, ray_address, max_restarts)
    except (KeyboardInterrupt, SystemExit):
        from stair_es.training.checkpointing import STATE_FILE
        from stair_es.training.workers import is_first_worker

        outcome = "resumes from its last saved state" if (folder / STATE_FILE).is_file() else "starts over: nothing was saved yet"
        if is_first_worker():
            print_notice(f"the same command {outcome}")
        raise
    if result is not None:
        print_training_result(result, as_json=as_json)


def _prepare_folder(config: TrainConfig, folder: Path, *, restart: bool, resume_from: int | None) -> None:
    from stair_es.training.train import prepare_output_folder

    if prepare_output_folder(folder, restart=restart, resume_from=resume_from, copies=config.log.copy_to):
        print_notice(f"resuming the training in {folder}")


def _run_under_torchrun(
    config: TrainConfig, out: Path, device: str, workers: int, *, restart: bool, resume_from: int | None
) -> TrainingResult | None:
    """Train as one of the workers that torchrun started; return the result in the first one only.

    Raises:
        OptionConflict: If Ray should start workers, too.
    """
    import torch

    from stair_es.training.callbacks import NO_CALLBACKS, Callbacks
    from stair_es.training.train import train_model
    from stair_es.training.workers import is_first_worker, is_restarted, join_torchrun

    from ..output.progress import show_training_progress

    if workers > 1:
        raise OptionConflict(
            "--workers starts workers on Ray, but torchrun has started some already",
            "Leave out --workers, or run the command without torchrun.",
        )
    settings = config_file.get_config().settings
    is_first = is_first_worker()
    try:
        with join_torchrun(device) as joined, show_training_progress() as (report_metrics, progress):
            if is_first:  # torchrun repeats the whole command after a lost worker, which must not discard the state then
                is_first_start = not is_restarted()
                _prepare_folder(
                    config, out, restart=restart and is_first_start, resume_from=resume_from if is_first_start else None
                )
            joined.group.broadcast_first(torch.zeros(1))
            callbacks = Callbacks(on_message=print_notice, on_metrics=report_metrics, on_progress=progress)
            result = train_model(
                config,
                out,
                callbacks if is_first else NO_CALLBACKS,
                workers=joined.group,
                device=joined.device,
                threads=joined.threads,
                settings=settings,
            )
    except StairError as error:
        if error.code == "worker-failed" and not is_first:  # the first worker and torchrun report it
            raise SystemExit(error.exit_code) from error
        raise
    return result if is_first else None


def _parse_change(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`, the value as TOML or otherwise as text."""
    from stair_es.training.config.toml import parse_training_toml

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text!r} isn't KEY=VALUE", "For example: --set optim.lr=1e-3.")
    try:
        return name.strip(), parse_training_toml(f"value = {value}", "--set")["value"]
    except UsageError:
        return name.strip(), value


def _run_training(
    config: TrainConfig, out: Path, device: str, workers: int, ray_address: str | None, max_restarts: int
) -> TrainingResult:
    from stair_es.training.callbacks import Callbacks

    from ..output.progress import show_training_progress

    settings = config_file.get_config().settings
    with show_training_progress() as (report_metrics, progress):
        callbacks = Callbacks(on_message=print_notice, on_metrics=report_metrics, on_progress=progress)
        if workers > 1:
            from stair_es.training.ray_train import train_on_ray

            return train_on_ray(
                config,
                out,
                callbacks,
                workers=workers,
                device=device,
                address=ray_address,
                max_restarts=max_restarts,
                settings=settings,
            )
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
    pairs = "" if result.pairs is None else f"{result.pairs:,} pairs, "
    print_plain(f"{result.folder}: {pairs}{result.steps:,} steps{early}{best}")


def export_command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint folder that `stair-es train` wrote; with --table, any model."
            f" [default with --table: {DEFAULT_MODEL}]",
            show_default=False,
        ),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Export the model's table of words with their token weights.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File for --table, compressed if its name ends in .gz.",
            dir_okay=False,
            show_default="MODEL_ID.tsv.gz",
        ),
    ] = None,
    words: _Words = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Export a checkpoint as ONNX graphs, or a table for queries without a model.

    **Examples**

    ```text
    stair-es export models/coco
    stair-es ingest photos --model models/coco --backend onnx
    stair-es export --table --out stair-mini.tsv.gz
    ```

    Without `--table`, writes image.onnx and text.onnx to the checkpoint folder. `--backend onnx` runs them in onnxruntime without
    PyTorch, and `--backend auto` does so without CUDA. The model id stays the same, and so do the vectors: all weights are
    compared with those of PyTorch before anything is written.

    With `--table`, writes a text file in which other programs can look up what `--text-tower table` computes. The how-to "Search
    without a model at query time" describes the format, with code for Java, JavaScript and Python.
    """
    if table:
        _export_table(model or DEFAULT_MODEL, out, words, as_json=as_json)
        return
    if out is not None or words is not None:
        name = "--out" if out is not None else "--words"
        raise OptionConflict(f"{name} is for --table: graphs are written into the folder of the checkpoint", f"Leave out {name}.")
    if model is None:
        raise UsageError(
            "neither the folder of a checkpoint nor --table is given",
            "Give one: stair-es export models/coco",
            code="no-checkpoint-given",
        )
    if not Path(model).is_dir():
        raise UsageError(
            f"the folder {model!r} does not exist", "Give the folder that stair-es train wrote.", code="no-such-folder"
        )
    _export_graphs(Path(model), as_json=as_json)


def _export_graphs(folder: Path, *, as_json: bool) -> None:
    from stair_es.model.stair.export_onnx import export_onnx

    if not as_json:
        print_notice(f"exporting {folder} (a minute or two for a large model)")
    export = export_onnx(folder, config_file.get_config().settings.home)
    if as_json:
        files = {path.name: path.stat().st_size for path in export.files}
        emit_json({"model": export.model_id, "folder": str(folder), "bytes": files, "difference": export.max_difference})
        return
    for path in export.files:
        print_plain(f"{path}  {path.stat().st_size / 1e6:,.1f} MB")
    print_plain(f"weights within {export.max_difference:.1e} of PyTorch's")


def _export_table(name: str, out: Path | None, words: Path | None, *, as_json: bool) -> None:
    from stair_es.model.base import ModelSpec
    from stair_es.model.registry import resolve_model
    from stair_es.model.vocabularies.token_table import write_token_table

    table = resolve_model(ModelSpec(name=name, settings=config_file.get_config().settings)).build_text_table()
    if words is not None:
        from stair_es.teaching.word_file import load_words

        table = table.add_words(load_words(words).values())
    path = out or Path(f"{table.model_id}.tsv.gz")
    try:
        size_bytes = write_token_table(table, path)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror}", "Name another file with --out.", code="output-not-writable"
        ) from error
    if as_json:
        emit_json({"model": table.model_id, "file": str(path), "bytes": size_bytes, "phrases": len(table.rows)})
    else:
        print_plain(f"{path}  {size_bytes / 1e6:,.1f} MB, {len(table.rows):,} words and phrases of {table.model_id}")
