"""The image network of stair-mini, in onnxruntime or in PyTorch: pixels in, logits of the 1,000 ImageNet classes out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from stair_es.errors import ModelError
from stair_es.extras import need
from stair_es.model import cuda, efficientnet
from stair_es.model.encoder import Backend, Precision
from stair_es.types import Floats, Pixels

_TORCH_PACKAGE = "efficientnet_lite_pytorch"
_NETWORK = "efficientnet-lite2"
_CUDA_BATCH = 64


class Seen(NamedTuple):
    """What the network makes of images."""

    logits_BK: Floats
    """Of the ImageNet classes."""
    features_BD: Floats
    """Mean of the last feature map, which the logits are made of."""


class ImageNetwork(Protocol):
    """A loaded network; may be called from several threads."""

    backend: Backend

    def see(self, pixels_BHWC: Pixels) -> Seen:
        """The logits and the features of each image."""


def load_network(backend: Backend, threads: int, precision: Precision = "fp32") -> ImageNetwork:
    """The network on the backend asked for; `auto` is PyTorch where it and a CUDA device are, else onnxruntime.

    Raises:
        ModelError: The weights are missing or broken, the backend's name is unknown, or it has not this precision.
        MissingExtra: `torch` was asked for and isn't installed.
    """
    if cuda.choose_torch(backend, precision, cuda_is_there):
        return TorchNetwork(threads, precision)
    return OnnxNetwork(threads)


def cuda_is_there() -> bool:
    """Whether the network would run on a CUDA device where the backend is `auto`."""
    return cuda.is_there(_TORCH_PACKAGE)


class OnnxNetwork:
    """Our own graph in onnxruntime, on the CPU, one image at a time: as fast as a batch there, and bit for bit the same alone."""

    backend: Backend = "onnx"

    def __init__(self, threads: int) -> None:
        from stair_es.model import efficientnet_onnx  # imports onnx: not where PyTorch is used
        from stair_es.model.onnx_graph import session

        try:
            graph = efficientnet_onnx.build(efficientnet.load_weights()).SerializeToString()
        except KeyError as error:
            raise ModelError(f"{efficientnet.WEIGHTS_FILE} has no tensor {error}", efficientnet.REMEDY) from None
        self._session: Any = session(graph, threads)

    def see(self, pixels_BHWC: Pixels) -> Seen:
        """See `ImageNetwork`."""
        outputs = ["logits", "features"]
        return _joined([Seen(*self._session.run(outputs, {"pixels": pixels_BHWC[i : i + 1]})) for i in range(len(pixels_BHWC))])


class TorchNetwork:
    """The original network of `efficientnet_lite_pytorch`, on CUDA where it is there, else on the CPU."""

    backend: Backend = "torch"

    def __init__(self, threads: int, precision: Precision = "fp32") -> None:
        self._torch: Any = need("torch", "torch")
        network = need(_TORCH_PACKAGE, "torch").EfficientNet.from_name(_NETWORK)
        weights = {name: self._torch.from_numpy(array.copy()) for name, array in efficientnet.load_weights().items()}
        network.load_state_dict(weights)
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        if self._device == "cpu" and threads:
            self._torch.set_num_threads(threads)
        self._network = network.eval().to(self._device)
        self._narrow = {"fp32": None, "bf16": self._torch.bfloat16, "fp16": self._torch.float16}[precision]

    def see(self, pixels_BHWC: Pixels) -> Seen:
        """See `ImageNetwork`."""
        batch = _CUDA_BATCH if self._device == "cuda" else 1
        return _joined([self._run(pixels_BHWC[i : i + batch]) for i in range(0, len(pixels_BHWC), batch)])

    def _run(self, pixels_BHWC: Pixels) -> Seen:
        torch = self._torch
        with torch.inference_mode(), torch.autocast(self._device, dtype=self._narrow, enabled=self._narrow is not None):
            features = self._network.extract_features(self._on_device(pixels_BHWC)).mean(dim=(2, 3))
            logits = self._network._fc(features)
        return Seen(logits.float().cpu().numpy(), features.float().cpu().numpy())

    def _on_device(self, pixels_BHWC: Pixels) -> Any:  # noqa: ANN401  a tensor
        """Normalised pixels. To a GPU they go as bytes, a quarter of the floats, from memory that it can fetch by itself."""
        torch = self._torch
        if self._device == "cpu":
            return torch.from_numpy(efficientnet.normalised(pixels_BHWC))
        pixels = torch.from_numpy(np.ascontiguousarray(pixels_BHWC)).pin_memory().to(self._device, non_blocking=True)
        return efficientnet.normalised_tensor(pixels)


def _joined(parts: list[Seen]) -> Seen:
    if not parts:
        return Seen(np.empty((0, efficientnet.CLASSES), np.float32), np.empty((0, efficientnet.FEATURES), np.float32))
    return Seen(*map(np.concatenate, zip(*parts, strict=True)))
