"""Checks of the model, the filters and the token ids of an index."""

from __future__ import annotations

import re
import time

import pytest
from support.errors import expect_error

from stair_es.errors import IndexMismatch, QueryError
from stair_es.model.base import ModelSpec
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_info import IndexInfo, add_fit
from stair_es.search.query import SearchQuery
from stair_es.types import ResizeMode, SparseVector


@pytest.mark.parametrize(
    ("model", "name", "fit", "model_id", "options", "has_changed"),
    [
        ("run-0c61e1f0a2b3", "/home/me/run", None, "run-ffffffffffff", "--model /home/me/run", True),  # trained again in place
        ("stair-mini-1", "stair-mini", None, "stair-mini-3", "--model stair-mini", True),
        ("mine@1", "mine", None, "mine@2", "--model mine", True),
        ("run-0c61e1f0a2b3", "/home/me/run", None, "stair-mini-3", "--model /home/me/run", False),
        ("run-0c61e1f0a2b3", "/home/me/my run", None, "stair-mini-3", "--model '/home/me/my run'", False),
        ("run-pad-0c61e1f0a2b3", "/home/me/run", "pad", "run-ffffffffffff", "--model /home/me/run --fit pad", True),
        ("run-squash-0c61e1f0a2b3", "run", "squash", "run-ffffffffffff", "--model run", True),  # --fit doesn't take it
        ("run-0c61e1f0a2b3", "/home/me/run", "crop", "run-pad-ffffffffffff", "--model /home/me/run --fit crop", True),
        ("run-pad-0c61e1f0a2b3", "run", "pad", "stair-mini-3", "--model run --fit pad", False),
        ("run-0c61e1f0a2b3", "run", "crop", "stair-mini-3", "--model run", False),  # its own fit
        ("stair-mini-1", "stair-mini", "squash", "stair-mini-3", "--model stair-mini", True),
    ],
)
def test_other_models_are_rejected(
    model: str, name: str, fit: ResizeMode | None, model_id: str, options: str, has_changed: bool
) -> None:
    """A model that has changed under its name can't be searched with: ingest again comes first."""
    info = IndexInfo(fields={"images-1": IndexFields(tokens="rank_features")}, model=model, model_name=name, fit=fit)
    with expect_error("other-model", QueryError) as caught:
        info.check_model(model_id)
    found = re.search(r"--model ('[^']*'|[^\s,]+)( --fit \w+)?", caught.value.remedy)
    assert found
    assert found[0] == options
    assert ("ingest" in caught.value.remedy[: found.start()]) == has_changed


def test_the_model_of_the_index_is_accepted() -> None:
    IndexInfo(fields={}, model="run-0c61e1f0a2b3", model_name="run").check_model("run-0c61e1f0a2b3")


@pytest.mark.parametrize("other", [IndexFields(tokens="sparse_vector"), IndexFields(tokens="rank_features", impacts=True)])
def test_indices_of_different_field_types_are_rejected(other: IndexFields) -> None:
    info = IndexInfo(fields={"images-1": IndexFields(tokens="rank_features"), "images-2": other}, model="m", model_name="m")
    with expect_error("different-field-types", IndexMismatch) as caught:
        _ = info.common_fields
    assert "images-2" in caught.value.message


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


def build_filtered_query(text: str) -> SearchQuery:
    return SearchQuery(vector=SparseVector.from_pairs([("dog", 1.0)]), filters=[parse_filter(text)])


@pytest.mark.parametrize("text", ["price:>20", "width:>1 AND (price:[20 TO 30])", '{"range": {"price": {"gte": "20"}}}'])
def test_text_comparisons_get_a_remark_about_numbers(text: str) -> None:
    [remark] = SHOP.list_remarks(build_filtered_query(text))
    assert "'price'" in remark
    assert "--field price:float=COLUMN" in remark


@pytest.mark.parametrize("text", ["width:>20", "price:20", "taken:[2024-01-01 TO 2024-12-31]"])
def test_other_filters_get_no_remark(text: str) -> None:
    assert SHOP.list_remarks(build_filtered_query(text)) == []


@pytest.mark.parametrize("text", ["a" * 200_000, '"\\"' * 100_000, "price:[" + " " * 200_000, "price:>" + "1" * 200_000 + "x"])
def test_long_filters_are_looked_through_quickly(text: str) -> None:
    start = time.process_time()
    SHOP.list_remarks(build_filtered_query(text))
    assert time.process_time() - start < 2
