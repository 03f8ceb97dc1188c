import json
from pathlib import Path
from typing import Any

import pytest

from stair_es import SparseVector, resources
from stair_es.cluster.documents import (
    DocumentSettings,
    ImageFacts,
    document,
    document_id,
    fingerprint,
    mapping_differences,
)
from stair_es.cluster.index import check_alias, index_body
from stair_es.errors import ResourceError, UsageError

FACTS = ImageFacts(
    uri="file:///a.jpg", source="file:///", sha256="00", width=3, height=2, format="PNG", taken_at=None, thumbnail=None
)


def test_document_has_escaped_tokens_top_words_and_known_facts_only() -> None:
    vector = SparseVector.from_mapping({"dog": 0.9, ".": 0.5, "grass": 0.1})
    body = document(vector, FACTS, model_id="m-1", fingerprint="f", ingested_at="2026-01-01T00:00:00Z", top_words=2)
    assert body == {
        "tokens": {"dog": 0.9, "%2E": 0.5, "grass": 0.1},
        "top_tokens": ["dog", "."],
        "uri": "file:///a.jpg",
        "source": "file:///",
        "sha256": "00",
        "width": 3,
        "height": 2,
        "format": "PNG",
        "model": "m-1",
        "fingerprint": "f",
        "ingested_at": "2026-01-01T00:00:00Z",
    }


def test_every_document_field_is_mapped() -> None:
    vector = SparseVector.from_mapping({"dog": 1.0})
    facts = ImageFacts(
        uri="u", source="s", sha256="0", width=1, height=1, format="PNG", taken_at="2026-01-01T00:00:00", thumbnail="t"
    )
    body = document(vector, facts, model_id="m", fingerprint="f", ingested_at="2026-01-01T00:00:00Z", top_words=1)
    assert set(body) <= set(resources.load("mappings", "image")["mappings"]["properties"])


def test_id_depends_on_the_uri_alone() -> None:
    assert document_id("file:///a.jpg") == document_id("file:///a.jpg") != document_id("file:///b.jpg")
    assert len(document_id("file:///a.jpg")) == 32


def test_fingerprint_changes_with_content_model_and_settings() -> None:
    settings = DocumentSettings()
    prints = {
        fingerprint("a", "m", settings),
        fingerprint("b", "m", settings),
        fingerprint("a", "n", settings),
        fingerprint("a", "m", DocumentSettings(thumbnail_px=0)),
        fingerprint("a", "m", DocumentSettings(top_words=3)),
    }
    assert len(prints) == 5


def test_mapping_differences_name_field_and_type() -> None:
    wanted = {"properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}, "width": {"type": "integer"}}}
    found = {"properties": {"tokens": {"properties": {}}, "width": {"type": "integer"}, "more": {"type": "text"}}}
    assert mapping_differences(wanted, found) == ["tokens is object instead of rank_features", "uri is missing"]


@pytest.mark.parametrize("name", ["", "Photos", "a b", "a/b", "-a", "_a", ".a", "a*", "a,b", "x" * 201])
def test_names_that_no_engine_takes_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_alias(name)


def test_index_body_carries_the_model_and_leaves_its_source_alone() -> None:
    base: dict[str, Any] = {"mappings": {"properties": {}, "_meta": {"mine": 1}}}
    body = index_body(base, model_name="starter", model_id="starter-1")
    assert body["mappings"]["_meta"] == {"mine": 1, "stair_es": {"model_name": "starter", "model": "starter-1"}}
    assert base == {"mappings": {"properties": {}, "_meta": {"mine": 1}}}


def test_a_users_own_body_is_read_and_a_bad_one_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"settings": {}}))
    assert resources.load("mappings", "image", own) == {"settings": {}}
    own.write_text("[]")
    with pytest.raises(ResourceError, match=r"own\.json"):
        resources.load("mappings", "image", own)
    with pytest.raises(ResourceError, match=r"none\.json"):
        resources.load("mappings", "image", tmp_path / "none.json")
