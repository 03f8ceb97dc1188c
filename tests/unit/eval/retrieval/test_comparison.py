"""Exact scores, and which differences of an engine's ranking 9 bits explain."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from support.oracles.rank_eval import compute_metrics

from stair_es import SparseVector
from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.eval.bag_of_words import build_word_bags, lower_word, weigh_by_idf
from stair_es.eval.metrics import DenseIndex, InvertedIndex, summarize_ranks
from stair_es.eval.retrieval import methods
from stair_es.eval.retrieval.ranking_diff import compare_rankings, describe_swap, sum_ranking_diffs
from stair_es.eval.retrieval.report import MethodRow, RetrievalReport, render_retrieval_report
from stair_es.eval.retrieval.runner import EngineHits
from stair_es.eval.retrieval.tasks import RetrievalTask
from stair_es.eval.tables import render_table
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder

MINI = StairMiniEncoder(ModelSpec(name="stair-mini", text_tower="table"))


def draw_vectors(rng: np.random.Generator, count: int) -> list[SparseVector]:
    return [
        SparseVector.from_pairs((f"w{word}", float(rng.random() + 0.01)) for word in rng.choice(50, 10, replace=False))
        for _ in range(count)
    ]


def test_exact_scores_are_dot_products() -> None:
    rng = np.random.default_rng(1)
    gallery, queries = draw_vectors(rng, 30), draw_vectors(rng, 20)
    index = InvertedIndex(gallery)
    for query in queries:
        assert index.compute_scores(query) == pytest.approx([query.dot(item) for item in gallery], rel=1e-12)
    assert list(index.compute_scores(SparseVector(("other",), (1.0,)))) == [0.0] * 30
    vectors_ND = rng.normal(size=(6, 4)).astype(np.float32)
    assert DenseIndex(vectors_ND).compute_scores(vectors_ND[2]) == pytest.approx(vectors_ND @ vectors_ND[2], rel=1e-5)


def test_bags_of_words_have_content_words() -> None:
    bags = build_word_bags(["The red car and a RED bus!", "the of"], MINI.tokenize_word)
    assert bags[0].to_dict() == {"red": 1.0, "car": 1.0, "bus": 1.0}
    assert len(bags[1]) == 0
    weighted = weigh_by_idf([*bags, *build_word_bags(["red"], MINI.tokenize_word)])
    assert math.fsum(weight**2 for weight in weighted[0].weights) == pytest.approx(1.0)
    weights = weighted[0].to_dict()
    assert weights["red"] < weights["car"] == weights["bus"]
    assert len(weighted[1]) == 0


class BytePairTokens:
    """A vocabulary of another kind: pieces with a mark at the start of a word, capitals kept, stop words among them."""

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        return tuple(f"Ġ{word}"[index : index + 4] for index in range(0, len(word) + 1, 4))


def test_bags_use_the_model_vocabulary() -> None:
    [bag] = build_word_bags(["The (Red) car's bus-stop \u2014 und ein Hund"], BytePairTokens().tokenize_word)
    assert set(bag.tokens) == {"ĠRed", "Ġcar", "'s", "Ġbus", "-sto", "p", "Ġund", "Ġein", "ĠHun", "d"}
    [plain] = build_word_bags(["The Red, red car & a क़िला"], lower_word)
    assert set(plain.tokens) == {"red", "car", "क़िला"}


SCORES_N = np.array([0.9, 0.8, 0.799, 0.3, 0.0])


def truncate_scores(items: list[int], loss: float = 0.001) -> list[float]:
    return [float(SCORES_N[item]) * (1 - loss) for item in items]


@pytest.mark.parametrize(
    ("items", "loss", "outcome"),
    [
        ([0, 1, 2, 3], 0.001, "same"),
        ([0, 2, 1, 3], 0.001, "explained"),  # 0.125 % apart
        ([1, 0, 2, 3], 0.001, "unexplained"),  # 11 % apart
        ([0, 1, 2], 0.001, "unexplained"),  # one is missing
        ([0, 1, 2, 3], 0.005, "unexplained"),  # scores too small
        ([0, 1, 2, 3], -0.001, "unexplained"),  # scores too large
        ([0, 1, 2, 3, 4], 0.001, "unexplained"),  # one that has no word in common
    ],
)
def test_nine_bits_explain_only_near_ties(items: list[int], loss: float, outcome: str) -> None:
    result = compare_rankings(0, SCORES_N, items, truncate_scores(items, loss), nine_bits=True)
    assert [name for name in ("same", "explained", "unexplained") if getattr(result, name)] == [outcome]
    assert (getattr(result, outcome), result.queries) == (1, 1)


def test_approximate_neighbors_are_compared_by_overlap() -> None:
    scores_N = np.linspace(-0.5, 1.0, 40)
    best = [39 - rank for rank in range(10)]
    result = compare_rankings(3, scores_N, [*best[:9], 5], [1.0] * 10, nine_bits=False)
    assert (result.same, result.explained, result.unexplained, result.overlap) == (0, 0, 1, 0.9)
    total = sum_ranking_diffs([result, compare_rankings(4, scores_N, best, [1.0] * 10, nine_bits=False)], truncated=2)
    assert (total.queries, total.same, total.unexplained, total.truncated, total.overlap) == (2, 1, 1, 2, 0.95)
    [swap] = total.swaps
    assert describe_swap(swap, [f"q{i}" for i in range(9)], [f"i{i}" for i in range(40)])["engine"]["item"] == "i5"


def test_rank_eval_has_a_short_ideal_for_a_short_list() -> None:
    values = compute_metrics(EngineHits((4, 7), (2.0, 1.0)), (7, 1, 2))
    ideal = 1 + 1 / math.log2(3)
    assert values == {"recall@10": pytest.approx(1 / 3), "MRR@10": 0.5, "nDCG@10": pytest.approx(1 / math.log2(3) / ideal)}
    assert set(compute_metrics(EngineHits((), ()), (1,)).values()) == {0.0}


def make_cluster_info(distribution: Any, *version: int) -> ClusterInfo:  # noqa: ANN401
    return ClusterInfo(distribution=distribution, version=version, max_clauses=1024)


@pytest.mark.parametrize(
    ("info", "plugins", "dimensions", "fact"),
    [
        (make_cluster_info("elasticsearch", 7, 17), (), 384, "8.12"),
        (make_cluster_info("elasticsearch", 9, 5), (), 384, None),
        (make_cluster_info("elasticsearch", 9, 5), (), 5000, "5000"),
        (make_cluster_info("opensearch", 3, 8), ("other",), 384, "opensearch-knn"),
        (make_cluster_info("opensearch", 3, 5), ("opensearch-knn",), 384, None),
    ],
)
def test_knn_support(info: ClusterInfo, plugins: tuple[str, ...], dimensions: int, fact: str | None) -> None:
    reason = methods.explain_missing_knn(info, lambda: frozenset(plugins), dimensions)
    assert reason == "" if fact is None else fact in reason


def test_knn_bodies() -> None:
    assert methods.build_knn_body("opensearch", 8)["mappings"]["properties"]["dense"]["method"]["engine"] == "lucene"
    assert methods.build_knn_body("elasticsearch", 8)["mappings"]["properties"]["dense"]["index_options"] == {"type": "hnsw"}


def build_report() -> RetrievalReport:
    task = RetrievalTask(direction="text -> image", queries=("a | b", "c\nd"), items=tuple("vwxyz"), relevant=((0,), (1,)))
    metrics = summarize_ranks([(1,), (3,)])
    ranked = compare_rankings(0, SCORES_N, [0, 2, 1, 3], truncate_scores([0, 2, 1, 3]), nine_bits=True)
    stair = MethodRow(
        method="STAIR",
        direction=task.direction,
        exact=metrics,
        engine=metrics,
        tokens=(60.0, 20.0),
        queries_without_tokens=1,
        task=task,
        differences=sum_ranking_diffs([ranked], 0),
        nine_bits=True,
        index="eval-1",
    )
    missing = MethodRow(
        method="BM25 on captions", direction=task.direction, exact_reason="no captions", engine_reason="no captions"
    )
    return RetrievalReport(
        captions="set.jsonl",
        format="JSON Lines",
        images=5,
        texts=2,
        problems=tuple(f"image {number}: broken" for number in range(7)),
        model="tiny@1",
        text_tower="full",
        cluster="OpenSearch 3.8.0",
        query_type="rank_features",
        depth=1000,
        analyzer="english",
        rows=(stair, missing),
        versions={"numpy": "2"},
        seconds=1.0,
    )


def test_the_report_is_complete_as_markdown_and_as_json() -> None:
    report = build_report()
    markdown = render_retrieval_report(report)
    assert [
        fact for fact in ("BM25 on captions", "a \\| b", "-0.125 %", "image 4: broken", "2 more") if fact not in markdown
    ] == []
    assert "- STAIR: 1 " in markdown  # a query without a known token
    rows = json.loads(json.dumps(report.to_dict(), allow_nan=False))["rows"]
    assert rows[0]["engine"]["hit"] == {"1": 0.5, "5": 1.0, "10": 1.0}
    assert rows[0]["differences"]["examples"][0]["query"] == "a | b"
    assert rows[1]["exact"] == {"unavailable_reason": "no captions"}
    for line in render_table(("a", "b"), [("1", "2|3"), ("4\n5", "")]).splitlines():
        assert line.replace("\\|", "").count("|") == 3
