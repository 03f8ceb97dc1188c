"""The parts that encoders in PyTorch share: device and precision, lazy properties, and the conversion to sparse vectors.

Shape suffixes: B batch, H height, W width, C channel, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.model.cuda import make_autocast
from stair_es.types import Floats, Pixels, SparseVector

_T = TypeVar("_T")


class LockedProperty(cached_property[_T]):
    """A cached property that one thread computes while others wait, by the instance's reentrant `_lock`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> _T:  # type: ignore[override]  # noqa: ANN401
        if instance is None:
            return self  # type: ignore[return-value]
        with instance._lock:
            value: _T = super().__get__(instance, owner)
        return value


class TorchDevice:
    """The device and precision that a network runs with."""

    def __init__(self, spec: ModelSpec) -> None:
        """Choose CUDA if it is available, else the CPU with the number of threads of the spec."""
        self.name = "cuda" if torch.cuda.is_available() else "cpu"
        if self.name == "cpu" and spec.threads:
            torch.set_num_threads(spec.threads)
        self._precision = spec.precision
        self.batch_size = 64 if self.name == "cuda" else 8
        """Images or texts per run of the network: their weights over a whole vocabulary need memory."""

    @contextmanager
    def enter_inference(self) -> Iterator[None]:
        """Disable gradients and set the requested precision within this context."""
        with torch.inference_mode(), make_autocast(self.name, self._precision):
            yield

    def move_pixels(self, pixels_BHWC: Pixels) -> Tensor:
        """Return the pixels on the device as [B, C, H, W] in 0..255. They are sent as bytes, a quarter of the size of floats."""
        pixels = torch.from_numpy(np.array(pixels_BHWC)).to(self.name)
        return pixels.permute(0, 3, 1, 2).float()


def build_sparse_vectors(weights_BV: Tensor, tokens: Sequence[str]) -> list[SparseVector]:
    """Return one sparse vector per row, of the weights above 0.

    Raises:
        ModelError: If a weight isn't finite: the precision is too low for this model, or its weights are broken.
    """
    rows: Floats = weights_BV.float().cpu().numpy()
    if not np.isfinite(rows).all():
        raise ModelError("the model produced a weight that isn't finite", "Use --precision fp32 or bf16.")
    return [_build_vector(row_V, tokens) for row_V in rows]


def _build_vector(weights_V: Floats, tokens: Sequence[str]) -> SparseVector:
    indices = np.flatnonzero(weights_V > 0)
    return SparseVector.from_pairs((tokens[index], float(weights_V[index])) for index in indices.tolist())
