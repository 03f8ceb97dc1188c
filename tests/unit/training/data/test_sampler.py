"""Which pairs stand in a batch, and with which captions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from stair_es.errors import UsageError
from stair_es.sources.io.local_file import FileLocator
from stair_es.training.data.dataset import TrainingPair, TrainingSet
from stair_es.training.data.sampler import BatchSampler, SampleIndex, split_batch

GROUPS = [number % 11 for number in range(40)]


def test_groups_are_unique_in_batches_and_items_in_passes() -> None:
    seen: list[SampleIndex] = []
    for batch in islice(BatchSampler(GROUPS, 8, seed=1).iterate_batches(), 20):
        assert len({GROUPS[draw.item] for draw in batch}) == 8
        seen += batch
    assert len(set(seen)) == len(seen)  # an item again only in another turn
    assert {draw.epoch for draw in seen} >= {0, 1, 2, 3}
    assert {draw.item for draw in seen} == set(range(40))


def test_delayed_pairs_stay_in_their_pass() -> None:
    batches = list(islice(BatchSampler([0, 0, 1, 1], 2, seed=0).iterate_batches(), 2))
    assert {draw.item for batch in batches for draw in batch} == {0, 1, 2, 3}


@pytest.mark.parametrize("begin", [1, 4, 13])
def test_beginning_later_is_skipping(begin: int) -> None:
    sampler = BatchSampler(GROUPS, 8, seed=1)
    assert list(islice(sampler.iterate_batches(begin), 5)) == list(islice(sampler.iterate_batches(), begin, begin + 5))


def test_the_seed_decides() -> None:
    def first(seed: int) -> list[tuple[SampleIndex, ...]]:
        return list(islice(BatchSampler(GROUPS, 8, seed).iterate_batches(), 3))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_too_few_groups_are_rejected() -> None:
    with pytest.raises(UsageError, match="a batch of 12 requires 12 different captions, but the training set has 11") as caught:
        BatchSampler(GROUPS, 12, seed=0)
    assert "batch.size" in caught.value.remedy


def test_workers_share_a_batch_without_rest() -> None:
    batch = tuple(SampleIndex(item, 0) for item in range(6))
    assert [draw for rank in range(3) for draw in split_batch(batch, rank, 3)] == list(batch)
    with pytest.raises(UsageError, match="6 can't be divided among 4"):
        split_batch(batch, 0, 4)


def test_captions_are_a_function_of_seed_and_draw() -> None:
    pytest.importorskip("torch")
    from stair_es.training.data.collate import CaptionSampler

    captions = tuple(f"caption {number}" for number in range(5))
    pairs = TrainingSet.from_pairs([TrainingPair(f"{item}", FileLocator(f"/{item}"), captions, ("tag",)) for item in range(4)])
    wording = CaptionSampler(captions=pairs, seed=2, texts_per_image=3)
    texts = [wording.choose_caption(SampleIndex(item, turn)) for item in range(4) for turn in range(30)]
    assert texts == [wording.choose_caption(SampleIndex(item, turn)) for item in range(4) for turn in range(30)]
    assert texts != [
        CaptionSampler(captions=pairs, seed=3, texts_per_image=3).choose_caption(SampleIndex(i, t))
        for i in range(4)
        for t in range(30)
    ]
    assert set(texts) <= wording.collect_captions()
    for item in range(4):
        assert 1 < len(set(texts[30 * item : 30 * item + 30])) <= 3
    tagged = np.mean([text.endswith(", tag") for text in wording.collect_captions()])
    assert 0 < tagged < 1
    pairs.tag_share = 0.0
    assert not any(text.endswith("tag") for text in wording.collect_captions())
