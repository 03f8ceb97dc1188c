"""The indices that the speed of searches is measured on: their documents are as ingest writes them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from stair_es.types import SparseVector


@pytest.fixture
def indices(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a folder that is no package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module("search.indices")


def test_a_document_for_seismic_has_its_tokens_by_name_and_by_id(indices: ModuleType) -> None:
    kind = indices.build_kinds(("cat", "a.b", "dog"))["seismic"]
    made = kind.fields(SparseVector(("a.b", "dog"), (0.5, 0.25)), None)
    assert made == {"tokens": {"a%2Eb": 0.5, "dog": 0.25}, "token_ids": {"1": 0.5, "2": 0.25}}


def test_a_document_without_tokens_has_no_empty_field_of_ids(indices: ModuleType) -> None:
    """With `{}` in one document the plugin refuses all others."""
    assert indices.build_kinds(("cat",))["seismic"].fields(SparseVector((), ()), None) == {"tokens": {}}
