"""Sets of pairs for training: every form in, bad pairs counted by reason, the same captions for the same generator."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import Locator
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.io.object_store import TarMemberLocator
from stair_es.training.data.dataset import (
    PairFile,
    ProblemCounter,
    TrainingPair,
    TrainingSet,
    read_image_bytes,
    read_pairs,
    sample_caption,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_of_several_sets(folder: Path) -> None:
    first = lines(
        folder / "one.jsonl",
        {"image": "a.jpg", "caption": "one", "tags": ["x", "y"]},
        {"image": "a.jpg", "caption": "uno"},
        {"image": "b.jpg", "caption": "two"},
        {"image": "a.jpg", "captions": ["one", "ein"], "tags": "z"},
        {"image": "b.jpg", "caption": "zwei"},
    )
    karpathy = folder / "dataset_x.json"
    splits = {"a": "train", "c": "val", "b": "restval"}
    images = [{"filename": f"{name}.jpg", "split": split, "sentences": [{"raw": name}]} for name, split in splits.items()]
    karpathy.write_text(json.dumps({"images": images}))
    result = read_pairs([PairFile(path=first), PairFile(path=karpathy, split="train+restval")])
    assert [(pair.name, pair.captions, pair.tags) for pair in result] == [
        ("1/a.jpg", ("one", "uno", "ein"), ("x", "y", "z")),
        ("1/b.jpg", ("two", "zwei"), ()),
        ("2/a.jpg", ("a",), ()),
        ("2/b.jpg", ("b",), ()),
    ]
    assert [read_image_bytes(pair.locator) for pair in result] == [b"a.jpg", b"b.jpg"] * 2
    assert result.problems.format_lines() == []


def test_bad_pairs_are_counted_by_reason(folder: Path) -> None:
    rows = [{"image": f"gone{number}.jpg", "caption": "x"} for number in range(20)]
    path = lines(folder / "set.jsonl", {"image": "a.jpg", "caption": "one"}, *rows, {"image": "b.jpg"}, {"caption": "x"}, [])
    with path.open("a") as file:
        file.write("no json\n{also none\n")
    result = read_pairs([PairFile(path=path)])
    assert len(result) == 1
    assert result.problems.counts == {
        f"no such file in {folder}".replace(*_digits(folder)): 20,
        "no caption": 1,
        "no image (a path in `image` or `file`)": 1,
        "not a JSON object": 1,
        "not JSON": 2,
    }
    assert all(len(examples) <= 5 for examples in result.problems.examples.values())
    assert result.problems.format_lines()[0].startswith("20 left out: no such file")
    assert "gone0.jpg" in result.problems.format_lines()[0]


def _digits(folder: Path) -> tuple[str, str]:
    """What reasons have in place of numbers, so that `line 3` and `line 4` are one."""
    problems = ProblemCounter()
    problems.add_problem("", str(folder))
    return str(folder), next(iter(problems.counts))


def test_a_set_without_a_pair_is_an_error(folder: Path) -> None:
    good = lines(folder / "good.jsonl", {"image": "a.jpg", "caption": "one"})
    bad = lines(folder / "bad.jsonl", {"image": "gone.jpg", "caption": "one"})
    with pytest.raises(UsageError, match=r"bad\.jsonl: gone\.jpg"):
        read_pairs([PairFile(path=good), PairFile(path=bad)])
    with pytest.raises(UsageError):
        read_pairs([PairFile(path=folder / "none.jsonl")])


def test_every_locator_is_restored_unchanged() -> None:
    indices: list[Locator] = [
        FileLocator("file:///x/%C3%A4.jpg"),
        TarMemberLocator("file:///x/0.tar", 512, 7, "7-1"),
        FileLocator("file:///y.jpg"),
    ]
    pairs = [TrainingPair(f"ä{number}", index, ("ö", "b"), ("t",) * number) for number, index in enumerate(indices)]
    odd = [
        TrainingPair("held", InlineBytes(b"x"), ("a",)),
        TrainingPair("odd", indices[0], ("\ud800",)),
        TrainingPair("caf\udce9", indices[0], ("a",)),
    ]
    result = TrainingSet.from_pairs([*pairs, *odd])
    assert list(result)[:3] == pairs
    assert result[3].name == "caf\\udce9"
    assert sum(result.problems.counts.values()) == 2
    loaded = pickle.loads(pickle.dumps(result))
    assert list(loaded) == list(result)


def test_sets_without_some_pairs() -> None:
    result = TrainingSet.from_pairs(
        TrainingPair(str(number), FileLocator(f"file:///{number}"), (f"text {number}",)) for number in range(10)
    )
    fewer = result.exclude_pairs({3: "same as test/1", 0: "can't be read: gone"})
    assert [pair.name for pair in fewer] == ["1", "2", "4", "5", "6", "7", "8", "9"]
    assert fewer.exclude_pairs({0: "x"})[0].name == "2"
    assert [pair.name for pair in fewer.select_pairs([7, 0])] == ["9", "1"]
    assert len(result) == 10
    assert result.problems.counts["can't be read"] == 1
    with pytest.raises(IndexError):
        fewer[8]
    assert fewer[-1].name == "9"


def test_caption_samples_are_reproducible() -> None:
    pair = TrainingPair("a", FileLocator("file:///a"), ("one", "two"), ("r", "s", "t", "u", "v", "w"))
    drawn = [sample_caption(pair, np.random.default_rng(seed)) for seed in range(4000)]
    assert drawn == [sample_caption(pair, np.random.default_rng(seed)) for seed in range(4000)]
    counts = {text.count(",") for text in drawn}
    assert counts == {0, 1, 2, 3, 4}
    assert 0.46 < sum(text.count(",") == 0 for text in drawn) / 4000 < 0.54
    assert 0.46 < sum(text.startswith("one") for text in drawn) / 4000 < 0.54
    for text in drawn:
        first, *tags = text.split(", ")
        assert first in pair.captions
        assert len(set(tags)) == len(tags)
        assert set(tags) <= set(pair.tags)
    rng = np.random.default_rng(1)
    assert {sample_caption(pair, rng, tag_share=0.0) for _ in range(100)} == {"one", "two"}
    assert all("," in sample_caption(pair, rng, tag_share=1.0) for _ in range(100))
    held = TrainingSet.from_pairs([pair])
    assert held.sample_caption(0, np.random.default_rng(5)) == drawn[5]
    held.tag_share = 1.0
    assert all("," in held.select_pairs([0]).sample_caption(0, rng) for _ in range(100))
    assert sample_caption(TrainingPair("b", pair.locator, ("only",)), rng) == "only"


def test_an_unreadable_locator_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        read_image_bytes(FileLocator((tmp_path / "gone.jpg").as_uri()))
    with pytest.raises(ReadError):
        read_image_bytes(TarMemberLocator((tmp_path / "gone.tar").as_uri(), 0, 3))


def test_large_sets_use_little_memory() -> None:
    pairs = (
        TrainingPair(f"{number:06d}.jpg", FileLocator(f"file:///images/{number:06d}.jpg"), ("ten words " * 5,))
        for number in range(20_000)
    )
    result = TrainingSet.from_pairs(pairs)
    assert result.nbytes / len(result) < 150
    assert result[19_999].name == "019999.jpg"
