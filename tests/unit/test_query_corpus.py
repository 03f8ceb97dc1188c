"""The corpora that the speed of searches is measured on: documents as the starter makes them, and exact answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stair_es.model.starter import Starter


@pytest.fixture(scope="module")
def modules() -> Any:  # noqa: ANN401  two modules of a folder that is no package
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import query_corpus
        import query_questions
    finally:
        sys.path.pop(0)
    return query_corpus, query_questions


@pytest.fixture(scope="module")
def posteriors() -> Any:  # noqa: ANN401
    """Some sure, some not."""
    logits_BK = np.random.default_rng(0).standard_normal((20, 1000)) * np.linspace(0.5, 4, 20)[:, None]
    powers_BK = np.exp(logits_BK)
    return powers_BK / powers_BK.sum(1, keepdims=True)


def test_a_small_corpus_is_the_beginning_of_a_large_one(modules: Any, posteriors: Any) -> None:  # noqa: ANN401
    query_corpus, _ = modules
    [small] = query_corpus.Corpus(posteriors).batches(30)
    first = next(query_corpus.Corpus(posteriors).batches(1500))
    assert len(small) == 30
    np.testing.assert_array_equal(small.word_ids_NW, first.word_ids_NW[:30])
    np.testing.assert_array_equal(small.weights_NW, first.weights_NW[:30])


def test_words_are_those_of_the_starter_for_the_same_posterior(modules: Any) -> None:  # noqa: ANN401
    """With all probability on ranks that are kept, the drawn document is what the starter's own code makes of the posterior."""
    query_corpus, _ = modules
    shares = np.zeros((1, 1000))
    shares[0, :3] = 0.6, 0.3, 0.1
    corpus = query_corpus.Corpus(shares)
    drawn = corpus.draw(np.array([7]), np.random.default_rng(2))
    posterior_K = np.zeros(1000)
    posterior_K[drawn.classes_NC[0, :3]] = 0.6, 0.3, 0.1
    starter = Starter(query_corpus.ModelSpec(name="starter"))
    wanted = starter._sparse(starter._words_of_classes(posterior_K))
    [made] = corpus.vectors(drawn)
    assert made.to_dict() == pytest.approx(wanted.to_dict(), abs=2e-5)


def test_exact_scores_are_dot_products(modules: Any, posteriors: Any) -> None:  # noqa: ANN401
    query_corpus, query_questions = modules
    corpus = query_corpus.Corpus(posteriors)
    [documents] = corpus.batches(50)
    vectors = list(corpus.vectors(documents))
    asked = vectors[3].top(10)
    truth = query_questions.Exact(corpus, documents).truth(asked)
    assert truth.scores_N == pytest.approx([asked.dot(vector) for vector in vectors])
    best = np.argsort(-truth.scores_N)[:10]
    assert truth.recall(list(best)) == 1.0
    assert truth.recall(list(best[:5])) == 0.5
