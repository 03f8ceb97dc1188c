"""CLIP's own preparation, against that of torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-untyped]

from stair_es.model.adapters.cropped import cropped


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (37, 100), (225, 224), (31, 30), (16, 16), (301, 17)])
def test_the_middle_of_an_image(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    wanted = Compose([Resize(16, interpolation=InterpolationMode.BICUBIC), CenterCrop(16)])(image)
    assert (cropped(image, 16) == np.asarray(wanted)).all()
