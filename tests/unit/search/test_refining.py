"""What a query can't know is asked: here, whether any match has a color."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from stair_es.model.base import MatchThresholds
from stair_es.search.dsl.understanding import SearchFields, understand_text
from stair_es.search.query import SearchQuery
from stair_es.search.refining import QueryRefiner
from stair_es.search.request import build_search_request
from stair_es.types import SparseVector

THRESHOLDS = MatchThresholds(weak_cosine=0.4, weak_image_cosine=0.45, named_weight=0.25)


@pytest.mark.parametrize("thresholds", [THRESHOLDS, None])
def test_a_color_that_no_match_has_is_dropped(thresholds: MatchThresholds | None) -> None:
    def send(body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer for an index with red hats."""
        return {"hits": {"hits": [] if "purple" in json.dumps(body) else [{"_score": 1.0}]}}

    refiner = QueryRefiner(send)
    build_request = partial(build_search_request, query_type="rank_features", max_clauses=1024)
    for color, count in (("red", 1), ("purple", 0)):
        conditions = understand_text(f"{color} hat", SearchFields(colors="colors")).conditions
        vector = SparseVector.from_mapping({"hat": 1.0})
        query = SearchQuery(vector=vector, conditions=conditions, match_thresholds=thresholds)
        refined = refiner.refine_query(query, build_request)
        assert (len(refined.conditions), len(refined.remarks)) == (count, 1 - count)
        assert refiner.refine_query(refined, build_request) is refined
