"""Checks of the model, the filters and the token ids of an index."""

from __future__ import annotations

import time

import pytest

from stair_es.errors import QueryError
from stair_es.model.base import ModelSpec
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_info import IndexInfo, add_fit
from stair_es.search.query import SearchQuery
from stair_es.types import ResizeMode, SparseVector


def remedy(model: str, name: str, model_id: str, fit: ResizeMode | None = None) -> str:
    info = IndexInfo(fields={"images-1": IndexFields(tokens="rank_features")}, model=model, model_name=name, fit=fit)
    with pytest.raises(QueryError, match="their dot products are meaningless") as error:
        info.check_model(model_id)
    return error.value.remedy


@pytest.mark.parametrize(
    ("model", "name", "model_id"),
    [
        ("run-0c61e1f0a2b3", "/home/me/run", "run-ffffffffffff"),  # trained again in place
        ("stair-mini-1", "stair-mini", "stair-mini-2"),
        ("mine@1", "mine", "mine@2"),
    ],
)
def test_of_the_same_model_before_it_changed(model: str, name: str, model_id: str) -> None:
    message = remedy(model, name, model_id)
    assert "has changed" in message
    assert "ingest again" in message


def test_of_another_model() -> None:
    assert remedy("run-0c61e1f0a2b3", "/home/me/run", "stair-mini-2").startswith(
        "Search with --model /home/me/run, or ingest again"
    )
    assert "--model '/home/me/my run', or" in remedy("run-0c61e1f0a2b3", "/home/me/my run", "stair-mini-2")
    IndexInfo(fields={}, model="run-0c61e1f0a2b3", model_name="run").check_model("run-0c61e1f0a2b3")


def test_of_the_same_model_with_another_fit() -> None:
    message = remedy("run-pad-0c61e1f0a2b3", "/home/me/run", "run-ffffffffffff", "pad")
    assert message.startswith("The model or its fit has changed")
    assert "--model /home/me/run --fit pad as it was" in message
    assert "has changed" in remedy("run-squash-0c61e1f0a2b3", "run", "run-ffffffffffff", "squash")
    assert "--fit crop" in remedy("run-0c61e1f0a2b3", "/home/me/run", "run-pad-ffffffffffff", "crop")
    assert "--model run --fit pad, or" in remedy("run-pad-0c61e1f0a2b3", "run", "stair-mini-2", "pad")
    assert "--model run, or" in remedy("run-0c61e1f0a2b3", "run", "stair-mini-2", "crop")  # its own fit
    assert "squash" not in remedy("stair-mini-1", "stair-mini", "stair-mini-2", "squash")  # --fit doesn't take it


def test_index_model_includes_its_fit() -> None:
    info = IndexInfo(fields={}, model="run-pad-0c61e1f0a2b3", model_name="org/run", fit="pad")
    assert add_fit(ModelSpec(name="org/run"), info).fit == "pad"
    assert add_fit(ModelSpec(name="org/run", fit="crop"), info).fit == "crop"
    assert add_fit(ModelSpec(name="org/other"), info).fit is None


SHOP = IndexInfo(
    fields={},
    model="m",
    model_name="m",
    field_names=frozenset({"price", "taken", "width"}),
    field_types={"price": "keyword", "taken": "date", "width": "integer"},
)


def _filtered(text: str) -> SearchQuery:
    return SearchQuery(vector=SparseVector.from_pairs([("dog", 1.0)]), filters=[parse_filter(text)])


@pytest.mark.parametrize("text", ["price:>20", "width:>1 AND (price:[20 TO 30])", '{"range": {"price": {"gte": "20"}}}'])
def test_text_comparisons_get_a_remark_about_numbers(text: str) -> None:
    [remark] = SHOP.list_remarks(_filtered(text))
    assert "'price' as text" in remark
    assert "--field price:float=COLUMN" in remark


@pytest.mark.parametrize("text", ["width:>20", "price:20", "taken:[2024-01-01 TO 2024-12-31]"])
def test_other_filters_get_no_remark(text: str) -> None:
    assert SHOP.list_remarks(_filtered(text)) == []


@pytest.mark.parametrize("text", ["a" * 200_000, '"\\"' * 100_000, "price:[" + " " * 200_000, "price:>" + "1" * 200_000 + "x"])
def test_long_filters_are_looked_through_quickly(text: str) -> None:
    start = time.process_time()
    SHOP.list_remarks(_filtered(text))
    assert time.process_time() - start < 2
