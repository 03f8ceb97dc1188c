"""Statistics of words, computed in two ways; unused tokens; stop words as a policy."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from stair_es.config.defaults import DEFAULT_UNIFORMITY
from stair_es.config.policy_file import parse_policy
from stair_es.errors import ModelError, UnknownModel
from stair_es.feature_names import escape_feature
from stair_es.inspection.token_stats import (
    MIN_IMAGES,
    StatsAccumulator,
    TokenStats,
    build_stop_word_policy,
    find_stop_words,
    match_tokens,
    sort_token_stats,
)
from stair_es.inspection.vocabulary_stats import BERT, ModelVocabulary, find_unused_tokens, load_model_vocabulary
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.token_policy import TokenPolicy
from stair_es.types import StatsOrder

STRANGE = ("a.b", "100%", "%2E", "", "##ing", "犬", "=1+1")


def draw_images(count: int, seed: int) -> list[dict[str, float]]:
    rng = random.Random(seed)
    words = [*(f"w{i}" for i in range(40)), *STRANGE]
    return [{word: rng.lognormvariate(-2, 1) for word in rng.sample(words, rng.randint(0, 20))} for _ in range(count)]


def accumulate_images(images: list[dict[str, float]]) -> StatsAccumulator:
    accumulator = StatsAccumulator()
    for number, image in enumerate(images):
        accumulator.add_image({escape_feature(word): weight for word, weight in image.items()}, f"u/{number}")
    return accumulator


def build_row(word: str, *, images: int = 1, uniformity: float = 0.0, **fields: float) -> TokenStats:
    figures = {"image_share": 0.1, "mean_weight": 0.2, "max_weight": 0.3, "weight_share": 0.01, **fields}
    return TokenStats(token=word, images=images, uniformity=uniformity, example="u", **figures)


def test_figures_match_the_weight_matrix() -> None:
    images = draw_images(200, 1)
    accumulator = accumulate_images(images)
    stats = {each.token: each for each in accumulator.compute_stats()}
    everything = math.fsum(weight for image in images for weight in image.values())
    assert set(stats) == {word for image in images for word in image}
    assert accumulator.images == 200
    assert accumulator.occurrences == sum(map(len, images))
    assert accumulator.empty == sum(not image for image in images)
    for word, figures in stats.items():
        column = [image.get(word, 0.0) for image in images]
        present = [weight for weight in column if weight]
        assert figures.images == len(present)
        assert figures.image_share == len(present) / 200
        assert figures.mean_weight == pytest.approx(statistics.fmean(present))
        assert figures.max_weight == max(present)
        assert figures.example == f"u/{column.index(max(present))}"
        assert figures.weight_share == pytest.approx(sum(present) / everything)
        p, v = len(present) / 200, statistics.pstdev(present) / statistics.fmean(present)
        assert figures.uniformity == pytest.approx(p / (1 + v * v))
        constant = math.sqrt(200)
        cosine = sum(column) / (constant * math.sqrt(sum(weight * weight for weight in column)))
        assert figures.uniformity == pytest.approx(cosine * cosine)
    assert sum(each.weight_share for each in stats.values()) == pytest.approx(1)


def test_uniformity_is_1_for_constants_and_low_otherwise() -> None:
    images = [{"same": 0.3, "varies": 3.0 if i % 50 == 0 else 0.01, **({"half": 0.3} if i % 2 else {})} for i in range(100)]
    uniformity = {each.token: each.uniformity for each in accumulate_images(images).compute_stats()}
    assert uniformity["same"] == pytest.approx(1)
    assert uniformity["half"] == pytest.approx(0.5)
    assert uniformity["varies"] < 0.03


@pytest.mark.parametrize("tokens", [None, [], "dog", 3, {"dog": None}, {"dog": 0}, {"dog": -1.0}, {"dog": "x"}, {"dog": [1]}])
def test_invalid_weights_are_ignored_and_their_image_is_counted(tokens: object) -> None:
    accumulator = StatsAccumulator()
    accumulator.add_image(tokens, "u")
    assert (accumulator.images, accumulator.empty, accumulator.compute_stats()) == (1, 1, ())


def test_weights_in_other_forms_of_json_count() -> None:
    accumulator = StatsAccumulator()
    accumulator.add_image({"dog": 2, "cat": "0.5", "nan": math.nan, "inf": math.inf}, "u")
    assert {each.token: each.max_weight for each in accumulator.compute_stats()} == {"dog": 2.0, "cat": 0.5}


def test_without_images_there_are_no_statistics() -> None:
    assert StatsAccumulator().compute_stats() == ()


def test_orders_are_total_and_largest_first() -> None:
    rows = [
        build_row("b", images=2, mean_weight=0.1),
        build_row("a", images=2, mean_weight=0.9),
        build_row("c", images=3, mean_weight=0.5, max_weight=0.9, uniformity=0.7),
    ]
    for order in get_args(StatsOrder):
        expected = ["a", "c", "b"] if order == "mean" else ["c", "a", "b"]
        assert [each.token for each in sort_token_stats(rows, order)] == expected
        assert sort_token_stats(rows, order) == sort_token_stats(reversed(rows), order)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("cat", {"cat", "cats", "cattle"}),
        ("cat*s", {"cats"}),
        ("*tt*", {"cattle"}),
        ("c?t", {"cat"}),
        ("##", {"##cat"}),
        ("[cC]at", {"cat", "Cat"}),
        ("", {"cat", "cats", "cattle", "Cat", "##cat"}),
        ("CAT", set()),
    ],
)
def test_patterns(pattern: str, found: set[str]) -> None:
    assert match_tokens(["cat", "cats", "cattle", "Cat", "##cat"], pattern) == found


def test_stop_words_are_uniform_over_enough_images() -> None:
    rows = [
        build_row("the", uniformity=0.9),
        build_row("a", uniformity=DEFAULT_UNIFORMITY),
        build_row("dog", uniformity=DEFAULT_UNIFORMITY - 0.01),
    ]
    assert [each.token for each in find_stop_words(rows, MIN_IMAGES)] == ["the", "a"]
    assert [each.token for each in find_stop_words(rows, 1000, 0.2)] == ["the", "a", "dog"]
    assert find_stop_words(rows, MIN_IMAGES - 1) == ()


def test_muting_keeps_the_rules_of_the_index() -> None:
    base = TokenPolicy(
        name="had", mute=("old",), cap={"the": 0.3, "cat": 0.5}, rename={"hound": "dog"}, merge={"cat": ("kitty",)}
    )
    policy, rejected = build_stop_word_policy(["the", "old", "dog", "kitty", "the"], base, "new")
    assert rejected == ("dog", "kitty")  # one is the end of a rename, the other becomes another word
    assert policy == TokenPolicy(
        name="new", mute=("old", "the"), cap={"cat": 0.5}, rename={"hound": "dog"}, merge={"cat": ("kitty",)}
    )
    assert parse_policy(json.loads(json.dumps(policy.to_json())), "here") == policy


def test_a_policy_of_an_index_without_one() -> None:
    policy, rejected = build_stop_word_policy(STRANGE, None, "stop")
    assert policy == TokenPolicy(name="stop", mute=STRANGE)
    assert rejected == ()


def test_unused_tokens_exclude_those_removed_by_a_policy() -> None:
    vocabulary = ModelVocabulary(tokens=frozenset({"cat", "dog", "hound", "bird", "mute"}), source="m")
    policy = TokenPolicy(mute=("mute",), rename={"hound": "dog"})
    assert find_unused_tokens(vocabulary, ["cat", "other"], policy) == ("bird", "dog")
    assert find_unused_tokens(vocabulary, [], None) == ("bird", "cat", "dog", "hound", "mute")


def test_shipped_model_lists_image_words() -> None:
    vocabulary = load_model_vocabulary("stair-mini")
    assert vocabulary.source == registry.resolve_model(ModelSpec(name="stair-mini")).card.model_id
    assert not vocabulary.reason
    assert {"cat", "dog"} <= vocabulary.tokens
    assert "the" not in vocabulary.tokens


def test_no_image_has_another_word() -> None:
    encoder = registry.load_encoder(ModelSpec(name="stair-mini", threads=1))
    side = encoder.image_spec.size_px
    pixels_BHWC = np.random.default_rng(3).integers(0, 256, (2, side, side, 3), np.uint8)
    pixels_BHWC[1] = 255
    vocabulary = load_model_vocabulary("stair-mini").tokens
    for vector in encoder.encode_images(pixels_BHWC):
        assert len(vector)
        assert set(vector.tokens) <= vocabulary


def test_missing_models_have_the_vocabulary_of_bert() -> None:
    pytest.importorskip("torch")
    vocabulary = load_model_vocabulary("someone/model-on-the-hub")
    assert vocabulary.source == BERT
    assert "someone/model-on-the-hub" in vocabulary.reason
    assert {"cat", "##ing"} <= vocabulary.tokens
    assert not {"[CLS]", "[unused1]"} & vocabulary.tokens


def test_named_model_must_exist() -> None:
    with pytest.raises(UnknownModel):
        load_model_vocabulary("no such model", required=True)


def test_broken_models_use_the_words_of_bert(tmp_path: Path) -> None:
    vocabulary = load_model_vocabulary(str(tmp_path))
    assert vocabulary.source == BERT
    assert vocabulary.reason
    with pytest.raises(ModelError):
        load_model_vocabulary(str(tmp_path), required=True)
