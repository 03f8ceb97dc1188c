"""The object detector, in onnxruntime or PyTorch: pixels to a score for each of the 80 classes of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stair_es.errors import ModelError
from stair_es.model import cuda
from stair_es.model.base import Backend, Precision
from stair_es.model.networks import nanodet
from stair_es.model.networks.nanodet import Convolution
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.optional import import_optional
from stair_es.types import Floats, Pixels

DETECTOR_WEIGHTS = MODEL_DATA / "detector.safetensors"
_CUDA_BATCH = 64
_REMEDY = "Reinstall stair-es."


class Detector(Protocol):
    """A loaded detector. May be called from several threads."""

    backend: Backend

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        """Score the classes in images [B, 288, 288, 3]; returns [B, 80].

        The score of a class is its maximum over all positions of the image, between 0 and 1.
        """


def load_detector(backend: Backend, threads: int, precision: Precision = "fp32") -> Detector:
    """Load the detector. `auto` is PyTorch if CUDA is available, else onnxruntime.

    Args:
        backend: Requested backend.
        threads: CPU threads; 0 for one per core.
        precision: Precision of the torch backend.

    Raises:
        ModelError: If the weights are missing or broken, or the backend is unknown or lacks this precision.
        MissingExtra: If `torch` is requested and isn't installed.
    """
    if cuda.is_torch_chosen(backend, precision, cuda.is_cuda_available):
        return TorchDetector(threads, precision)
    return OnnxDetector(threads)


def read_detector_weights(path: Path = DETECTOR_WEIGHTS) -> list[Convolution]:
    """Return the convolutions of the detector.

    Raises:
        ModelError: If the file is missing or broken.
    """
    try:
        return nanodet.read_convolutions(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"the detector in {path} can't be read: {error}", _REMEDY) from error
    except KeyError as error:
        raise ModelError(f"{path} has no tensor {error}", _REMEDY) from None


class OnnxDetector:
    """NanoDet-g in onnxruntime on the CPU, one image at a time, so that batching doesn't change a bit of the scores."""

    backend: Backend = "onnx"

    def __init__(self, threads: int) -> None:
        from stair_es.model.networks.nanodet_onnx import build_nanodet_onnx  # imports onnx: not where PyTorch is used
        from stair_es.model.networks.onnx_graph import create_onnx_session

        graph = build_nanodet_onnx(read_detector_weights()).SerializeToString()
        self._session: Any = create_onnx_session(graph, threads)

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        """Score the classes, one image per run."""
        return _join_batches(
            [self._session.run(["scores"], {"pixels": pixels_BHWC[i : i + 1]})[0] for i in range(len(pixels_BHWC))]
        )


class TorchDetector:
    """NanoDet-g in PyTorch, on CUDA if available, else on the CPU, there one image at a time."""

    backend: Backend = "torch"

    def __init__(self, threads: int, precision: Precision = "fp32") -> None:
        self._torch: Any = import_optional("torch", "torch")
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        if self._device == "cpu" and threads:
            self._torch.set_num_threads(threads)
        self._operations = TorchOperations.from_convolutions(self._torch, self._device, read_detector_weights())
        self._precision = precision

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        """Score the classes, in batches on CUDA."""
        batch = _CUDA_BATCH if self._device == "cuda" else 1
        return _join_batches([self._run_batch(pixels_BHWC[i : i + batch]) for i in range(0, len(pixels_BHWC), batch)])

    def _run_batch(self, pixels_BHWC: Pixels) -> Floats:
        torch = self._torch
        with torch.inference_mode(), cuda.make_autocast(self._device, self._precision):
            pixels = torch.from_numpy(pixels_BHWC.copy())  # PyTorch rejects read-only arrays and negative strides
            if self._device == "cuda":  # as bytes, a quarter of the size, from pinned memory
                pixels = pixels.pin_memory().to(self._device, non_blocking=True)
            scores: Floats = nanodet.compute_class_scores(self._operations, pixels).float().cpu().numpy()
        return scores


@dataclass(frozen=True)
class TorchOperations:
    """The operations of the network on PyTorch tensors."""

    torch: Any
    mean: Any
    scale: Any
    kernels: Sequence[Any]
    biases: Sequence[Any]

    @classmethod
    def from_convolutions(cls, torch: Any, device: str, convolutions: Sequence[Convolution]) -> TorchOperations:  # noqa: ANN401  the module
        """Create the operations with their weights on a device."""
        return cls(
            torch,
            torch.tensor(nanodet.NANODET_MEAN, device=device),
            1 / torch.tensor(nanodet.NANODET_STD, device=device),
            [torch.from_numpy(convolution.kernel).to(device) for convolution in convolutions],
            [torch.from_numpy(convolution.bias).to(device) for convolution in convolutions],
        )

    def normalize_pixels(self, pixels_BHWC: Any) -> Any:  # noqa: ANN401  tensors, as below
        """Normalize pixels, and return them channels first."""
        return ((pixels_BHWC.float() - self.mean) * self.scale).permute(0, 3, 1, 2).contiguous()

    def apply_convolution(self, x: Any, index: int, stride: int = 1, activate: bool = True) -> Any:  # noqa: ANN401
        """Apply a convolution, then the leaky ReLU if `activate`."""
        kernel = self.kernels[index]
        y = self.torch.nn.functional.conv2d(x, kernel, self.biases[index], stride, padding=kernel.shape[2] // 2)
        return self.torch.nn.functional.leaky_relu(y, nanodet.LEAKY_RELU_SLOPE) if activate else y

    def apply_max_pool(self, x: Any) -> Any:  # noqa: ANN401
        """Apply a 3 x 3 max pooling with stride 2."""
        return self.torch.nn.functional.max_pool2d(x, 3, 2, padding=1)

    def join_channels(self, one: Any, other: Any) -> Any:  # noqa: ANN401
        """Join two feature maps along their channels."""
        return self.torch.cat([one, other], dim=1)

    def add_maps(self, one: Any, other: Any) -> Any:  # noqa: ANN401
        """Add two feature maps."""
        return one + other

    def resize_double(self, x: Any) -> Any:  # noqa: ANN401
        """Resize a feature map bilinearly to twice its side."""
        return self.torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def resize_half(self, x: Any) -> Any:  # noqa: ANN401
        """Resize a feature map to half its side by average pooling."""
        return self.torch.nn.functional.avg_pool2d(x, 2)

    def compute_scores(self, levels: Sequence[Any]) -> Any:  # noqa: ANN401
        """Compute the sigmoid of the maximum over all positions and levels."""
        return self.torch.stack([x.amax(dim=(2, 3)) for x in levels]).amax(dim=0).float().sigmoid()


def _join_batches(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty((0, nanodet.COCO_CLASS_COUNT), np.float32)
