"""Measure images/s of decoding, of encoding, and of both at once, compared with the bare network on pixels in the GPU's memory.

    python benchmarks/gpu.py                                # stair-mini on the first GPU, or on the CPU if there is none
    python benchmarks/gpu.py --model photos --images 4096   # any model that runs in PyTorch
    python benchmarks/gpu.py --device cuda:1 --precision fp16

It needs no cluster and no answers. `decode` decodes photos in memory with all cores. `encode` calls the encoder with decoded
pixels, from `--encoders` threads. `whole` does both at once, as a worker of an ingest does: decoders fill batches, which the
encoder takes. `bare` runs the same networks on random pixels that are already on the device, and copies nothing back. The goal
for `encode` is 0.9 of `bare`, and for `whole` 0.9 of the slower one of `decode` and `encode`. On the CPU these compete for the
same cores, so it has no goal there. Rounds alternate, and the table shows medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from harness.photos import list_photos
from harness.program import add_model_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from torch import Tensor

from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.torch_device import CPU_CHUNK, TorchDevice
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.system.limits import count_usable_cores
from stair_es.types import Pixels

GOAL = 0.9
DECODE, ENCODE, WHOLE, BARE = "decode", "encode", "whole", "bare"


@dataclass(frozen=True, kw_only=True)
class Computation:
    """A network of the model with random inputs on its device, in chunks."""

    device: TorchDevice
    compute: Callable[[Any], Sequence[Tensor | None]]
    chunks: Sequence[Any]

    def run(self) -> None:
        """Run the network on all chunks, and wait for it."""
        with self.device.enter_inference():
            for chunk in self.chunks:
                self.compute(chunk)
            if self.device.name != "cpu":
                torch.cuda.synchronize(self.device.name)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured: photos as files and as pixels, and how many threads and images per batch."""

    encoder: Encoder
    files: Sequence[bytes]
    pixels_BHWC: Pixels
    batch: int
    decoders: ThreadPoolExecutor
    encoders: ThreadPoolExecutor
    computations: Sequence[Computation]

    def decode(self) -> None:
        """Decode all photos."""
        for future in [self.decoders.submit(self.decode_batch, begin) for begin in self.list_begins()]:
            future.result()

    def encode(self) -> None:
        """Encode all pixels."""
        parts = [self.pixels_BHWC[begin : begin + self.batch] for begin in self.list_begins()]
        list(self.encoders.map(lambda part: encode_pixels(self.encoder, part), parts))

    def run_whole(self) -> None:
        """Decode and encode all photos, with a few batches between the decoders and the encoder."""
        decoded: deque[Future[Pixels]] = deque()
        encoded: deque[Future[object]] = deque()
        for begin in self.list_begins():
            decoded.append(self.decoders.submit(self.decode_batch, begin))
            if len(decoded) > 2 * self.decoders._max_workers:
                encoded.append(self.encoders.submit(self.encode_decoded, decoded.popleft()))
            if len(encoded) > 2 * self.encoders._max_workers:
                encoded.popleft().result()
        encoded.extend(self.encoders.submit(self.encode_decoded, future) for future in decoded)
        for task in encoded:
            task.result()

    def run_bare(self) -> None:
        """Run the networks alone."""
        for computation in self.computations:
            computation.run()

    def list_begins(self) -> range:
        """List the index of the first photo of each batch."""
        return range(0, len(self.files), self.batch)

    def decode_batch(self, begin: int) -> Pixels:
        """Decode one batch, as an ingest does, with a thumbnail."""
        spec, limits = self.encoder.image_spec, DecodeLimits()
        files = self.files[begin : begin + self.batch]
        return np.stack([decode_image(data, spec, limits, THUMBNAIL_PX).pixels_HWC for data in files])

    def encode_decoded(self, decoded: Future[Pixels]) -> object:
        """Encode a batch as soon as it is decoded."""
        return encode_pixels(self.encoder, decoded.result())


def encode_pixels(encoder: Encoder, pixels_BHWC: Pixels) -> object:
    """Encode images as tokens, or as dense vectors with a model that has no tokens."""
    return encoder.encode_images(pixels_BHWC) if encoder.card.has_tokens else encoder.encode_images_dense(pixels_BHWC)


def capture_computations(encoder: Encoder, images: int) -> list[Computation]:
    """Return all networks that encode random images, with their inputs on the device."""
    side_px = encoder.image_spec.size_px
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (images, side_px, side_px, 3), np.uint8)
    with record_runs() as runs:
        encode_pixels(encoder, pixels_BHWC)
    return [build_computation(*run) for run in runs]


