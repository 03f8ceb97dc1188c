"""The opt-in field `impacts`: a plain `match` of a client that knows nothing of us ranks as the vectors say."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.corpora.unicode_vectors import create_index

import stair_es
from stair_es import SparseVector
from stair_es.cluster.documents.document import IMPACT_SCALE, DocumentSettings, is_single_term

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opensearchpy import OpenSearch

SETTINGS = DocumentSettings(impacts=True)
VOCABULARY = (Path(stair_es.__file__).parent / "model" / "data" / "vocab.txt").read_text(encoding="utf-8").splitlines()
STRANGE = ("##ing", ".", "a|b", "a b", "", "|", "100%", "日本", "½", "x" * 300, "it's")
_STOP = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was"
    " will with"
)
STOP = set(_STOP.split())
ALIKE = ("café", "犬", "2004", "привет")


@pytest.fixture
def image_vectors() -> dict[str, SparseVector]:
    """Few frequent and many rare words, weights over three orders of magnitude, and words that a match can't ask for."""
    rng = np.random.default_rng(20261124)
    words = np.array([*(f"word{i}" for i in range(300)), *STRANGE, *ALIKE])
    rng.shuffle(words)
    frequency = 1.0 / np.arange(1, len(words) + 1)
    vectors = {}
    for number in range(200):
        chosen = rng.choice(words, 40, replace=False, p=frequency / frequency.sum())
        weights = np.exp(rng.normal(-1, 1.5, 40))
        vectors[f"{number:03}"] = SparseVector.from_pairs((str(w), float(x)) for w, x in zip(chosen, weights, strict=True))
    return vectors


@pytest.fixture
def impacts_index(client: OpenSearch, node_url: str, index_name: str, image_vectors: Mapping[str, SparseVector]) -> str:
    create_index(client, index_name, SETTINGS, node_url, image_vectors)
    return index_name


def draw_queries(image_vectors: Mapping[str, SparseVector]) -> Iterator[list[str]]:
    rng = np.random.default_rng(3)
    words = sorted({word for vector in image_vectors.values() for word, _ in vector if is_single_term(word)})
    for size in range(1, 30):
        yield [str(word) for word in rng.choice(words, size, replace=False)]


def match_impacts(client: OpenSearch, index: str, text: str, **options: Any) -> dict[str, float]:  # noqa: ANN401  parts of a query
    """Search as any client does, and return the scores, best first."""
    body = {"size": 1000, "query": {"match": {"impacts": {"query": text, **options}}}}
    return {hit["_id"]: hit["_score"] for hit in client.search(index=index, body=body)["hits"]["hits"]}


def test_scores_are_exact_sums_of_quantized_weights_and_rank(
    client: OpenSearch, impacts_index: str, image_vectors: Mapping[str, SparseVector]
) -> None:
    compared = 0
    for words in draw_queries(image_vectors):
        quantized = {
            name: sum(max(1, round(dict(vector)[word] * IMPACT_SCALE)) for word in words if word in vector.tokens)
            for name, vector in image_vectors.items()
        }
        scores = match_impacts(client, impacts_index, " ".join(words))
        assert scores == {name: score for name, score in quantized.items() if score}
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        compared += len(scores)

        query = SparseVector.from_mapping(dict.fromkeys(words, 1.0))
        slack = len(words) / IMPACT_SCALE  # a word's impact is off by half a step, one below half a step by less than one
        exact = {name: query.dot(image_vectors[name]) for name in scores}
        for name, score in scores.items():
            assert score / IMPACT_SCALE == pytest.approx(exact[name], abs=slack)
        for earlier, later in itertools.pairwise(exact.values()):
            assert earlier >= later - 2 * slack
    assert compared > 2000


def test_client_queries_match_bm25_in_case_and_weights(client: OpenSearch, impacts_index: str) -> None:
    plain = match_impacts(client, impacts_index, "word1 word2")
    assert plain
    assert match_impacts(client, impacts_index, "The Word1, and WORD2!") == plain
    assert match_impacts(client, impacts_index, "word1 word2", boost=2) == {name: 2 * score for name, score in plain.items()}
    both = match_impacts(client, impacts_index, "word1 word2", operator="and")
    single = [match_impacts(client, impacts_index, word).keys() for word in ("word1", "word2")]
    assert both.keys() == single[0] & single[1]


def test_only_words_without_a_match_query_are_skipped(
    client: OpenSearch, impacts_index: str, image_vectors: Mapping[str, SparseVector]
) -> None:
    for word in STRANGE:
        assert any(word in vector.tokens for vector in image_vectors.values())
        assert match_impacts(client, impacts_index, word) == {}
    for word in ALIKE:
        names = {name for name, vector in image_vectors.items() if word in vector.tokens}
        assert names
        assert match_impacts(client, impacts_index, word).keys() == names


def test_only_whole_vocabulary_words_can_be_queried(client: OpenSearch, impacts_index: str) -> None:
    whole = set[str]()
    for start in range(0, len(VOCABULARY), 2000):
        texts = VOCABULARY[start : start + 2000]
        answer = client.indices.analyze(index=impacts_index, body={"analyzer": "impacts_search", "text": texts})["tokens"]
        offsets = list(itertools.accumulate((len(text.encode("utf-16-le")) // 2 + 1 for text in texts), initial=0))
        tokens: dict[int, list[str]] = {}
        for token in answer:
            place = int(np.searchsorted(offsets, token["start_offset"], side="right")) - 1
            tokens.setdefault(place, []).append(token["token"])
        whole |= {texts[place] for place, found in tokens.items() if found == [texts[place]]}
    assert len(whole) > 20_000
    single_terms = {word for word in VOCABULARY if is_single_term(word)}
    assert single_terms - STOP - whole == set()
    assert all(len(word) == 1 and not word.isalnum() for word in whole - single_terms)  # © and the like: nobody types them
