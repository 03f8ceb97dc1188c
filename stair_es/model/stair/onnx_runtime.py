"""STAIR towers as ONNX graphs in onnxruntime, on the CPU: the files that `stair-es export` writes next to a checkpoint.

Shape suffixes: B batch, F features, E dense dimensions.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.model.networks.image_networks import create_onnx_session
from stair_es.model.sparse_rows import SparseRowBuilder
from stair_es.model.stair.configuration import StairConfig
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.types import Floats, Pixels, SparseVector

ONNX_FILES = {"image": "image.onnx", "text": "text.onnx"}
ONNX_MODEL_ID_KEY = "stair_es_model_id"
WEIGHTS_OUTPUT, DENSE_OUTPUT = "weights", "dense"
ONNX_IMAGE_BATCH, ONNX_TEXT_BATCH = 1, 32
TowerRows: TypeAlias = "tuple[list[SparseVector] | None, Floats | None]"
"""Sparse vectors, and dense unit vectors [B, E]; None for a missing head."""


def find_onnx_mismatch(folder: Path, model_id: str) -> str:
    """Return why the graphs in a folder don't match its weights; empty if they do."""
    expected = model_id.encode()  # a graph file ends with its metadata, and these with the id
    for file in ONNX_FILES.values():
        try:
            with (folder / file).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - len(expected)))
                if stream.read() != expected:
                    return f"{folder / file} was exported from other weights than those next to it"
        except FileNotFoundError:
            return f"{folder} has no {file}"
        except OSError as error:
            return f"can't read {folder / file}: {error.strerror}"
    return ""


class OnnxDualEncoder:
    """The towers in onnxruntime. Each graph is loaded once, when it is first used."""

    def __init__(
        self, folder: Path, config: StairConfig, tokens: StairTokenizer, rows: SparseRowBuilder, spec: ModelSpec
    ) -> None:
        self._folder, self._config, self._tokens, self._rows, self._spec = folder, config, tokens, rows, spec
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images one at a time: as fast as a batch on a CPU, with identical bits."""
        return self._run_session(
            "image", [{"pixels": pixels_BHWC[i : i + ONNX_IMAGE_BATCH]} for i in range(0, len(pixels_BHWC), ONNX_IMAGE_BATCH)]
        )

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts in batches of similar length."""
        with self._lock:
            parts = list(self._tokens.encode_batches(texts, ONNX_TEXT_BATCH))
        rows = self._run_session(
            "text",
            [{"ids": tokenized.ids_BL, "mask": tokenized.mask_BL, "features": tokenized.features_BL} for _, tokenized in parts],
        )
        return restore_order(rows, [index for indices, _ in parts for index in indices.tolist()])

    def _run_session(self, side: str, feeds: list[dict[str, Any]]) -> TowerRows:
        """Return the rows of the existing heads."""
        names = [name for name, head in ((WEIGHTS_OUTPUT, "tokens"), (DENSE_OUTPUT, "dense")) if head in self._config.heads]
        session = self._get_session(side)
        outputs = [dict(zip(names, session.run(names, select_inputs(session, feed)), strict=True)) for feed in feeds]
        batches = [
            (self._rows.build_rows(output[WEIGHTS_OUTPUT]) if WEIGHTS_OUTPUT in output else None, output.get(DENSE_OUTPUT))
            for output in outputs
        ]
        return join_rows(batches, self._config)

    def _get_session(self, side: str) -> Any:  # noqa: ANN401  an InferenceSession
        with self._lock:
            if side not in self._sessions:
                self._sessions[side] = self._open_session(self._folder / ONNX_FILES[side])
            return self._sessions[side]

    def _open_session(self, path: Path) -> Any:  # noqa: ANN401
        try:
            return create_onnx_session(path, self._spec.threads)
        except Exception as error:  # onnxruntime raises many types for broken files
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"onnxruntime can't load {path}: {reason}",
                f"Run: stair-es export {shlex.quote(str(path.parent))}",
                code="onnx-graph-not-loaded",
            ) from error


def join_rows(parts: Sequence[TowerRows], config: StairConfig) -> TowerRows:
    """Join batches of rows of the existing heads; None for a missing head."""
    dense = [rows for _, rows in parts if rows is not None]
    return (
        [vector for vectors, _ in parts for vector in vectors or ()] if "tokens" in config.heads else None,
        np.vstack([np.empty((0, config.dense_dim), np.float32), *dense]) if "dense" in config.heads else None,
    )


def restore_order(rows: TowerRows, order: list[int]) -> TowerRows:
    """Restore the order of the texts; `order` is the index of the text of each row."""
    inverse, (vectors, dense_BE) = np.argsort(np.array(order, np.int64)), rows
    return (
        None if vectors is None else [vectors[index] for index in inverse],
        None if dense_BE is None else dense_BE[inverse],
    )


def select_inputs(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401  an InferenceSession
    """Select the inputs that a graph has: one that no output depends on may be missing."""
    return {each.name: feed[each.name] for each in session.get_inputs()}
