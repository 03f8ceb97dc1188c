"""Compare images/s and texts/s of an encoder with a bare loop of its network: same backbone, same batch, no head, no vectors.

    python benchmarks/encode.py                          # random weights: ViT-B/32 and BERT base, 30,000 tokens
    python benchmarks/encode.py --model models/coco      # a checkpoint of stair-es train
    python benchmarks/encode.py --model stair-mini       # a packaged model

`bare` runs the backbone on tensors in memory. For stair-mini this is the classifier and the detector, or the text network. `head`
adds the projection head, the maximum over positions and the limit on tokens. `encode` is the call of a user: tokens or pixels in,
sparse vectors out. The goal for `ratio to bare` is 0.9. `ratio to head` shows the cost of building the vectors; the rest is the
computation of the head. Rounds alternate, and the table shows medians.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from encoding.loops import BARE, ENCODE, HEAD, Loops, build_loops, write_random_checkpoint
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.types import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ARMS: dict[str, tuple[Backend, bool]] = {"eager": ("torch", False), "compile": ("torch", True), "onnx": ("onnx", False)}
GOAL = 0.9
WORDS = ("a", "red", "car", "dog", "on", "the", "street", "near", "two", "trees", "under", "blue", "sky", "with", "a", "house")
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Items/s of the loops of one runtime."""

    arm: str
    what: str
    per_s: dict[str, float]

    def compute_share(self, loop: str) -> float | None:
        """Return the ratio of the encoder's speed to that of a loop."""
        return self.per_s[ENCODE] / self.per_s[loop] if loop in self.per_s else None


def make_texts(count: int) -> list[str]:
    """Return texts of 4 to 16 words."""
    draw = np.random.default_rng(1)
    return [" ".join(draw.choice(WORDS, int(draw.integers(4, 17)))) for _ in range(count)]


def make_pixels(count: int, size_px: int) -> NDArray[np.uint8]:
    """Return random images."""
    return np.random.default_rng(2).integers(0, 256, (count, size_px, size_px, 3), np.uint8)


def measure_loops(arm: str, made: Loops, images: int, texts: int, rounds: int) -> list[Row]:
    """Run each loop once to warm up, then in rounds."""
    rows = []
    for what, count, calls in (("images", images, made.images), ("texts", texts, made.texts)):
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for name, call in calls.items():
                took = measure_s(call)
                if turn:
                    seconds[name].append(took)
        rows.append(Row(arm=arm, what=what, per_s={name: count / statistics.median(took) for name, took in seconds.items()}))
    return rows


def measure_s(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def build_result(rows: list[Row], about: str, remarks: list[str]) -> Result:
    """Return a row for each runtime and kind."""
    lines = []
    for row in rows:
        speeds = [f"{row.per_s[name]:.1f}" if name in row.per_s else "-" for name in (BARE, HEAD, ENCODE)]
        shares = [f"{share:.2f}" if (share := row.compute_share(name)) is not None else "-" for name in (BARE, HEAD)]
        lines.append((row.arm, row.what, *speeds, *shares))
    head = ("runtime", "what", "bare/s", "head/s", "encode/s", "ratio to bare", "ratio to head")
    model = about.partition(" on ")[0]
    ratios = [
        Ratio(what=f"encoding {row.what}, {row.arm}, {model}", against="the bare network", value=share, goal=GOAL)
        for row in rows
        if (share := row.compute_share(BARE)) is not None
    ]
    return Result(
        about=about,
        tables=(ReportTable(head=head, rows=tuple(lines)),),
        ratios=tuple(ratios),
        remarks=tuple(remarks),
        figures={"rows": [vars(row) for row in rows]},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--model", help="a checkpoint folder or a packaged model (default: random weights)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"comma-separated list of {', '.join(ARMS)}")
    args = parser.parse_args()
    arms = args.arms.split(",")
    if wrong := set(arms) - set(ARMS):
        parser.error(f"unknown arms: {', '.join(sorted(wrong))}")
    remarks: list[str] = []
    with ExitStack() as stack:
        rows = measure_arms(args, arms, stack, remarks)
    model = args.model or "random ViT-B/32 and BERT base"
    threads = f"{args.threads} threads" if args.threads else describe_device()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    about = f"{model} on {threads}, {versions}; {args.images} images, {args.texts} texts, median of {args.rounds}"
    publish_result(build_result(rows, f"{about} rounds", remarks), args.json)


def measure_arms(args: argparse.Namespace, arms: list[str], stack: ExitStack, remarks: list[str]) -> list[Row]:
    """Return the rows of all runtimes that this model and this machine support."""
    name = args.model or stack.enter_context(tempfile.TemporaryDirectory(prefix="stair-es-bench-"))
    if not args.model:
        write_random_checkpoint(Path(name))
    spec = registry.resolve_model(ModelSpec(name=name)).card.image_spec
    pixels, texts = make_pixels(args.images, spec.size_px), make_texts(args.texts)
    rows = []
    for arm in arms:
        backend, compiled = ARMS[arm]
        if compiled and (why := explain_no_compile(name)):
            remarks.append(f"compile: {why}")
            continue
        if backend == "onnx":
            name = ensure_graphs(name, stack)
        encoder = registry.load_encoder(ModelSpec(name=name, backend=backend, threads=args.threads))
        made = build_loops(encoder, pixels, texts, compiled=compiled)
        rows += measure_loops(arm, made, args.images, args.texts, args.rounds)
    return rows


def explain_no_compile(name: str) -> str:
    """Return why the model can't be compiled here; empty if it can."""
    if not Path(name).is_dir():
        return "a packaged model isn't compiled"
    return "" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler"


def ensure_graphs(name: str, stack: ExitStack) -> str:
    """Return the same model with graphs: a copy of its folder if it has none."""
    from stair_es.model.stair.export_onnx import export_onnx
    from stair_es.model.stair.onnx_runtime import find_onnx_mismatch

    folder = Path(name)
    if not folder.is_dir() or not find_onnx_mismatch(folder, registry.resolve_model(ModelSpec(name=name)).card.model_id):
        return name
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stair-es-bench-"))) / folder.name
    shutil.copytree(folder, copy)
    export_onnx(copy)
    return str(copy)


def describe_device() -> str:
    """Return the GPU's name, or the CPU."""
    import torch

    found: Any = torch.cuda
    return str(found.get_device_name()) if found.is_available() else f"CPU with {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
