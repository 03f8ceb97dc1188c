"""Shards: the order in which readers get the samples, places to continue from, and samples that can't be used."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.errors import expect_error
from support.models import tiny_training
from support.models.tiny_training import write_tar

pytest.importorskip("torch")

from stair_es.eval.datasets.entry import InvalidEntry
from stair_es.training.data import batches
from stair_es.training.data.batches import ReaderState, ShardReader
from stair_es.training.data.shards import (
    ShardPosition,
    ShardSample,
    ShardSource,
    ShardStream,
    build_shard_sources,
    count_readers,
)
from stair_es.training.data.transforms import NO_AUGMENTATION
from stair_es.types import ImageSpec

SHARDS, PER_SHARD = 7, 5
BEGIN = ShardPosition()
NAMES = {f"{shard}.tar#{shard}-{number}.png" for shard in range(SHARDS) for number in range(PER_SHARD)}


@pytest.fixture
def source(tmp_path: Path) -> ShardSource:
    """35 samples in 7 shards: the images are only their own names."""
    for shard in range(SHARDS):
        files = list[tuple[str, bytes]]()
        for number in range(PER_SHARD):
            name = f"{shard}-{number}"
            files += [(f"{name}.png", name.encode()), (f"{name}.txt", f"caption {name}".encode())]
        write_tar(tmp_path / f"{shard}.tar", files)
    return ShardSource(shards=tuple(str(tmp_path / f"{shard}.tar") for shard in range(SHARDS)), weight=1.0)


def open_stream(source: ShardSource, reader: int = 0, readers: int = 1, **changes: Any) -> ShardStream:  # noqa: ANN401
    return ShardStream(**{"source": source, "seed": 1, "reader": reader, "readers": readers, "window": 3, **changes})


def take(stream: ShardStream, count: int, position: ShardPosition = BEGIN) -> list[ShardSample | InvalidEntry]:
    return list(islice(stream.iterate_samples(position), count))


def list_names(samples: list[ShardSample | InvalidEntry]) -> list[str]:
    return [each.entry.name for each in samples if isinstance(each, ShardSample)]


@pytest.mark.parametrize("readers", [1, 3, 7])
def test_readers_share_the_samples_of_each_epoch(source: ShardSource, readers: int) -> None:
    epochs: list[list[str]] = []
    for epoch in range(2):
        names = []
        for reader in range(readers):
            samples = take(open_stream(source, reader, readers), 2 * len(NAMES))
            names += [each.entry.name for each in samples if isinstance(each, ShardSample) and each.position.epoch == epoch]
        assert Counter(names) == Counter(NAMES)
        epochs.append(names)
    assert epochs[0] != epochs[1]


def test_the_seed_decides_the_order_and_windows_are_shuffled(source: ShardSource) -> None:
    one, same, other = (list_names(take(open_stream(source, seed=seed), 35)) for seed in (1, 1, 2))
    assert one == same != other
    assert {name[0] for name in one[:3]} == {one[0][0]}  # of one shard
    numbers = [int(name.partition("-")[2][0]) for name in one]
    assert any(numbers[begin : begin + 3] != sorted(numbers[begin : begin + 3]) for begin in range(0, 35, 5))


def test_reading_goes_on_from_every_place(source: ShardSource) -> None:
    stream = open_stream(source, reader=1, readers=2)
    straight = take(stream, 40)
    for count, sample in enumerate(straight[:-5], 1):
        assert isinstance(sample, ShardSample)
        assert take(stream, 5, sample.position) == straight[count : count + 5]


def test_unusable_entries_are_named_once(source: ShardSource, tmp_path: Path) -> None:
    tar = tmp_path / "2.tar"
    tar.write_bytes(tar.read_bytes()[: 512 * 9])  # two samples and a half
    write_tar(tmp_path / "3.tar", [("x.png", b"x"), ("y.png", b"y"), ("y.txt", b"a caption")])
    (tmp_path / "4.tar").unlink()
    stream = open_stream(source)
    straight = take(stream, 60)
    epoch = [each for each in straight if isinstance(each, InvalidEntry) or not each.position.epoch]
    assert len(list_names(epoch)) == 4 * PER_SHARD + 2 + 1
    problems = [str(each) for each in epoch if isinstance(each, InvalidEntry)]
    for name, reason in (("2.tar", "rest of the tar"), ("3.tar#x.png", "no caption"), ("4.tar", "can't be read")):
        assert [problem for problem in problems if name in problem and reason in problem] != []
    for count, sample in enumerate(straight[:40], 1):
        if isinstance(sample, ShardSample):
            assert take(stream, 6, sample.position) == straight[count : count + 6]


@pytest.mark.parametrize(
    "files", [[], [("a.png", b"no caption")], [("a.txt", b"no image")]], ids=["empty", "no captions", "no images"]
)
def test_shards_without_samples_end_with_the_reason(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    write_tar(tmp_path / "a.tar", files)
    source = ShardSource(shards=(str(tmp_path / "a.tar"), str(tmp_path / "missing.tar")), weight=1.0)
    with expect_error("shards-unreadable") as caught:
        take(open_stream(source), 50)
    assert "missing.tar" in caught.value.message or "a.tar" in caught.value.message


def test_names_of_shards_are_expanded_or_listed(source: ShardSource, tmp_path: Path) -> None:
    tiny_training.write_set(tmp_path)

    def list_shards(*shards: str, **more: Any) -> list[tuple[list[str], float]]:  # noqa: ANN401
        changes = {"data.train": [{"shards": each, **more} for each in shards]}
        sources = build_shard_sources(tiny_training.read_config(tmp_path, changes))
        return [([shard.rpartition("/")[2] for shard in each.shards], each.weight) for each in sources]

    assert list_shards("{3..5}.tar", "s3://bucket/{00..12}/x.tar.gz") == [
        (["3.tar", "4.tar", "5.tar"], 3.0),
        (["x.tar.gz"] * 13, 13.0),
    ]
    assert list_shards("[0-2].tar", weight=0.5) == [(["0.tar", "1.tar", "2.tar"], 0.5)]
    assert list_shards(".") == [([f"{shard}.tar" for shard in range(SHARDS)], 7.0)]
    assert build_shard_sources(tiny_training.read_config(tmp_path)) == ()
    for shards, code in (("nothing/*.tar", "no-such-file"), ("{1..", "invalid-brace-pattern")):
        with expect_error(code):
            list_shards(shards)


def test_readers_are_at_most_as_many_as_shards_and_pairs(source: ShardSource) -> None:
    assert count_readers([source], readers=4, workers=1, pairs_per_worker=64) == 4
    assert count_readers([source], readers=4, workers=3, pairs_per_worker=64) == 2
    assert count_readers([source], readers=4, workers=1, pairs_per_worker=2) == 2
    with expect_error("config-error"):
        count_readers([source], readers=4, workers=8, pairs_per_worker=64)


def open_reader(folder: Path, weights: tuple[float, ...] = (1.0,), **changes: Any) -> ShardReader:  # noqa: ANN401
    """A reader of the tiny set's shards, once per weight."""
    tiny_training.write_set(folder)
    tiny_training.write_shards(folder)
    shards = tuple(str(path) for path in sorted((folder / "shards").iterdir()))
    streams = tuple(open_stream(ShardSource(shards=shards, weight=weight), seed=number) for number, weight in enumerate(weights))
    values = {
        "streams": streams,
        "weights": weights,
        "size": 4,
        "specs": (ImageSpec(size_px=8),),
        "augment": NO_AUGMENTATION,
        "seed": 1,
        "tag_share": 0.5,
    }
    return ShardReader(**{**values, **changes})


