"""Export the towers of a STAIR checkpoint as ONNX graphs next to its weights: for CPUs, and for machines without PyTorch.

`image.onnx`: `pixels` uint8 [B, H, W, 3] -> `weights` [B, F] and `dense` [B, E], for the existing heads.
`text.onnx`: `ids` int64 [B, L], `mask` bool [B, L] and `features` int64 [B, L] (`TokenizedTexts.features_BL`) -> the same.
Features are in the order of `feature_ids` in the weights, or of `words.json`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.config.defaults import DataDir
from stair_es.errors import ModelError
from stair_es.model.checkpoint import write_library_files
from stair_es.model.networks.image_networks import create_onnx_session
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import read_stair_config
from stair_es.model.stair.onnx_runtime import DENSE_OUTPUT, ONNX_FILES, ONNX_MODEL_ID_KEY, WEIGHTS_OUTPUT, select_inputs
from stair_es.optional import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor

    from stair_es.model.stair.modeling import StairModel

MAX_DIFFERENCE = 1e-4
_MAX_FILE_BYTES = 2_000_000_000
"""Maximum size of one file: protobuf is limited to 2 GiB."""
_EXPORT_TEXTS = ("a red dog", "a text of some more words than the other, so that that one is padded")
_CHECK_TEXTS = (*_EXPORT_TEXTS, "", "the sea at night")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Result of an export."""

    model_id: str
    files: tuple[Path, ...]
    max_difference: float
    """Largest difference between the weights of onnxruntime and PyTorch, over some noise images and texts."""


def export_onnx(folder: Path, home: DataDir | None = None) -> ExportResult:
    """Export the graphs of a checkpoint, after checking that onnxruntime computes the same as PyTorch.

    Args:
        folder: Checkpoint folder.
        home: Data folder, for the weights of a packaged text backbone; None for that of the environment.

    Raises:
        ModelError: If the checkpoint is broken, or a tower can't be exported.
        MissingExtra: If PyTorch or onnxscript isn't installed.
        OSError: If the folder can't be written.
    """
    config = read_stair_config(folder)
    if config.has_dense_backbones:
        raise ModelError(
            f"{folder} has heads on top of a dense model, which can't be exported",
            "Run it in PyTorch.",
            code="dense-heads-not-exportable",
        )
    for module in ("torch", "onnx", "onnxscript"):
        import_optional(module, "models")
    if not os.access(folder, os.W_OK):
        raise ModelError(
            f"{folder} can't be written",
            "Copy the checkpoint to a folder of your own, and export that one.",
            code="folder-not-writable",
        )
    model_id = checkpoint.compute_stair_id(folder, config)
    model = checkpoint.load_stair_model(folder, home)
    graphs, differences = {}, []
    for side, file in ONNX_FILES.items():
        data = _export_tower(model, side) + _build_metadata(model_id)
        if len(data) > _MAX_FILE_BYTES:
            raise ModelError(
                f"{file} would have {len(data):,} bytes, more than an ONNX file can hold",
                "Use --backend torch.",
                code="onnx-file-too-large",
            )
        differences.append(_measure_difference(model, side, data))
        graphs[folder / file] = data
    if not max(differences) <= MAX_DIFFERENCE:
        raise ModelError(
            f"onnxruntime computes weights that are {max(differences):.2g} away from PyTorch's",
            "Use --backend torch.",
            code="onnx-weights-differ",
        )
    write_library_files(folder)  # older checkpoints lack them
    for path, data in graphs.items():
        checkpoint.write_checkpoint_file(path, data)
    return ExportResult(model_id=model_id, files=tuple(graphs), max_difference=max(differences))


def _export_tower(model: StairModel, side: str) -> bytes:
    """Return the ONNX file of one tower, without the final metadata."""
    import torch

    inputs = _build_inputs(model, side, 2, _EXPORT_TEXTS)
    names = [name for name, head in ((WEIGHTS_OUTPUT, "tokens"), (DENSE_OUTPUT, "dense")) if head in model.config.heads]
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic},) if side == "image" else ({0: dynamic, 1: dynamic},) * 3
    with _mute_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                _build_tower(model),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=names,
                verbose=False,
            )
            data: bytes = _strip_metadata(program.model_proto).SerializeToString()
        except Exception as error:  # exporter, network and protobuf raise any type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"the {side} tower can't be exported: {reason}", "Use --backend torch.", code="tower-not-exported"
            ) from error
    return data


def _strip_metadata(proto: ModelProto) -> ModelProto:
    """Remove notes on the origin of a graph: they name files of the exporting machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.producer_name = "stair-es"
    return proto


def _build_metadata(model_id: str) -> bytes:
    """Build the metadata at the end of a file, so that its last bytes identify its weights."""
    from onnx import ModelProto, StringStringEntryProto

    data: bytes = ModelProto(metadata_props=[StringStringEntryProto(key=ONNX_MODEL_ID_KEY, value=model_id)]).SerializeToString()
    return data


def _build_tower(model: StairModel) -> Any:  # noqa: ANN401  a module
    from torch import nn

    from stair_es.model.stair.modeling import TextBatch

    class Tower(nn.Module):  # type: ignore[misc]  # mypy skips torch
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, first: Tensor, mask_BL: Tensor | None = None, features_BL: Tensor | None = None) -> tuple[Tensor, ...]:
            if mask_BL is None or features_BL is None:
                out = model.encode_images(first)
            else:
                out = model.encode_texts(TextBatch(first, mask_BL, features_BL))
            return tuple(rows for rows in (out.weights_BF, out.dense_BE) if rows is not None)

    return Tower().eval()


def _build_inputs(model: StairModel, side: str, images: int, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return noise images, or texts, under the input names of the graphs."""
    import torch

    from stair_es.model.stair.modeling import TextBatch

    if side == "image":
        size = model.config.image.size_px
        pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)
        return {"pixels": torch.from_numpy(pixels)}
    tokenized = model.tokens.encode(texts)
    batch = TextBatch.from_tokenized(tokenized)
    return {"ids": batch.ids_BL, "mask": batch.mask_BL, "features": batch.features_BL}


def _measure_difference(model: StairModel, side: str, graph: bytes) -> float:
    """Return the largest difference between both runtimes, on other shapes than those of the export."""
    import torch

    session, tower = create_onnx_session(graph, threads=0), _build_tower(model)
    largest = 0.0
    for count, texts in ((3, _CHECK_TEXTS), (1, _CHECK_TEXTS[-1:])):
        inputs = _build_inputs(model, side, count, texts)
        with torch.inference_mode():
            expected = tower(*inputs.values())
        actual = session.run(None, select_inputs(session, {name: value.numpy() for name, value in inputs.items()}))
        largest = max(largest, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(actual, expected, strict=True)))
    return largest


@contextmanager
def _mute_exporter() -> Iterator[None]:
    """Mute the exporter's messages to developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
