"""`stair-es export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import config_file, shared
from ..output.console import emit_json, print_notice, print_plain


def export_command(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder of a checkpoint written by stair-es train."),
    ],
    as_json: shared.JsonOption = False,
) -> None:
    """Export a checkpoint's towers as ONNX graphs, image.onnx and text.onnx, into its folder.

    --backend onnx runs them in onnxruntime, without PyTorch; so does auto without CUDA. Vectors and model id stay the same: all
    weights are compared with PyTorch's before anything is written. A checkpoint on packaged backbones needs no graphs.

    **Examples**

    - `stair-es export models/coco`

    - `stair-es ingest photos --model models/coco --backend onnx`
    """
    from stair_es.model.stair.export_onnx import export_onnx

    if not as_json:
        print_notice(f"exporting {folder} (a minute or two for a large model)")
    export = export_onnx(folder, config_file.get_config().settings.home)
    if as_json:
        files = {path.name: path.stat().st_size for path in export.files}
        emit_json({"model": export.model_id, "folder": str(folder), "bytes": files, "difference": export.max_difference})
        return
    if not export.files:
        print_plain(f"{folder} needs no graphs: its networks already run in onnxruntime and numpy")
        return
    for path in export.files:
        print_plain(f"{path}  {path.stat().st_size / 1e6:,.1f} MB")
    print_plain(f"weights within {export.max_difference:.1e} of PyTorch's")
