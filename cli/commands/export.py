"""`stair-es export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import UsageError

from ..options import config_file, shared
from ..output.console import emit_json, print_notice, print_plain


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
        _export_table(model or DEFAULT_MODEL, out, as_json=as_json)
        return
    if out is not None:
        raise UsageError("--out is for --table: graphs are written into the folder of the checkpoint", "Leave out --out.")
    if model is None:
        raise UsageError("neither the folder of a checkpoint nor --table is given", "Give one: stair-es export models/coco")
    if not Path(model).is_dir():
        raise UsageError(f"the folder {model!r} does not exist", "Give the folder that stair-es train wrote.")
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


def _export_table(name: str, out: Path | None, *, as_json: bool) -> None:
    from stair_es.model.base import ModelSpec
    from stair_es.model.registry import resolve_model
    from stair_es.model.vocabularies.token_table import write_token_table

    table = resolve_model(ModelSpec(name=name, settings=config_file.get_config().settings)).build_text_table()
    path = out or Path(f"{table.model_id}.tsv.gz")
    try:
        size_bytes = write_token_table(table, path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}", "Name another file with --out.") from error
    if as_json:
        emit_json({"model": table.model_id, "file": str(path), "bytes": size_bytes, "phrases": len(table.rows)})
    else:
        print_plain(f"{path}  {size_bytes / 1e6:,.1f} MB, {len(table.rows):,} words and phrases of {table.model_id}")
