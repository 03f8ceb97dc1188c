"""The detector: pixels in, scores of the classes of COCO out. Nothing here needs a network."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file
from support.corpora.photo_vectors import stack_photos
from support.models.coco_classes import COCO_CLASSES

from stair_es.errors import MissingExtra, ModelError
from stair_es.model.networks import detector, nanodet, nanodet_onnx
from stair_es.model.networks.detector import Detector, OnnxDetector, TorchDetector, load_detector, read_detector_weights
from stair_es.types import Pixels

TOLERANCE = 1e-4
"""How far a score may differ between the backends, and from machine to machine."""
GOLDEN = {
    "astronaut.jpg": ("person", 0.75465),
    "dairy-cow.jpg": ("cow", 0.70738),
    "horses-on-a-ridge.jpg": ("horse", 0.67276),
    "tabby-cat.jpg": ("cat", 0.53179),
    "white-duck.jpg": ("bird", 0.52598),
    "woolly-sheep.jpg": ("sheep", 0.33081),
}
"""The highest score, recorded 2026-11-26 with onnxruntime 1.32 on x86-64."""


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    return stack_photos(GOLDEN, nanodet.NANODET_SIZE_PX)


@pytest.fixture(scope="module")
def by_onnx() -> OnnxDetector:
    return OnnxDetector(threads=1)


@pytest.fixture(scope="module")
def by_torch() -> TorchDetector:
    pytest.importorskip("torch")
    return TorchDetector(threads=1)


@pytest.fixture(params=["by_onnx", "by_torch"])
def either(request: pytest.FixtureRequest) -> Detector:
    """A detector of each backend."""
    detector: Detector = request.getfixturevalue(request.param)
    return detector


def test_the_highest_score_is_that_of_the_class_to_be_seen(by_onnx: Detector, pixels_BHWC: Pixels) -> None:
    scores_BN = by_onnx.score_classes(pixels_BHWC)
    assert (scores_BN.shape, scores_BN.dtype) == ((len(GOLDEN), 80), np.dtype(np.float32))
    assert [COCO_CLASSES[best] for best in scores_BN.argmax(axis=1)] == [name for name, _ in GOLDEN.values()]
    assert scores_BN.max(axis=1).tolist() == pytest.approx([score for _, score in GOLDEN.values()], abs=TOLERANCE)


def test_class_count_is_80() -> None:
    assert len(set(COCO_CLASSES)) == nanodet.COCO_CLASS_COUNT
    assert [COCO_CLASSES[i] for i in (0, 14, 39, 79)] == ["person", "bird", "bottle", "toothbrush"]


def test_scores_do_not_depend_on_the_batch(either: Detector, pixels_BHWC: Pixels) -> None:
    batch = either.score_classes(pixels_BHWC)
    alone = np.concatenate([either.score_classes(pixels_BHWC[i : i + 1]) for i in range(len(pixels_BHWC))])
    assert np.array_equal(alone, batch)
    assert np.array_equal(either.score_classes(pixels_BHWC[::-1]), batch[::-1])
    assert either.score_classes(pixels_BHWC[:0]).shape == (0, 80)


def test_threads_get_the_same_scores(either: Detector, pixels_BHWC: Pixels) -> None:
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(either.score_classes, [pixels_BHWC[:2]] * 4)
    assert all(np.array_equal(first, other) for other in others)


def test_both_backends_give_the_same_scores(by_onnx: Detector, by_torch: Detector, pixels_BHWC: Pixels) -> None:
    assert (by_onnx.backend, by_torch.backend) == ("onnx", "torch")
    noise = np.random.default_rng(0).integers(0, 256, pixels_BHWC.shape).astype(np.uint8)
    for pixels in (pixels_BHWC, noise):
        assert np.abs(by_onnx.score_classes(pixels) - by_torch.score_classes(pixels)).max() < TOLERANCE


def test_red_and_blue_are_distinguished(by_onnx: Detector, pixels_BHWC: Pixels) -> None:
    assert np.abs(by_onnx.score_classes(pixels_BHWC) - by_onnx.score_classes(pixels_BHWC[..., ::-1])).max() > 0.05


def test_the_graph_is_valid_for_other_sizes() -> None:
    graph = nanodet_onnx.build_nanodet_onnx(read_detector_weights(), side_px=416)
    onnx.checker.check_model(graph, full_check=True)
    assert [each.dim_value for each in graph.graph.input[0].type.tensor_type.shape.dim] == [0, 416, 416, 3]


def test_a_detector_is_loaded_by_the_name_of_its_backend() -> None:
    pytest.importorskip("torch")
    assert isinstance(load_detector("onnx", threads=1), OnnxDetector)
    assert isinstance(load_detector("torch", threads=1, precision="bf16"), TorchDetector)
    with pytest.raises(ModelError, match="unknown backend 'tensorflow'"):
        load_detector("tensorflow", threads=1)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="not in bf16"):
        load_detector("onnx", threads=1, precision="bf16")


def test_half_precision_scores_nearly_the_same(by_torch: Detector, pixels_BHWC: Pixels) -> None:
    narrow = TorchDetector(threads=1, precision="bf16").score_classes(pixels_BHWC)
    assert narrow.dtype == np.float32
    assert 0 < np.abs(narrow - by_torch.score_classes(pixels_BHWC)).max() < 0.05


def test_without_torch_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def need(module: str, extra: str) -> ModuleType:
        raise MissingExtra(f"this needs the package {module!r}", f"pip install 'stair-es[{extra}]'")

    monkeypatch.setattr(detector, "import_optional", need)
    with pytest.raises(MissingExtra, match=r"stair-es\[torch\]"):
        load_detector("torch", threads=1)


def write_nothing(path: Path) -> None:
    path.write_bytes(b"no tensors")


def write_less(path: Path) -> None:
    tensors = load_file(detector.DETECTOR_WEIGHTS)
    del tensors["24.scale"]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("write", "message"), [(None, "can't be read"), (write_nothing, "can't be read"), (write_less, "no tensor '24.scale'")]
)
def test_weights_that_are_missing_or_broken_are_an_error(
    tmp_path: Path, write: Callable[[Path], None] | None, message: str
) -> None:
    path = tmp_path / "detector.safetensors"
    if write:
        write(path)
    with pytest.raises(ModelError, match=message) as error:
        read_detector_weights(path)
    assert str(path) in str(error.value)
