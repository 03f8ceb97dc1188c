"""Images/s and texts/s of an encoder, over the bare loop of its network: same backbone, same batch, no head, no vectors.

    python benchmarks/encode.py                          # random weights: ViT-B/32 and BERT base, 30,000 words
    python benchmarks/encode.py --model models/coco      # a checkpoint of stair-es train
    python benchmarks/encode.py --model stair-mini       # a model of a package

`bare` runs the backbone on tensors that are in memory: of stair-mini the classifier and the detector, or the text network.
`head` adds the projection head, the maximum over positions and the cap on words. `encode` is what a user calls: tokens or pixels
in, sparse vectors out. `of bare` has the goal of 0.9; of that, `of head` is what making the vectors leaves, the rest is
arithmetic of the head. Rounds alternate; medians.
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
from common import options, publish
from encode_arms import BARE, ENCODE, HEAD, Loops, loops, random_checkpoint
from result import Ratio, ReportTable, Result

from stair_es.model import registry
from stair_es.model.base import Backend, ModelSpec

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

    def of(self, loop: str) -> float | None:
        """The encoder's speed over that of a loop."""
        return self.per_s[ENCODE] / self.per_s[loop] if loop in self.per_s else None


def captions(count: int) -> list[str]:
    """Texts of 4 to 16 words."""
    draw = np.random.default_rng(1)
    return [" ".join(draw.choice(WORDS, int(draw.integers(4, 17)))) for _ in range(count)]


def noise(count: int, size_px: int) -> NDArray[np.uint8]:
    """Images."""
    return np.random.default_rng(2).integers(0, 256, (count, size_px, size_px, 3), np.uint8)


def measured(arm: str, made: Loops, images: int, texts: int, rounds: int) -> list[Row]:
    """Each loop once to warm up, then round after round."""
    rows = []
    for what, count, calls in (("images", images, made.images), ("texts", texts, made.texts)):
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for name, call in calls.items():
                took = timed(call)
                if turn:
                    seconds[name].append(took)
        rows.append(Row(arm=arm, what=what, per_s={name: count / statistics.median(took) for name, took in seconds.items()}))
    return rows


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def result(rows: list[Row], about: str, remarks: list[str]) -> Result:
    """A line a runtime and kind."""
    lines = []
    for row in rows:
        speeds = [f"{row.per_s[name]:.1f}" if name in row.per_s else "-" for name in (BARE, HEAD, ENCODE)]
        shares = [f"{share:.2f}" if (share := row.of(name)) is not None else "-" for name in (BARE, HEAD)]
        lines.append((row.arm, row.what, *speeds, *shares))
    head = ("runtime", "what", "bare/s", "head/s", "encode/s", "of bare", "of head")
    model = about.partition(" on ")[0]
    ratios = [
        Ratio(what=f"encoding {row.what}, {row.arm}, {model}", against="the bare network", value=share, goal=GOAL)
        for row in rows
        if (share := row.of(BARE)) is not None
    ]
    return Result(
        about=about,
        tables=(ReportTable(head=head, rows=tuple(lines)),),
        ratios=tuple(ratios),
        remarks=tuple(remarks),
        figures={"rows": [vars(row) for row in rows]},
    )


def main() -> None:
    """Run and print."""
    parser = options(__doc__)
    parser.add_argument("--model", help="a checkpoint folder, or a model of a package (default: random weights)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}, with commas between")
    arguments = parser.parse_args()
    asked = arguments.arms.split(",")
    if wrong := set(asked) - set(ARMS):
        parser.error(f"unknown arms: {', '.join(sorted(wrong))}")
    remarks: list[str] = []
    with ExitStack() as stack:
        rows = run(arguments, asked, stack, remarks)
    model = arguments.model or "random ViT-B/32 and BERT base"
    threads = f"{arguments.threads} threads" if arguments.threads else device()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    about = f"{model} on {threads}, {versions}; {arguments.images} images, {arguments.texts} texts, median of {arguments.rounds}"
    publish(result(rows, f"{about} rounds", remarks), arguments.json)


def run(arguments: argparse.Namespace, asked: list[str], stack: ExitStack, remarks: list[str]) -> list[Row]:
    """The rows of all runtimes that this model and this machine have."""
    name = arguments.model or stack.enter_context(tempfile.TemporaryDirectory(prefix="stair-es-bench-"))
    if not arguments.model:
        random_checkpoint(Path(name))
    spec = registry.get_model_card(name).image_spec
    pixels, texts = noise(arguments.images, spec.size_px), captions(arguments.texts)
    rows = []
    for arm in asked:
        backend, compiled = ARMS[arm]
        if compiled and (why := cannot_compile(name)):
            remarks.append(f"compile: {why}")
            continue
        if backend == "onnx":
            name = with_graphs(name, stack)
        encoder = registry.load_encoder(ModelSpec(name=name, backend=backend, threads=arguments.threads))
        made = loops(encoder, pixels, texts, compiled=compiled)
        rows += measured(arm, made, arguments.images, arguments.texts, arguments.rounds)
    return rows


def cannot_compile(name: str) -> str:
    """Why the model can't be compiled here; empty if it can."""
    if not Path(name).is_dir():
        return "a packaged model isn't compiled"
    return "" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler"


def with_graphs(name: str, stack: ExitStack) -> str:
    """The same model with graphs: a copy of its folder where it has none."""
    from stair_es.model.stair.configuration import read_stair_config
    from stair_es.model.stair.export_onnx import export_onnx
    from stair_es.model.stair.onnx_runtime import find_onnx_mismatch

    folder = Path(name)
    if (
        not folder.is_dir()
        or read_stair_config(folder).is_packaged
        or not find_onnx_mismatch(folder, registry.get_model_card(name).model_id)
    ):
        return name
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stair-es-bench-"))) / folder.name
    shutil.copytree(folder, copy)
    export_onnx(copy)
    return str(copy)


def device() -> str:
    """The GPU by name, or the CPU."""
    import torch

    found: Any = torch.cuda
    return str(found.get_device_name()) if found.is_available() else f"CPU with {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
