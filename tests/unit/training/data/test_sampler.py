"""Pairs of a batch, and their captions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.sources.io.local_file import FileLocator
from stair_es.training.data.dataset import TrainingPair, TrainingSet
from stair_es.training.data.sampler import BatchSampler, SampleIndex, split_batch

GROUPS = [number % 11 for number in range(40)]


def test_groups_are_unique_in_batches_and_items_in_epochs() -> None:
    samples: list[SampleIndex] = []
    for batch in islice(BatchSampler(GROUPS, 8, seed=1).iterate_batches(), 20):
        assert len({GROUPS[sample.item] for sample in batch}) == 8
        samples += batch
    assert len(set(samples)) == len(samples)  # an item again only in another epoch
    assert {sample.epoch for sample in samples} >= {0, 1, 2, 3}
    assert {sample.item for sample in samples} == set(range(40))


def test_delayed_pairs_stay_in_their_epoch() -> None:
    batches = list(islice(BatchSampler([0, 0, 1, 1], 2, seed=0).iterate_batches(), 2))
    assert {sample.item for batch in batches for sample in batch} == {0, 1, 2, 3}


@pytest.mark.parametrize("begin", [1, 4, 13])
def test_beginning_later_is_skipping(begin: int) -> None:
    sampler = BatchSampler(GROUPS, 8, seed=1)
    assert list(islice(sampler.iterate_batches(begin), 5)) == list(islice(sampler.iterate_batches(), begin, begin + 5))


def test_the_seed_decides() -> None:
    first, second, other = (list(islice(BatchSampler(GROUPS, 8, seed).iterate_batches(), 3)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_too_few_groups_are_rejected() -> None:
    with expect_error("config-error") as caught:
        BatchSampler(GROUPS, 12, seed=0)
    assert [fact for fact in ("12", "11") if fact not in caught.value.message] == []
    assert "batch.size" in caught.value.remedy


def test_workers_share_a_batch_without_rest() -> None:
    batch = tuple(SampleIndex(item, 0) for item in range(6))
    assert [sample for rank in range(3) for sample in split_batch(batch, rank, 3)] == list(batch)
    with expect_error("config-error") as caught:
        split_batch(batch, 0, 4)
    assert [fact for fact in ("6", "4") if fact not in caught.value.message] == []


def test_captions_are_a_function_of_seed_and_sample() -> None:
    pytest.importorskip("torch")
    from stair_es.training.data.collate import CaptionSampler

    captions = tuple(f"caption {number}" for number in range(5))
    pairs = TrainingSet.from_pairs([TrainingPair(f"{item}", FileLocator(f"/{item}"), captions, ("tag",)) for item in range(4)])
    sampler, other = (CaptionSampler(captions=pairs, seed=seed, texts_per_image=3) for seed in (2, 3))
    samples = [SampleIndex(item, epoch) for item in range(4) for epoch in range(30)]
    texts = [sampler.choose_caption(sample) for sample in samples]
    assert texts == [sampler.choose_caption(sample) for sample in samples]
    assert texts != [other.choose_caption(sample) for sample in samples]
    assert set(texts) <= sampler.collect_captions()
    for item in range(4):
        assert 1 < len(set(texts[30 * item : 30 * item + 30])) <= 3
    assert 0 < np.mean([text.endswith(", tag") for text in sampler.collect_captions()]) < 1
    pairs.tag_share = 0.0
    assert not any(text.endswith("tag") for text in sampler.collect_captions())
