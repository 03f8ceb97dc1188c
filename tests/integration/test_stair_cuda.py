"""A GPU and the CPU: the same vectors within stated tolerances. Deselected, and counted as such, where there is no CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import tiny_stair

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.model.stair.encoder import StairEncoder, TorchDualEncoder
from stair_es.types import Precision

pytestmark = pytest.mark.gpu
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.04, "fp16": 0.01}
"""Of weights of about 1; fp32 on a GPU sums in another order, and convolutions may use TF32."""
TEXTS = ("a red dog", "the dogs running of the sea .", "", "blue", "dog " * 20)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("image", tiny_stair.IMAGES)
def test_cuda_gives_the_weights_of_the_cpu(tmp_path: Path, image: str, precision: Precision) -> None:
    config = tiny_stair.build_config(image, image_top_k=0, text_top_k=0, text_own_words=True, similarity="dot")
    folder = tiny_stair.write_checkpoint(tmp_path, config)
    model = registry.resolve_model(ModelSpec(name=str(folder), precision=precision))
    assert model.can_use_gpu
    encoder = model.load()
    assert isinstance(encoder, StairEncoder)
    towers = encoder._towers
    assert isinstance(towers, TorchDualEncoder)
    assert towers._device.name == "cuda"
    pixels = np.random.default_rng(3).integers(0, 256, (70, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)
    model = checkpoint.load_stair_model(folder)
    tokenized = model.tokens.encode(TEXTS)
    with torch.inference_mode():
        image_weights = model.encode_images(torch.from_numpy(pixels)).weights_BF.numpy()
        text_weights = model.encode_texts(tiny_stair.build_batch(tokenized)).weights_BF.numpy()
    for expected, computed in ((image_weights, towers.compute_images(pixels)[0]), (text_weights, towers.compute_texts(TEXTS)[0])):
        assert computed is not None
        assert np.abs(expected - computed).max() < TOLERANCE[precision]
    assert encoder.model_id == registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
