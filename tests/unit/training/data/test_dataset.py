"""Sets of pairs for training: formats, bad pairs counted by reason, reproducible captions."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.sources.base import Locator
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.io.object_store import TarMemberLocator
from stair_es.training.data.dataset import (
    PairFile,
    TrainingPair,
    TrainingSet,
    read_image_bytes,
    read_pairs,
    sample_caption,
)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_of_several_sets(image_folder: Path) -> None:
    first = write_rows(
        image_folder / "one.jsonl",
        {"image": "a.jpg", "caption": "one", "tags": ["x", "y"]},
        {"image": "a.jpg", "caption": "uno"},
        {"image": "b.jpg", "caption": "two"},
        {"image": "a.jpg", "captions": ["one", "ein"], "tags": "z"},
        {"image": "b.jpg", "caption": "zwei"},
    )
    karpathy = image_folder / "dataset_x.json"
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


def test_bad_pairs_are_counted_by_reason(image_folder: Path) -> None:
    rows: list[object] = [{"image": f"gone{number}.jpg", "caption": "x"} for number in range(20)]
    rows += [{"image": "a.jpg", "caption": "one"}, {"image": "b.jpg"}, {"caption": "x"}, []]
    path = write_rows(image_folder / "set.jsonl", *rows)
    with path.open("a") as file:
        file.write("no json\n{also none\n")
    result = read_pairs([PairFile(path=path)])
    assert len(result) == 1
    assert sorted(result.problems.counts.values()) == [1, 1, 1, 2, 20]
    assert all(len(examples) <= 5 for examples in result.problems.examples.values())
    [most_frequent, *_] = result.problems.format_lines()
    assert most_frequent.startswith("20 ")
    assert "gone0.jpg" in most_frequent


def test_a_set_without_a_pair_is_an_error(image_folder: Path) -> None:
    good = write_rows(image_folder / "good.jsonl", {"image": "a.jpg", "caption": "one"})
    bad = write_rows(image_folder / "bad.jsonl", {"image": "gone.jpg", "caption": "one"})
    missing = image_folder / "missing.jsonl"
    for files, fact in (([good, bad], "bad.jsonl: gone.jpg"), ([missing], "missing.jsonl")):
        with expect_error("dataset-error") as caught:
            read_pairs([PairFile(path=path) for path in files])
        assert fact in caught.value.message


def test_every_locator_is_restored_unchanged() -> None:
    locators: list[Locator] = [
        FileLocator("file:///x/%C3%A4.jpg"),
        TarMemberLocator("file:///x/0.tar", 512, 7, "7-1"),
        FileLocator("file:///y.jpg"),
    ]
    pairs = [TrainingPair(f"ä{number}", locator, ("ö", "b"), ("t",) * number) for number, locator in enumerate(locators)]
    rejected = [TrainingPair("inline", InlineBytes(b"x"), ("a",)), TrainingPair("surrogate", locators[0], ("\ud800",))]
    result = TrainingSet.from_pairs([*pairs, *rejected, TrainingPair("caf\udce9", locators[0], ("a",))])
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
    texts = [sample_caption(pair, np.random.default_rng(seed)) for seed in range(4000)]
    assert texts == [sample_caption(pair, np.random.default_rng(seed)) for seed in range(4000)]
    assert {text.count(",") for text in texts} == {0, 1, 2, 3, 4}
    assert 0.46 < sum("," not in text for text in texts) / 4000 < 0.54
    assert 0.46 < sum(text.startswith("one") for text in texts) / 4000 < 0.54
    for text in texts:
        first, *tags = text.split(", ")
        assert first in pair.captions
        assert len(set(tags)) == len(tags)
        assert set(tags) <= set(pair.tags)
    rng = np.random.default_rng(1)
    assert {sample_caption(pair, rng, tag_share=0.0) for _ in range(100)} == {"one", "two"}
    assert all("," in sample_caption(pair, rng, tag_share=1.0) for _ in range(100))
    training_set = TrainingSet.from_pairs([pair])
    assert training_set.sample_caption(0, np.random.default_rng(5)) == texts[5]
    training_set.tag_share = 1.0
    assert all("," in training_set.select_pairs([0]).sample_caption(0, rng) for _ in range(100))
    assert sample_caption(TrainingPair("b", pair.locator, ("only",)), rng) == "only"


def test_an_unreadable_locator_is_a_read_error(tmp_path: Path) -> None:
    with expect_error("file-unreadable"):
        read_image_bytes(FileLocator((tmp_path / "gone.jpg").as_uri()))
    with expect_error("object-unreadable"):
        read_image_bytes(TarMemberLocator((tmp_path / "gone.tar").as_uri(), 0, 3))


def test_large_sets_use_little_memory() -> None:
    pairs = (
        TrainingPair(f"{number:06d}.jpg", FileLocator(f"file:///images/{number:06d}.jpg"), ("ten words " * 5,))
        for number in range(20_000)
    )
    result = TrainingSet.from_pairs(pairs)
    assert result.nbytes / len(result) < 150
    assert result[19_999].name == "019999.jpg"
