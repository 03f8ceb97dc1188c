"""What is said of an index that holds vectors of another model."""

from __future__ import annotations

import pytest

from stair_es.errors import QueryError
from stair_es.search.known import Known
from stair_es.search.shapes import Fields


def remedy(model: str, name: str, asked: str) -> str:
    known = Known(fields={"images-1": Fields(tokens="rank_features")}, model=model, model_name=name)
    with pytest.raises(QueryError, match="their dot products mean nothing") as wrong:
        known.check_model(asked)
    return wrong.value.remedy


@pytest.mark.parametrize(
    ("model", "name", "asked"),
    [
        ("run-0c61e1f0a2b3", "/home/me/run", "run-ffffffffffff"),  # trained again in place
        ("starter-1", "starter", "starter-2"),
        ("mine@1", "mine", "mine@2"),
    ],
)
def test_of_the_same_model_before_it_changed(model: str, name: str, asked: str) -> None:
    said = remedy(model, name, asked)
    assert "has changed" in said
    assert "ingest again" in said


def test_of_another_model() -> None:
    assert remedy("run-0c61e1f0a2b3", "/home/me/run", "starter-1").startswith("Search with --model /home/me/run, or ingest again")
    assert "--model '/home/me/my run', or" in remedy("run-0c61e1f0a2b3", "/home/me/my run", "starter-1")
    Known(fields={}, model="run-0c61e1f0a2b3", model_name="run").check_model("run-0c61e1f0a2b3")
