"""Measure what training on shards needs before and while it runs: time, memory, and CPU time per image.

    python benchmarks/train_shards.py                              # 20,000 names of four tars: as many pairs as 100 million
    python benchmarks/train_shards.py --names 100 --seconds 2

The tars have the bundled photos with captions. The names are links to them, so that a set of any size fits on a disk. Start is
the time from the configuration to the first batch. Memory is the USS, which would be free if the process ended: of each reader,
and of the training process beyond what it has before. CPU time of a reader is compared with decoding and augmenting the same
images from memory. For comparison, the same tars are listed as captions, as for a small set, which costs each worker time and
memory per pair.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import torch
from harness.photos import list_photos
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

from stair_es.model.stair.modeling import TextBatch
from stair_es.training.config.train_config import TrainConfig, build_train_config
from stair_es.training.data.batches import build_shard_batches
from stair_es.training.data.collate import make_image_rng
from stair_es.training.data.dataset import PairFile, ProblemCounter, read_pairs
from stair_es.training.data.shards import build_shard_sources
from stair_es.training.data.transforms import augment_image, get_augmentation
from stair_es.training.workers import SingleProcess
from stair_es.types import ImageSpec

TARS, BATCH, SIZE_PX, READERS = 4, 256, 224, 4
_MB = 1 << 20


class NoTexts:
    """Texts aren't tokenized: that is the same in any training."""

    def load_batch(self, texts: Sequence[str]) -> TextBatch:
        """Return a batch of one token each."""
        ones = torch.ones(len(texts), 1, dtype=torch.int64)
        return TextBatch(ones, ones.bool(), ones)


def write_tars(folder: Path, pairs: int) -> None:
    """Write tars of `pairs` photos each."""
    photos = [path.read_bytes() for path in list_photos()]
    for number in range(TARS):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for index, data in enumerate(islice(cycle(photos), pairs)):
                for suffix, content in (("jpg", data), ("txt", f"a photo of number {index} in tar {number}".encode())):
                    info = tarfile.TarInfo(f"{number}{index:06}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def build_config(folder: Path, shards: str) -> TrainConfig:
    """Return a configuration of these shards with small networks, which aren't built."""
    backbone = {"kind": "transformers", "name": "", "config": {"model_type": "vit"}}
    values = {
        "name": "shards",
        "model": {
            "image": {"backbone": backbone, "size_px": SIZE_PX, "mean": [0.5] * 3, "std": [0.5] * 3},
            "text": {"backbone": {**backbone, "config": {"model_type": "bert"}}},
        },
        "data": {"train": [{"shards": shards}], "augment": "light", "readers": READERS},
        "batch": {"size": BATCH},
        "recipe": {"name": "grounded"},
    }
    return build_train_config(values, folder, "")


def measure_stream(config: TrainConfig, seconds: float) -> dict[str, float]:
    """Return seconds until the first batch, memory in MB, and images and CPU seconds while it reads."""
    process = psutil.Process()
    before, start = process.memory_full_info().uss, time.perf_counter()
    batches = build_shard_batches(
        config, build_shard_sources(config), NoTexts(), None, SingleProcess(), ProblemCounter()
    ).iterate_batches(0)
    next(batches)
    start_s = time.perf_counter() - start
    readers = process.children()
    cpu, begin, images = sum(sum(each.cpu_times()[:2]) for each in readers), time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        images += len(next(batches))
    return {
        "start_s": start_s,
        "images": images,
        "cpu_s": sum(sum(each.cpu_times()[:2]) for each in readers) - cpu,
        "reader_mb": max(each.memory_full_info().uss for each in readers) / _MB,
        "own_mb": max(0, process.memory_full_info().uss - before) / _MB,
    }


def measure_decoding(images: int) -> float:
    """Return the CPU seconds per image of decoding and augmenting alone."""
    spec, augmentation, photos = (
        ImageSpec(size_px=SIZE_PX),
        get_augmentation("light"),
        [path.read_bytes() for path in list_photos()],
    )
    start = time.process_time()
    for number in range(images):
        augment_image(photos[number % len(photos)], spec, augmentation, make_image_rng(0, number, 0))
    return (time.process_time() - start) / images


def measure_listing(folder: Path) -> tuple[float, float]:
    """Return CPU seconds and bytes per pair of listing the tars in memory."""
    start = time.process_time()
    pairs = read_pairs([PairFile(path=folder / f"{number}.tar") for number in range(TARS)])
    return (time.process_time() - start) / len(pairs), pairs.nbytes / len(pairs)


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--names", type=int, default=20_000, help="names of shards")
    parser.add_argument("--pairs", type=int, default=5_000, help="pairs per shard")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to read")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stair-es-shards-") as name:
        folder = Path(name)
        write_tars(folder, args.pairs)
        for number in range(args.names):
            (folder / f"link-{number:06}.tar").symlink_to(folder / f"{number % TARS}.tar")
        stream = measure_stream(build_config(folder, f"link-{{000000..{args.names - 1:06}}}.tar"), args.seconds)
        listing_s, listing_bytes = measure_listing(folder)
    decode_s = float(np.median([measure_decoding(200) for _ in range(3)]))
    pairs = args.names * args.pairs
    cpu_s = stream["cpu_s"] / max(1, stream["images"])
    rows = (
        ("seconds until the first batch", f"{stream['start_s']:.1f}", f"{listing_s * pairs:,.0f} (computed)"),
        ("MB of the training process", f"{stream['own_mb']:,.0f}", f"{listing_bytes * pairs / _MB:,.0f} (computed)"),
        (f"MB of each of {READERS} readers", f"{stream['reader_mb']:,.0f}", ""),
        ("CPU ms per image", f"{1e3 * cpu_s:.2f}", f"{1e3 * decode_s:.2f} (decoding alone)"),
    )
    result = Result(
        about=f"{pairs:,} pairs in {args.names:,} shards, batches of {BATCH} at {SIZE_PX} px",
        tables=(ReportTable(head=("metric", "shards", "listed as captions"), rows=rows),),
        ratios=(
            Ratio(what="CPU time per image", against="decoding alone", value=cpu_s / decode_s, goal=1.1, at_most=True),
            Ratio(what="seconds until the first batch", against="", value=stream["start_s"], goal=4, at_most=True),
            Ratio(
                what="MB of a worker with its readers",
                against="",
                value=stream["own_mb"] + READERS * stream["reader_mb"],
                goal=400,
                at_most=True,
            ),
        ),
        figures={**stream, "decode_s": decode_s, "listing_s": listing_s, "listing_bytes": listing_bytes},
    )
    publish_result(result, args.json)


if __name__ == "__main__":
    main()
