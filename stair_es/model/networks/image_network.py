"""The image classifier of stair-mini, in onnxruntime or PyTorch: pixels to logits of the 1,000 ImageNet classes."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from stair_es.errors import ModelError
from stair_es.model import cuda
from stair_es.model.base import Backend, Precision
from stair_es.model.networks import efficientnet
from stair_es.optional import import_optional
from stair_es.types import Floats, Pixels

_TORCH_PACKAGE = "efficientnet_lite_pytorch"
_NETWORK = "efficientnet-lite2"
_CUDA_BATCH = 64


class ImageNetworkOutput(NamedTuple):
    """Output of the classifier."""

    logits_BK: Floats
    """Logits of the ImageNet classes."""
    features_BD: Floats
    """Mean of the last feature map, from which the logits are computed."""


class ImageNetwork(Protocol):
    """A loaded classifier. May be called from several threads."""

    backend: Backend

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        """Run the network: logits and features of each image."""


def load_image_network(backend: Backend, threads: int, precision: Precision = "fp32") -> ImageNetwork:
    """Load the classifier. `auto` is PyTorch if CUDA is available, else onnxruntime.

    Args:
        backend: Requested backend.
        threads: CPU threads; 0 for one per core.
        precision: Precision of the torch backend.

    Raises:
        ModelError: If the weights are missing or broken, or the backend is unknown or lacks this precision.
        MissingExtra: If `torch` is requested and isn't installed.
    """
    if cuda.is_torch_chosen(backend, precision, is_classifier_cuda_available):
        return TorchImageNetwork(threads, precision)
    return OnnxImageNetwork(threads)


def is_classifier_cuda_available() -> bool:
    """Return whether the classifier would run on a CUDA device with the backend `auto`."""
    return cuda.is_cuda_available(_TORCH_PACKAGE)


class OnnxImageNetwork:
    """The network in onnxruntime on the CPU, one image at a time: as fast as a batch there, with identical bits."""

    backend: Backend = "onnx"

    def __init__(self, threads: int) -> None:
        from stair_es.model.networks import efficientnet_onnx  # imports onnx: not where PyTorch is used
        from stair_es.model.networks.onnx_graph import create_onnx_session

        try:
            graph = efficientnet_onnx.build_efficientnet_onnx(efficientnet.load_classifier_weights()).SerializeToString()
        except KeyError as error:
            raise ModelError(f"{efficientnet.CLASSIFIER_FILE} has no tensor {error}", efficientnet.CLASSIFIER_REMEDY) from None
        self._session: Any = create_onnx_session(graph, threads)

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        """Run the network, one image at a time."""
        names = ["logits", "features"]
        return _join_outputs(
            [ImageNetworkOutput(*self._session.run(names, {"pixels": pixels_BHWC[i : i + 1]})) for i in range(len(pixels_BHWC))]
        )


class TorchImageNetwork:
    """The original network of `efficientnet_lite_pytorch`, on CUDA if available, else on the CPU."""

    backend: Backend = "torch"

    def __init__(self, threads: int, precision: Precision = "fp32") -> None:
        self._torch: Any = import_optional("torch", "torch")
        network = import_optional(_TORCH_PACKAGE, "torch").EfficientNet.from_name(_NETWORK)
        weights = {name: self._torch.from_numpy(array.copy()) for name, array in efficientnet.load_classifier_weights().items()}
        network.load_state_dict(weights)
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        if self._device == "cpu" and threads:
            self._torch.set_num_threads(threads)
        self._network = network.eval().to(self._device)
        self._precision = precision

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        """Run the network, in batches on CUDA."""
        batch = _CUDA_BATCH if self._device == "cuda" else 1
        return _join_outputs([self._run_batch(pixels_BHWC[i : i + batch]) for i in range(0, len(pixels_BHWC), batch)])

    def _run_batch(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        torch = self._torch
        with torch.inference_mode(), cuda.make_autocast(self._device, self._precision):
            features = self._network.extract_features(self._move_pixels(pixels_BHWC)).mean(dim=(2, 3))
            logits = self._network._fc(features)
        return ImageNetworkOutput(logits.float().cpu().numpy(), features.float().cpu().numpy())

    def _move_pixels(self, pixels_BHWC: Pixels) -> Any:  # noqa: ANN401  a tensor
        """Return normalized pixels on the device. They are sent as bytes, a quarter of the size of floats, from pinned memory."""
        torch = self._torch
        if self._device == "cpu":
            return torch.from_numpy(efficientnet.normalize_pixels(pixels_BHWC))
        pixels = torch.from_numpy(np.ascontiguousarray(pixels_BHWC)).pin_memory().to(self._device, non_blocking=True)
        return efficientnet.normalize_tensor(pixels)


def _join_outputs(parts: list[ImageNetworkOutput]) -> ImageNetworkOutput:
    if not parts:
        return ImageNetworkOutput(
            np.empty((0, efficientnet.IMAGENET_CLASS_COUNT), np.float32),
            np.empty((0, efficientnet.CLASSIFIER_FEATURE_COUNT), np.float32),
        )
    return ImageNetworkOutput(*map(np.concatenate, zip(*parts, strict=True)))
