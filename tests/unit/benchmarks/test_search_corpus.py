"""The corpora that the speed of searches is measured on: photographs as stair-mini sees them, and exact answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.benchmarks import import_benchmark

from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.types import SparseVector

corpora = import_benchmark("search.corpus")
queries = import_benchmark("search.queries")
pages = import_benchmark("pages")


@pytest.fixture(scope="module")
def random_views() -> Any:  # noqa: ANN401  of a module that is found at run time
    """Some posteriors sure, some not; the detector sees nothing, or a thing for sure."""
    logits_BK = np.random.default_rng(0).standard_normal((20, 1000)) * np.linspace(0.5, 4, 20)[:, None]
    powers_BK = np.exp(logits_BK)
    scores_BO = np.zeros((20, 80))
    scores_BO[::2, 15] = 0.9
    return corpora.Views(posteriors_BK=powers_BK / powers_BK.sum(1, keepdims=True), scores_BO=scores_BO)


def test_a_small_corpus_is_the_beginning_of_a_large_one(random_views: Any) -> None:  # noqa: ANN401
    [small] = corpora.Corpus(random_views).draw_batches(30)
    first = next(corpora.Corpus(random_views).draw_batches(1500))
    assert len(small) == 30
    np.testing.assert_array_equal(small.word_ids_NW, first.word_ids_NW[:30])
    np.testing.assert_array_equal(small.weights_NW, first.weights_NW[:30])


def test_a_corpus_can_be_drawn_from_the_middle_on(random_views: Any) -> None:  # noqa: ANN401
    _, second = corpora.Corpus(random_views).draw_batches(1010)
    [alone] = corpora.Corpus(random_views).draw_batches(1010, 1000)
    assert len(alone) == 10
    np.testing.assert_array_equal(alone.word_ids_NW, second.word_ids_NW)


@pytest.mark.parametrize(("first", "thing"), [(281, 15), (0, None)])  # a tabby cat, a tench: COCO has cats, no fish
def test_words_match_the_model_for_equal_scores(first: int, thing: int | None) -> None:
    """With all probability on ranks that are kept, the drawn document is what the model makes of posterior and detection."""
    shares_BK, scores_BO = np.zeros((1, 1000)), np.zeros((1, 80))
    shares_BK[0, :3], scores_BO[0, 40] = (0.6, 0.3, 0.1), 0.8
    corpus = corpora.Corpus(corpora.Views(posteriors_BK=shares_BK, scores_BO=scores_BO))
    drawn = corpus.draw(np.array([first]), np.random.default_rng(2))
    assert drawn.classes_NC[0, 0] == first
    posterior_K, scores_O = np.zeros(1000), np.zeros(80)
    posterior_K[drawn.classes_NC[0, :3]] = 0.6, 0.3, 0.1
    if thing is not None:
        scores_O[thing] = 0.8
    encoder = StairMiniEncoder(ModelSpec(name="stair-mini"))
    [vector] = corpus.make_vectors(drawn)
    assert vector.to_dict() == pytest.approx(
        encoder._build_vector(corpora.weigh_without_scenes(encoder, posterior_K, scores_O)).to_dict(), abs=2e-5
    )


def test_exact_scores_are_dot_products(random_views: Any) -> None:  # noqa: ANN401
    corpus = corpora.Corpus(random_views)
    [documents] = corpus.draw_batches(50)
    vectors = list(corpus.make_vectors(documents))
    query = vectors[3].top(10)
    exact = queries.ExactSearch(corpus.vocabulary, documents.word_ids_NW, documents.weights_NW)
    truth = exact.compute_truth(query)
    assert exact.count_postings(query) == sum(token in dict(vector) for token in query.tokens for vector in vectors)
    assert truth.scores_N == pytest.approx([query.dot(vector) for vector in vectors])
    best = np.argsort(-truth.scores_N)[:10]
    assert truth.compute_recall(list(best)) == 1.0
    assert truth.compute_recall(list(best[:5])) == 0.5


def test_cells_without_a_word_add_nothing(random_views: Any) -> None:  # noqa: ANN401
    """Empty cells have the number of the first word: a document's weight for that word must count all the same."""
    corpus = corpora.Corpus(random_views)
    word = corpus.vocabulary[0]
    ids_NW, weights_NW = corpus.tabulate([SparseVector((word,), (0.5,)), SparseVector((corpus.vocabulary[1],), (0.7,))])
    zeros_NC = np.zeros((2, 10))
    documents = corpora.Documents(
        word_ids_NW=ids_NW, weights_NW=weights_NW, classes_NC=zeros_NC.astype(np.int16), shares_NC=zeros_NC
    )
    truth = queries.ExactSearch(corpus.vocabulary, documents.word_ids_NW, documents.weights_NW).compute_truth(
        SparseVector((word,), (1.0,))
    )
    assert truth.scores_N.tolist() == [0.5, 0.0]


def test_texts_by_similarity_have_the_most_similar_words() -> None:
    words_VD = np.array([[1, 0], [0.8, 0.6], [-1, 0], [0, 1]], np.float32)
    [first, second] = queries.weigh_similar_words(
        np.array([[1, 0], [0, 1]], np.float32), words_VD, ("cat", "pet", "car", "sky"), 3
    )
    # The opposite, and what has nothing to do with it, are left out.
    assert dict(first) == pytest.approx({"cat": 1.0, "pet": 0.8})
    assert dict(second) == pytest.approx({"sky": 1.0, "pet": 0.6})


def test_pages_have_the_tokens_of_v_splade_and_texts_as_queries() -> None:
    corpus = pages.PageCorpus()
    drawn = corpus.draw(3, np.random.default_rng(2))
    vectors = list(corpus.make_vectors(drawn))
    assert [len(vector) for vector in vectors] == [pages.TOKENS] * 3  # all different
    assert max(vector.weights[0] for vector in vectors) == pytest.approx(1.84, abs=0.5)
    assert [len(text.split()) for text in corpus.make_texts(drawn)] == [pages.WORDS] * 3
    assert np.linalg.norm(drawn.dense_ND, axis=1) == pytest.approx(1, abs=1e-5)
    sizes = {made.size: [len(text.split()) for text in texts.values()] for made, texts in pages.make_queries(corpus, 2)}
    assert (sizes[5], sizes[15]) == ([5, 5], [15, 15])
    assert all(count > 15 for count in sizes[pages.TOKENS])