def test_parts_go_on_from_every_state(tmp_path: Path) -> None:
    reader = open_reader(tmp_path, (0.75, 0.25), specs=(ImageSpec(size_px=8), ImageSpec(size_px=12)))
    begin = ReaderState(0, (ShardPosition(), ShardPosition()))
    straight = list(islice(reader.iterate_parts(begin), 12))
    assert [pixels.shape for pixels in straight[0].pixels] == [(4, 8, 8, 3), (4, 12, 12, 3)]
    for count, part in enumerate(straight[:-1], 1):
        following = next(reader.iterate_parts(part.state))
        assert (following.captions, following.state) == (straight[count].captions, straight[count].state)
        assert all(np.array_equal(*pair) for pair in zip(following.pixels, straight[count].pixels, strict=True))
    [often, seldom] = straight[-1].state.positions
    assert often > seldom


def test_a_reader_gives_up_only_if_hardly_anything_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_reader(tmp_path)
    rows = [json.dumps({"caption": f"broken {number}"}).encode() for number in range(9)]
    write_tar(
        tmp_path / "shards" / "001.tar",
        [each for number, row in enumerate(rows) for each in ((f"{number}.png", b"broken"), (f"{number}.json", row))],
    )
    parts = list(islice(reader.iterate_parts(ReaderState(0, (ShardPosition(),))), 8))
    assert sum(len(part.problems) for part in parts) in (9, 18)
    monkeypatch.setattr(batches, "_MAX_UNUSABLE", 9)
    with expect_error("pair-unreadable") as caught:
        list(islice(reader.iterate_parts(ReaderState(0, (ShardPosition(),))), 8))
    assert "001.tar#" in caught.value.message
