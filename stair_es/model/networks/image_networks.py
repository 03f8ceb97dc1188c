"""The image networks of stair-mini, a classifier and an object detector: shipped ONNX graphs, in onnxruntime or PyTorch.

`scripts/build_classifier.py` and `scripts/build_detector.py` write the graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.model.cuda import is_torch_chosen
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.optional import import_optional
from stair_es.types import Backend, Floats, Pixels

CLASSIFIER_FILE = MODEL_DATA / "classifier.onnx"
"""EfficientNet-Lite2: `pixels` to `logits` of the 1,000 classes of ImageNet, and the `features` that they are computed from."""
DETECTOR_FILE = MODEL_DATA / "detector.onnx"
"""NanoDet-g: `pixels` to `scores` of the 80 classes of COCO."""
CLASSIFIER_INPUT, CLASSIFIER_FEATURE_MAP = "normalized", "feature_map"
"""Tensors inside: normalized pixels [B, 3, H, W], and the last feature map, whose mean are the features."""
TORCH_PACKAGES = ("onnx",)
"""Packages that the graphs require in PyTorch, which has no reader of its own."""
CLASSIFIER_SIZE_PX, DETECTOR_SIZE_PX = 260, 288
"""Side of the square that an image is resized to, without keeping its aspect ratio."""


class ImageNetworkOutput(NamedTuple):
    """Output of the classifier."""

    logits_BK: Floats
    """Logits of the ImageNet classes."""
    features_BD: Floats
    """Mean of the last feature map, from which the logits are computed."""


class GraphRuntime(Protocol):
    """A loaded graph. May be called from several threads."""

    backend: Backend

    def run_graph(self, pixels_BHWC: Pixels) -> Sequence[Floats]:
        """Return the outputs of the graph."""


class ImageNetwork:
    """The loaded classifier. May be called from several threads."""

    def __init__(self, graph: GraphRuntime) -> None:
        self.backend, self._graph = graph.backend, graph

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        """Run the network on images [B, 260, 260, 3]: logits and features of each."""
        return ImageNetworkOutput(*self._graph.run_graph(pixels_BHWC))


class Detector:
    """The loaded detector. May be called from several threads."""

    def __init__(self, graph: GraphRuntime) -> None:
        self.backend, self._graph = graph.backend, graph

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        """Score the classes in images [B, 288, 288, 3]; returns [B, 80].

        The score of a class is its maximum over all positions of the image, between 0 and 1.
        """
        [scores_BK] = self._graph.run_graph(pixels_BHWC)
        return scores_BK


def load_image_network(spec: ModelSpec) -> ImageNetwork:
    """Load the classifier, with the backend, device, precision and threads of a spec. `auto` is PyTorch if it can use CUDA.

    Raises:
        ModelError: If the graph is missing or broken, or the backend is unknown or lacks this precision.
        MissingExtra: If `torch` is requested and isn't installed.
    """
    return ImageNetwork(load_graph(CLASSIFIER_FILE, spec))


def load_detector(spec: ModelSpec) -> Detector:
    """Load the detector, as `load_image_network` loads the classifier."""
    return Detector(load_graph(DETECTOR_FILE, spec))


def load_graph(path: Path, spec: ModelSpec) -> GraphRuntime:
    """Load a shipped graph, as `load_image_network` does."""
    if is_torch_chosen(spec, *TORCH_PACKAGES):
        for module in ("torch", *TORCH_PACKAGES):
            import_optional(module, "torch")
        from stair_es.model.networks.torch_graph import TorchGraphRuntime

        return TorchGraphRuntime(path, spec)
    try:
        return OnnxGraphRuntime(path, spec.threads)
    except Exception as error:  # onnxruntime raises many types for broken files
        raise ModelError(
            f"the image network in {path} can't be read: {error}", "Reinstall stair-es.", code="image-network-unreadable"
        ) from error


class OnnxGraphRuntime:
    """A graph in onnxruntime on the CPU, one image at a time: as fast as a batch there, with identical bits."""

    backend: Backend = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        self._session: Any = create_onnx_session(path, threads)

    def run_graph(self, pixels_BHWC: Pixels) -> Sequence[Floats]:
        """Run the graph, one image at a time."""
        rows = [self._session.run(None, {"pixels": pixels_BHWC[i : i + 1]}) for i in range(len(pixels_BHWC))]
        if not rows:
            return [np.empty((0, *output.shape[1:]), np.float32) for output in self._session.get_outputs()]
        return [np.concatenate(output) for output in zip(*rows, strict=True)]


def create_onnx_session(graph: Path | bytes, threads: int) -> Any:  # noqa: ANN401  an InferenceSession has no types
    """Create an onnxruntime session on the CPU.

    Args:
        graph: Path or bytes of an ONNX file.
        threads: CPU threads of one run; 0 for one per core.
    """
    import onnxruntime as ort  # not for listing models

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"])
