"""Fit a word to marks: what it weighs, which images match, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from support.errors import expect_error

from stair_es import SparseVector
from stair_es.taught_words import MATCH_WEIGHT, MAX_TAUGHT_TOKENS, TaughtWord
from stair_es.teaching.fit import FittedWord, fit_word

OTHERS = [f"other{i}" for i in range(40)]


def draw_vectors(seed: int, count: int, **shown: float) -> list[SparseVector]:
    """Draw vectors of length 1 of some shown tokens and twelve others."""
    rng = np.random.default_rng(seed)
    vectors = []
    for _ in range(count):
        weights = {str(token): float(rng.random()) for token in rng.choice(OTHERS, 12, replace=False)}
        weights |= {token: weight * float(rng.uniform(0.8, 1.2)) for token, weight in shown.items()}
        length = float(np.linalg.norm(list(weights.values())))
        vectors.append(SparseVector.from_mapping({token: weight / length for token, weight in weights.items()}))
    return vectors


def weigh_all(fitted: FittedWord, vectors: list[SparseVector]) -> list[float]:
    word = TaughtWord(word="windmill", tokens=fitted.tokens, floor=fitted.floor, full=fitted.full)
    return [word.compute_weight(vector) for vector in vectors]


SAMPLE = draw_vectors(0, 300) + draw_vectors(1, 30, tower=2.0)
WINDMILLS = draw_vectors(2, 40, tower=2.0, wind=2.0)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_common_tokens_tell_a_word(count: int) -> None:
    fitted = fit_word(WINDMILLS[:count], [], SAMPLE)
    assert set(list(fitted.tokens)[:2]) == {"tower", "wind"}
    assert max(fitted.tokens.values()) == 1
    assert len(fitted.tokens) <= MAX_TAUGHT_TOKENS
    assert min(weigh_all(fitted, WINDMILLS[20:])) > max(weigh_all(fitted, SAMPLE[:300]))
    assert np.mean([weight >= MATCH_WEIGHT for weight in weigh_all(fitted, WINDMILLS[20:])]) > 0.5
    assert np.mean([weight > 0 for weight in weigh_all(fitted, SAMPLE)]) < 0.15
    assert fitted.precision > 0.7


def test_images_that_do_not_show_it_reduce_what_they_share() -> None:
    towers = draw_vectors(3, 5, tower=2.0)
    without, with_them = (fit_word(WINDMILLS[:5], no, SAMPLE[:300]).tokens for no in ([], towers))
    assert with_them["tower"] / with_them["wind"] < without["tower"] / without["wind"]


def test_marks_without_anything_in_common_are_less_sure() -> None:
    alike = fit_word(WINDMILLS[:5], [], SAMPLE)
    mixed = fit_word(draw_vectors(4, 5), [], SAMPLE)
    assert mixed.precision < alike.precision - 0.3
    odd = fit_word([*WINDMILLS[:5], *draw_vectors(5, 1)], [], SAMPLE)
    assert odd.doubtful_yes == (5,)
    same = fit_word(WINDMILLS[:5], draw_vectors(6, 3, tower=2.0, wind=2.0), SAMPLE)
    assert same.matching_no


def test_nothing_in_common_is_an_error() -> None:
    with expect_error("marks-have-nothing-in-common"):
        fit_word([SparseVector((), ())] * 3, [], SAMPLE)


def test_an_index_of_marks_alone_can_be_taught() -> None:
    fitted = fit_word(WINDMILLS[:3], [], [])
    assert min(weigh_all(fitted, WINDMILLS[:3])) >= MATCH_WEIGHT


@pytest.mark.parametrize(("text", "mode"), [({"wind": 1.0, "tower": 1.0}, "add"), ({"other1": 1.0}, "replace"), ({}, "replace")])
def test_the_text_vector_counts_if_it_ranks_the_marks_as_high(text: dict[str, float], mode: str) -> None:
    assert fit_word(WINDMILLS[:5], [], SAMPLE, SparseVector.from_mapping(text)).mode == mode