@contextmanager
def record_runs() -> Iterator[list[tuple[TorchDevice, Any, Any, dict[str, Any]]]]:
    """Record what networks are run with in this context."""
    runs: list[tuple[TorchDevice, Any, Any, dict[str, Any]]] = []
    run_chunks: Any = TorchDevice.run_chunks

    def record(device: TorchDevice, inputs: Any, compute: Any, **options: Any) -> Any:  # noqa: ANN401
        runs.append((device, inputs, compute, options))
        return run_chunks(device, inputs, compute, **options)

    with patch.object(TorchDevice, "run_chunks", record):
        yield runs


def build_computation(device: TorchDevice, inputs: Any, compute: Any, options: dict[str, Any]) -> Computation:  # noqa: ANN401
    """Move the inputs of a network to its device."""
    is_on_cpu = device.name == "cpu"
    size = options.get("cpu_chunk", CPU_CHUNK) if is_on_cpu else device._sizes[options.get("kind", "images")].items
    stage = options.get("stage") or (lambda part: torch.from_numpy(part).to(device.name))
    chunks = [stage(inputs[begin : begin + size]) for begin in range(0, len(inputs), size)]
    return Computation(device=device, compute=compute, chunks=chunks)


def measure_rounds(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return images/s of each loop in each round, after one to warm up."""
    loops = {DECODE: bench.decode, ENCODE: bench.encode, WHOLE: bench.run_whole, BARE: bench.run_bare}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            began_s = time.perf_counter()
            loop()
            if turn:
                rates[name].append(len(bench.files) / (time.perf_counter() - began_s))
    return rates


def build_result(about: str, rates: dict[str, list[float]], cores: int, *, is_on_gpu: bool) -> Result:
    """Return a row for each loop."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [Ratio(what="encoding images", against="the bare network", value=medians[ENCODE] / medians[BARE], goal=GOAL)]
    if is_on_gpu:
        slower = min(medians[DECODE], medians[ENCODE])
        what = "decoding and encoding at once"
        ratios.append(Ratio(what=what, against="the slower of both", value=medians[WHOLE] / slower, goal=GOAL))
    needed = medians[ENCODE] / (medians[DECODE] / cores)
    return Result(
        about=about,
        tables=(
            ReportTable(
                head=("", "images/s", "ratio to bare"),
                rows=tuple((name, f"{rate:.1f}", f"{rate / medians[BARE]:.2f}") for name, rate in medians.items()),
            ),
        ),
        ratios=tuple(ratios),
        remarks=(f"decoding these photos as fast as they are encoded takes {needed:.1f} cores like these",),
        figures={"images_per_s": medians, "rounds": rates},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    parser.add_argument("--device", default="", help="cpu, or a GPU such as cuda:1 (default: the first GPU, or the CPU)")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=256, help="images per call of the encoder (default: %(default)s)")
    parser.add_argument("--decoders", type=int, default=count_usable_cores(), help="threads (default: one per core)")
    parser.add_argument("--encoders", type=int, default=2, help="threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with ExitStack() as stack:
        bench = open_bench(args, stack)
        rates = measure_rounds(bench, args.rounds)
    device = bench.computations[0].device
    where = "CPU" if device.name == "cpu" else f"{torch.cuda.get_device_name(device.name)} ({device.name})"
    precision = str(device.dtype).removeprefix("torch.")
    about = (
        f"{args.model} in {precision} on {where}, PyTorch {torch.__version__}, {args.images} images in batches of {args.batch},"
        f" {args.decoders} decoding and {args.encoders} encoding threads, median of {args.rounds} rounds"
    )
    cores = min(args.decoders, count_usable_cores())
    publish_result(build_result(about, rates, cores, is_on_gpu=device.name != "cpu"), args.json)


def open_bench(args: argparse.Namespace, stack: ExitStack) -> Bench:
    """Load the model and the photos."""
    spec = ModelSpec(name=args.model, backend="torch", device=args.device, precision=args.precision)
    encoder = registry.load_encoder(spec)
    photos = [path.read_bytes() for path in list_photos()]
    files = [photos[index % len(photos)] for index in range(args.images)]
    decoded = [decode_image(data, encoder.image_spec, DecodeLimits()).pixels_HWC for data in photos[: args.images]]
    return Bench(
        encoder=encoder,
        files=files,
        pixels_BHWC=np.stack([decoded[index % len(decoded)] for index in range(args.images)]),
        batch=args.batch,
        decoders=stack.enter_context(ThreadPoolExecutor(args.decoders)),
        encoders=stack.enter_context(ThreadPoolExecutor(args.encoders)),
        computations=capture_computations(encoder, args.images),
    )


if __name__ == "__main__":
    main()
