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
from onnx import ModelProto, StringStringEntryProto

from stair_es.errors import ModelError
from stair_es.model.encoder import ModelSpec
from stair_es.model.onnx_graph import session
from stair_es.model.stair_config import StairConfig
from stair_es.model.stair_tokens import Tokens
from stair_es.types import Floats, Pixels

GRAPHS = {"image": "image.onnx", "text": "text.onnx"}
MODEL_ID = "stair_es_model_id"
WORDS, DENSE = "weights", "dense"
IMAGE_BATCH, TEXT_BATCH = 1, 32
Rows: TypeAlias = "tuple[Floats | None, Floats | None]"


def ending(model_id: str) -> bytes:
    """Build the metadata at the end of a graph file, so that reading a few bytes tells which weights it belongs to.

    Args:
        model_id: Model id of the checkpoint.
    """
    data: bytes = ModelProto(metadata_props=[StringStringEntryProto(key=MODEL_ID, value=model_id)]).SerializeToString()
    return data


def unfit(folder: Path, model_id: str) -> str:
    """Return why the graphs in a folder don't match its weights; empty if they do.

    Args:
        folder: Checkpoint folder.
        model_id: Model id of the checkpoint.
    """
    wanted = ending(model_id)
    for file in GRAPHS.values():
        try:
            with (folder / file).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - len(wanted)))
                if stream.read() != wanted:
                    return f"{folder / file} was exported from other weights than those next to it"
        except FileNotFoundError:
            return f"{folder} has no {file}"
        except OSError as error:
            return f"can't read {folder / file}: {error.strerror}"
    return ""


class OnnxTowers:
    """The towers in onnxruntime. Each graph is loaded once, when it is first used."""

    def __init__(self, folder: Path, config: StairConfig, tokens: Tokens, spec: ModelSpec, model_id: str) -> None:
        """Check the graphs.

        Raises:
            ModelError: If one is missing or belongs to other weights.
        """
        if why := unfit(folder, model_id):
            raise ModelError(why, f"Run: stair-es export {shlex.quote(str(folder))}")
        self._folder, self._config, self._tokens, self._spec = folder, config, tokens, spec
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def images(self, pixels_BHWC: Pixels) -> Rows:
        """Compute images one at a time: as fast as a batch on a CPU, with identical bits."""
        return self._run("image", [{"pixels": pixels_BHWC[i : i + IMAGE_BATCH]} for i in range(0, len(pixels_BHWC), IMAGE_BATCH)])

    def texts(self, texts: Sequence[str]) -> Rows:
        """Compute texts in batches of similar length."""
        with self._lock:
            parts = list(self._tokens.batches(texts, TEXT_BATCH))
        rows = self._run("text", [{"ids": part.ids_BL, "mask": part.mask_BL, "places": part.places_BL} for _, part in parts])
        return in_order(rows, [place for places, _ in parts for place in places.tolist()])

    def _run(self, side: str, feeds: list[dict[str, Any]]) -> Rows:
        """Return the rows of the existing heads."""
        widths = {WORDS: len(self._tokens.words), DENSE: self._config.dense_dim}
        names = [name for name, head in ((WORDS, "words"), (DENSE, "dense")) if head in self._config.heads]
        session = self._session(side)
        found = [session.run(names, fed(session, feed)) for feed in feeds]
        none = [np.empty((0, widths[name]), np.float32) for name in names]
        rows = dict(zip(names, map(np.concatenate, zip(none, *found, strict=True)), strict=True))
        return rows.get(WORDS), rows.get(DENSE)

    def _session(self, side: str) -> Any:  # noqa: ANN401  an InferenceSession
        with self._lock:
            if side not in self._sessions:
                self._sessions[side] = self._opened(self._folder / GRAPHS[side])
            return self._sessions[side]

    def _opened(self, path: Path) -> Any:  # noqa: ANN401
        try:
            return session(str(path), self._spec.threads)
        except Exception as error:  # onnxruntime raises many types for broken files
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"onnxruntime can't load {path}: {first}", f"Run: stair-es export {shlex.quote(str(path.parent))}"
            ) from error


def in_order(rows: Rows, order: list[int]) -> Rows:
    """Restore the order of the texts.

    Args:
        rows: Rows in the order of computation.
        order: Index of the text of each row.
    """
    back = np.argsort(np.array(order, np.int64))
    words, dense = (None if found is None else found[back] for found in rows)
    return words, dense


def fed(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401  an InferenceSession
    """Select the inputs that a graph has: one that no output depends on may be missing.

    Args:
        session: An onnxruntime session.
        feed: All inputs by name.
    """
    return {each.name: feed[each.name] for each in session.get_inputs()}
