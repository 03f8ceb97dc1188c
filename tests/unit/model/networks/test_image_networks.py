"""The image networks of stair-mini, in both runtimes, and the scripts that build their graphs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import build_detector
import numpy as np
import onnx
import pytest
from build_detector import Convolution
from support.corpora.photo_vectors import stack_photos
from support.errors import expect_error
from support.models.coco_classes import COCO_CLASSES

from stair_es.errors import MissingExtra
from stair_es.model import cuda
from stair_es.model.base import ModelSpec
from stair_es.model.networks import image_networks
from stair_es.model.networks.image_networks import (
    CLASSIFIER_FILE,
    CLASSIFIER_SIZE_PX,
    DETECTOR_FILE,
    DETECTOR_SIZE_PX,
    Detector,
    ImageNetwork,
    load_detector,
    load_graph,
    load_image_network,
)
from stair_es.types import Backend, Floats, Pixels

CLASSES = {"bison.jpg": 347, "giant-panda.jpg": 388, "kitten-with-yarn.jpg": 283}
"""The likeliest class of ImageNet."""
MINI = ModelSpec(name="stair-mini", threads=1)
TOLERANCE = 1e-4
"""How far a score may differ between the backends, and from machine to machine."""
OBJECTS = {
    "astronaut.jpg": ("person", 0.75465),
    "dairy-cow.jpg": ("cow", 0.70738),
    "horses-on-a-ridge.jpg": ("horse", 0.67276),
    "tabby-cat.jpg": ("cat", 0.53179),
    "white-duck.jpg": ("bird", 0.52598),
    "woolly-sheep.jpg": ("sheep", 0.33081),
}
"""The highest score, recorded 2026-11-26 with onnxruntime 1.32 on x86-64."""


@pytest.fixture(scope="module")
def photos_BHWC() -> Pixels:  # noqa: N802  a shape
    return stack_photos(CLASSES, CLASSIFIER_SIZE_PX)


@pytest.fixture(scope="module")
def scenes_BHWC() -> Pixels:  # noqa: N802  a shape
    return stack_photos(OBJECTS, DETECTOR_SIZE_PX)


class Networks(NamedTuple):
    """Both networks of a backend."""

    classifier: ImageNetwork
    detector: Detector


def load_networks(backend: Backend) -> Networks:
    spec = replace(MINI, backend=backend)
    return Networks(load_image_network(spec), load_detector(spec))


@pytest.fixture(scope="module")
def onnx_networks() -> Networks:
    return load_networks("onnx")


@pytest.fixture(scope="module")
def torch_networks() -> Networks:
    pytest.importorskip("torch")
    return load_networks("torch")


@pytest.fixture(params=["onnx_networks", "torch_networks"])
def each_backend(request: pytest.FixtureRequest) -> Networks:
    """The networks of one backend after the other."""
    networks: Networks = request.getfixturevalue(request.param)
    return networks


def make_noise(pixels_BHWC: Pixels) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, pixels_BHWC.shape).astype(np.uint8)


def test_the_likeliest_class_is_recognized(onnx_networks: Networks, photos_BHWC: Pixels) -> None:
    logits_BK, _ = onnx_networks.classifier.run_network(photos_BHWC)
    assert logits_BK.argmax(axis=1).tolist() == list(CLASSES.values())


def test_the_visible_object_has_the_highest_score(onnx_networks: Networks, scenes_BHWC: Pixels) -> None:
    scores_BN = onnx_networks.detector.score_classes(scenes_BHWC)
    assert len(set(COCO_CLASSES)) == build_detector.CLASS_COUNT
    assert [COCO_CLASSES[number] for number in (0, 14, 39, 79)] == ["person", "bird", "bottle", "toothbrush"]
    assert (scores_BN.shape, scores_BN.dtype) == ((len(OBJECTS), build_detector.CLASS_COUNT), np.dtype(np.float32))
    assert [COCO_CLASSES[best] for best in scores_BN.argmax(axis=1)] == [name for name, _ in OBJECTS.values()]
    assert scores_BN.max(axis=1).tolist() == pytest.approx([score for _, score in OBJECTS.values()], abs=TOLERANCE)
    swapped_BN = onnx_networks.detector.score_classes(scenes_BHWC[..., ::-1])  # red and blue
    assert np.abs(scores_BN - swapped_BN).max() > 0.05


def test_both_backends_compute_the_same(
    onnx_networks: Networks, torch_networks: Networks, photos_BHWC: Pixels, scenes_BHWC: Pixels
) -> None:
    assert [network.backend for network in (*onnx_networks, *torch_networks)] == ["onnx", "onnx", "torch", "torch"]
    for pixels_BHWC in (photos_BHWC, make_noise(photos_BHWC)):
        outputs = (networks.classifier.run_network(pixels_BHWC) for networks in (onnx_networks, torch_networks))
        for by_onnx, by_torch in zip(*outputs, strict=True):
            assert np.abs(by_onnx - by_torch).max() < TOLERANCE
    for pixels_BHWC in (scenes_BHWC, make_noise(scenes_BHWC)):
        by_onnx, by_torch = (networks.detector.score_classes(pixels_BHWC) for networks in (onnx_networks, torch_networks))
        assert np.abs(by_onnx - by_torch).max() < TOLERANCE


def test_the_classifier_is_the_original_network(torch_networks: Networks, photos_BHWC: Pixels) -> None:
    torch: Any = pytest.importorskip("torch")
    original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite2").eval()
    import build_classifier

    original.load_state_dict(torch.load(build_classifier.find_weights(), map_location="cpu", weights_only=True))
    for pixels_BHWC in (photos_BHWC, make_noise(photos_BHWC)):
        with torch.inference_mode():
            scaled_BHWC = (torch.from_numpy(pixels_BHWC).float() - 127) / 128
            features_BD = original.extract_features(scaled_BHWC.permute(0, 3, 1, 2)).mean(dim=(2, 3))
            logits_BK = original._fc(features_BD)
        output = torch_networks.classifier.run_network(pixels_BHWC)
        assert np.abs(output.logits_BK - logits_BK.numpy()).max() < TOLERANCE
        assert np.abs(output.features_BD - features_BD.numpy()).max() < TOLERANCE


def test_the_script_builds_the_shipped_classifier() -> None:
    pytest.importorskip("torch")
    import build_classifier

    weights = build_classifier.read_weights(build_classifier.find_weights())
    assert build_classifier.build_classifier(weights) == CLASSIFIER_FILE.read_bytes()


def read_shipped_convolutions() -> list[Convolution]:
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(DETECTOR_FILE).graph.initializer}
    numbers = range(build_detector.CONVOLUTION_COUNT)
    scales = [tensors.get(f"{number}.scale") for number in numbers]
    return [
        Convolution(tensors[f"{number}.kernel"], tensors[f"{number}.bias"], None if scale is None else scale.ravel())
        for number, scale in zip(numbers, scales, strict=True)
    ]


def test_the_script_builds_the_shipped_detector() -> None:
    shipped = read_shipped_convolutions()
    assert build_detector.build_detector(shipped) == DETECTOR_FILE.read_bytes()
    quantized = build_detector.quantize_convolutions(dequantize_convolutions(shipped))
    for convolution, expected in zip(quantized, shipped, strict=True):
        assert convolution.kernel.dtype == expected.kernel.dtype
        assert np.array_equal(convolution.kernel, expected.kernel)


def dequantize_convolutions(convolutions: list[Convolution]) -> list[Convolution]:
    return [
        Convolution(kernel.astype(np.float32) * (1 if scale is None else scale[:, None, None, None]), bias.astype(np.float32))
        for kernel, bias, scale in convolutions
    ]


@pytest.mark.parametrize("path", [CLASSIFIER_FILE, DETECTOR_FILE])
def test_the_graphs_are_valid(path: Path) -> None:
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pads"), [(260, 3, 2, (0, 1)), (65, 5, 2, (2, 2)), (33, 3, 1, (1, 1)), (9, 1, 1, (0, 0))]
)
def test_same_padding_puts_the_odd_pixel_after(side: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from build_classifier import compute_same_padding

    assert compute_same_padding(side, kernel, stride) == pads


def test_an_image_alone_and_in_a_batch_is_the_same(each_backend: Networks, photos_BHWC: Pixels, scenes_BHWC: Pixels) -> None:
    def run_both(rows: slice) -> list[Floats]:
        scores_BN = each_backend.detector.score_classes(scenes_BHWC[rows])
        return [*each_backend.classifier.run_network(photos_BHWC[rows]), scores_BN]

    batch = run_both(slice(0, 3))
    alone = [np.concatenate(outputs) for outputs in zip(*(run_both(slice(row, row + 1)) for row in range(3)), strict=True)]
    reversed_batch = run_both(slice(2, None, -1))
    for output, output_alone, output_reversed in zip(batch, alone, reversed_batch, strict=True):
        assert np.array_equal(output, output_alone)
        assert np.array_equal(output[::-1], output_reversed)
    assert [output.shape for output in run_both(slice(0, 0))] == [(0, 1000), (0, 1280), (0, 80)]


def test_threads_get_the_same_scores(each_backend: Networks, scenes_BHWC: Pixels) -> None:
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(each_backend.detector.score_classes, [scenes_BHWC[:2]] * 4)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("has_cuda", [False, True])
def test_auto_is_torch_with_cuda(has_cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(cuda, "is_cuda_available", lambda *packages: has_cuda)
    assert load_detector(MINI).backend == ("torch" if has_cuda else "onnx")
    assert load_detector(replace(MINI, device="cpu")).backend == "onnx"


def test_a_device_that_is_not_there_is_an_error() -> None:
    pytest.importorskip("torch")
    with expect_error("device-not-found") as caught:
        load_detector(replace(MINI, device="cuda:97"))
    assert "cuda:97" in caught.value.message


def test_an_unknown_backend_or_precision_is_rejected() -> None:
    with expect_error("unknown-backend") as caught:
        load_detector(replace(MINI, backend="tensorflow"))  # type: ignore[arg-type]
    assert "'tensorflow'" in caught.value.message
    with expect_error("onnx-needs-fp32"):
        load_image_network(replace(MINI, backend="onnx", precision="bf16"))


def test_half_precision_scores_nearly_the_same(torch_networks: Networks, scenes_BHWC: Pixels) -> None:
    narrow_BN = load_detector(replace(MINI, backend="torch", precision="bf16")).score_classes(scenes_BHWC)
    assert narrow_BN.dtype == np.float32
    assert 0 < np.abs(narrow_BN - torch_networks.detector.score_classes(scenes_BHWC)).max() < 0.05


@pytest.mark.parametrize("load", [load_image_network, load_detector])
def test_without_torch_its_extra_is_named(load: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_missing_extra(module: str, extra: str) -> None:
        raise MissingExtra(module, extra)

    monkeypatch.setattr(image_networks, "import_optional", raise_missing_extra)
    with expect_error("missing-extra") as caught:
        load(replace(MINI, backend="torch"))
    assert caught.value.remedy == "torch"


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("data", [None, b"no graph", DETECTOR_FILE.read_bytes()[:10_000]])
def test_a_missing_or_broken_graph_is_an_error(tmp_path: Path, backend: Any, data: bytes | None) -> None:  # noqa: ANN401
    if backend == "torch":
        pytest.importorskip("torch")
    path = tmp_path / "detector.onnx"
    if data is not None:
        path.write_bytes(data)
    with expect_error("image-network-unreadable") as caught:
        load_graph(path, replace(MINI, backend=backend))
    assert str(path) in caught.value.message
