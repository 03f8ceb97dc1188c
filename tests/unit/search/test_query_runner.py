"""What a query runner sends, with a cluster that only notes it."""

from collections.abc import Mapping
from typing import Any

import pytest

from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_cache import SearchTarget
from stair_es.search.index_info import IndexInfo
from stair_es.search.options import SearchOptions
from stair_es.search.request import build_token_clause
from stair_es.search.searcher import QueryRunner
from stair_es.token_policy import TokenPolicy


@pytest.mark.parametrize(
    ("policy", "expected"), [(None, ["dogs", "puppy"]), (TokenPolicy(merge={"dog": ("dogs", "puppy")}), ["dog"])]
)
def test_the_largest_weight_is_that_of_the_tokens_of_the_index(policy: TokenPolicy | None, expected: list[str]) -> None:
    sent = []

    def answer_search(body: Mapping[str, Any], pipeline: str | None) -> dict[str, Any]:
        sent.append(body["query"]["function_score"]["query"]["dis_max"]["queries"])
        return {"hits": {"hits": [{"_score": 0.5 * 2**20}]}}

    info = IndexInfo(fields={"x": IndexFields(tokens="rank_features")}, model="m@1", model_name="m", policy=policy)
    target = SearchTarget(cluster_info=ClusterInfo(distribution="opensearch", version=(3,), max_clauses=1024), info=info)
    runner = QueryRunner(answer_search)
    weights = [runner.find_largest_weight(target, ("dogs", "puppy"), SearchOptions()) for _ in range(2)]
    assert weights == [0.5, 0.5]
    [clauses] = sent
    assert clauses == [build_token_clause((token,), "rank_features") for token in expected]
