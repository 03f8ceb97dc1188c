"""The towers as ONNX graphs in onnxruntime, on the CPU: what `stair-es export` writes beside a checkpoint.

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
    """What a graph file ends with: its metadata, so that a look at a few bytes tells whose graph it is."""
    data: bytes = ModelProto(metadata_props=[StringStringEntryProto(key=MODEL_ID, value=model_id)]).SerializeToString()
    return data


def unfit(folder: Path, model_id: str) -> str:
    """Why the graphs in a folder can't stand for its weights; empty if they can."""
    wanted = ending(model_id)
    for file in GRAPHS.values():
        try:
            with (folder / file).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - len(wanted)))
                if stream.read() != wanted:
                    return f"{folder / file} was exported from other weights than those beside it"
        except FileNotFoundError:
            return f"{folder} has no {file}"
        except OSError as error:
            return f"can't read {folder / file}: {error.strerror}"
    return ""


class OnnxTowers:
    """See `stair_encoder.Towers`. Each graph is loaded when it is first used, once."""

    def __init__(self, folder: Path, config: StairConfig, tokens: Tokens, spec: ModelSpec, model_id: str) -> None:
        """Look at the graphs.

        Raises:
            ModelError: One is missing, or of other weights.
        """
        if why := unfit(folder, model_id):
            raise ModelError(why, f"Run: stair-es export {shlex.quote(str(folder))}")
        self._folder, self._config, self._tokens, self._spec = folder, config, tokens, spec
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def images(self, pixels_BHWC: Pixels) -> Rows:
        """See `Towers`. One image at a time: as fast as a batch on a CPU, and the same bits alone."""
        return self._run("image", [{"pixels": pixels_BHWC[i : i + IMAGE_BATCH]} for i in range(0, len(pixels_BHWC), IMAGE_BATCH)])

    def texts(self, texts: Sequence[str]) -> Rows:
        """See `Towers`."""
        with self._lock:
            parts = list(self._tokens.batches(texts, TEXT_BATCH))
        rows = self._run("text", [{"ids": part.ids_BL, "mask": part.mask_BL, "places": part.places_BL} for _, part in parts])
        return in_order(rows, [place for places, _ in parts for place in places.tolist()])

    def _run(self, side: str, feeds: list[dict[str, Any]]) -> Rows:
        """The rows of each head that there is."""
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
        except Exception as error:  # onnxruntime has errors of its own for each way in which a file can be broken
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"onnxruntime can't load {path}: {first}", f"Run: stair-es export {shlex.quote(str(path.parent))}"
            ) from error


def in_order(rows: Rows, order: list[int]) -> Rows:
    """Rows that were computed in another order, put into that of the texts: `order` has each one's place."""
    back = np.argsort(np.array(order, np.int64))
    words, dense = (None if found is None else found[back] for found in rows)
    return words, dense


def fed(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401  an InferenceSession
    """Return what a graph takes of its inputs: one that no output depends on may not be there."""
    return {each.name: feed[each.name] for each in session.get_inputs()}
