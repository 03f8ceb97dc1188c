"""Documents, their identity and fingerprint."""

import json
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error

from stair_es import SparseVector, resources
from stair_es.cluster.documents.document import (
    IMPACT_SCALE,
    LABEL_FIELDS,
    RESERVED_FIELDS,
    DocumentSettings,
    ImageMetadata,
    build_document,
    build_label_fields,
    check_field_names,
    compute_document_fingerprint,
    encode_impacts,
    is_single_term,
    make_content_id,
    make_document_id,
    parse_policy_undo,
)
from stair_es.cluster.index.lifecycle import fit_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec, add_index_meta, compare_mappings, get_index_identity
from stair_es.cluster.metadata.names import check_alias_name, get_creation_ms, make_index_name
from stair_es.errors import ResourceError, UsageError
from stair_es.token_policy import TokenPolicy
from stair_es.types import Json

FACTS = ImageMetadata(
    uri="file:///a.jpg",
    name="a.jpg",
    source="file:///",
    version=None,
    bytes=8,
    sha256="00",
    width=3,
    height=2,
    format="PNG",
    taken_at=None,
    thumbnail=None,
)
FULL = replace(
    FACTS,
    folder="/",
    version="etag",
    modified_at="2026-01-01T00:00:00.000+00:00",
    perceptual_hash="00ff00ff00ff00ff",
    taken_at="2026-01-01T00:00:00",
    thumbnail="data:,",
    colors=("red", "white"),
)


def make_document(
    vector: dict[str, float],
    facts: ImageMetadata,
    fields: dict[str, Json],
    settings: DocumentSettings,
    policy: TokenPolicy | None = None,
) -> dict[str, Any]:
    return build_document(
        SparseVector.from_mapping(vector),
        facts,
        fields=fields,
        model_id="m-1",
        fingerprint="f",
        ingested_at="2026-01-01T00:00:00Z",
        settings=settings,
        policy=policy,
    )


def test_documents_have_tokens_columns_and_known_metadata() -> None:
    fields: dict[str, Json] = {"caption": "a dog", "stars": 5, "license": None}
    assert make_document({"dog": 0.9, ".": 0.5, "grass": 0.1}, FACTS, fields, DocumentSettings(top_token_count=2)) == {
        "tokens": {"dog": 0.9, "%2E": 0.5, "grass": 0.1},
        "top_tokens": ["dog", "."],
        "caption": "a dog",
        "stars": 5,
        "uri": "file:///a.jpg",
        "name": "a.jpg",
        "source": "file:///",
        "bytes": 8,
        "sha256": "00",
        "width": 3,
        "height": 2,
        "format": "PNG",
        "model": "m-1",
        "fingerprint": "f",
        "ingested_at": "2026-01-01T00:00:00Z",
    }


def test_own_fields_are_reserved_and_mapped() -> None:
    body = make_document({"dog": 1.0}, FULL, {}, DocumentSettings(impacts=True), TokenPolicy(cap={"dog": 0.5}))
    policy = TokenPolicy(mute=("cat",))
    body |= build_label_fields(SparseVector.from_mapping({"dog": 0.9, "cat": 0.5}), policy)
    assert set(body) == RESERVED_FIELDS
    assert body["colors"] == ["red", "white"]
    layers = [resources.load_json_resource("mappings", name)["mappings"]["properties"] for name in ("image", "impacts")]
    assert set().union(*layers, LABEL_FIELDS) == RESERVED_FIELDS | {"caption", "text", "text_boxes"}


def test_policy_changes_all_vector_fields_reversibly() -> None:
    policy = TokenPolicy(mute=("##s",), cap={"dog": 0.5}, rename={"automobile": "car.x"})
    settings = DocumentSettings(impacts=True)
    body = make_document({"dog": 1.0, "automobile": 0.75, "##s": 0.25}, FACTS, {}, settings, policy)
    assert body["tokens"] == {"car%2Ex": 0.75, "dog": 0.5}
    assert (body["top_tokens"], body["impacts"], body["policy"]) == (["car.x", "dog"], "dog|500", policy.digest)
    assert body["policy_undo"] == {"tokens": {"dog": 1.0, "automobile": 0.75, "##s": 0.25}, "added": ["car%2Ex"]}
    restored = parse_policy_undo(body).restore(SparseVector.from_mapping({"car.x": 0.75, "dog": 0.5}))
    assert restored == SparseVector.from_mapping({"dog": 1.0, "automobile": 0.75, "##s": 0.25})

    untouched = make_document({"cat": 1.0, "dog": 0.5}, FACTS, {}, settings, policy)
    assert untouched == make_document({"cat": 1.0, "dog": 0.5}, FACTS, {}, settings)
    emptied = make_document({"##s": 0.25}, FACTS, {}, settings, policy)
    assert (emptied["tokens"], emptied["top_tokens"], emptied["impacts"]) == ({}, [], "")


@pytest.mark.parametrize("weight", ["many", [1], {}, 10**400])
def test_an_undo_of_others_that_cannot_be_read_fails_alone(weight: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_policy_undo({"policy_undo": {"tokens": {"cat": weight}}})


def test_mappings_may_lack_fields_of_policies_and_texts() -> None:
    expected = resources.load_json_resource("mappings", "image")["mappings"]
    custom = {name: spec for name, spec in expected["properties"].items() if not name.startswith(("policy", "text"))}
    assert compare_mappings(expected, {"properties": custom}) == []
    own = {**custom, "policy": {"type": "text"}}
    [difference] = compare_mappings(expected, {"properties": own})
    assert {"policy", "text", "keyword"} <= set(difference.split())


@pytest.mark.parametrize("name", [*sorted(RESERVED_FIELDS), "tokens.dog", "_id", "_mine", "", ".", "a..b", "a."])
def test_invalid_column_names(name: str) -> None:
    code = "reserved-field-name" if name.partition(".")[0] in RESERVED_FIELDS else "invalid-field-name"
    with expect_error(code, UsageError) as caught:
        check_field_names(["caption", name])
    assert repr(name) in caught.value.message
    with expect_error(code, UsageError):
        make_document({"dog": 1.0}, FACTS, {name: "x"}, DocumentSettings())


def test_valid_column_names() -> None:
    check_field_names(["caption", "License", "exif.camera", "token", "größe", "a b"])


def test_impacts_are_rounded_at_least_1_and_searchable() -> None:
    vector = SparseVector.from_mapping({"dog": 1.2345, "grass": 0.0001, "##s": 2.0, "a|b": 2.0, "a b": 2.0, ".": 2.0, "": 2.0})
    assert IMPACT_SCALE == 1000
    assert encode_impacts(vector) == "dog|1234 grass|1"
    assert make_document(vector.to_dict(), FACTS, {}, DocumentSettings(impacts=True))["impacts"] == "dog|1234 grass|1"
    assert "impacts" not in make_document(vector.to_dict(), FACTS, {}, DocumentSettings())


@pytest.mark.parametrize("word", ["dog", "2004", "b2b", "café", "犬", "привет", "x" * 255])
def test_words_are_single_terms(word: str) -> None:
    assert is_single_term(word)


@pytest.mark.parametrize("word", ["", "##s", "it's", "a b", "a|b", "a-b", "3.5", "½", "日本", "ひら", "x" * 256, "\n", "dog\x00"])
def test_other_tokens_are_not_single_terms(word: str) -> None:
    assert not is_single_term(word)


def test_id_by_content_is_that_of_the_bytes() -> None:
    assert make_content_id("ab" * 32) == "ab" * 16


def test_the_id_depends_only_on_the_uri() -> None:
    assert make_document_id("file:///a.jpg") == make_document_id("file:///a.jpg") != make_document_id("file:///b.jpg")
    assert len(make_document_id("file:///a.jpg")) == 32


def test_fingerprint_depends_on_all_inputs() -> None:
    settings = DocumentSettings()
    others: dict[str, Any] = {
        "top_token_count": 3,
        "thumbnail_px": 0,
        "id": "content-hash",
        "impacts": True,
        "vector": "sparse_vector",
    }
    assert others.keys() == asdict(settings).keys()
    prints = [
        compute_document_fingerprint("a", "m", settings, {}),
        compute_document_fingerprint("b", "m", settings, {}),
        compute_document_fingerprint("a", "n", settings, {}),
        *(compute_document_fingerprint("a", "m", replace(settings, **{name: value}), {}) for name, value in others.items()),
        compute_document_fingerprint("a", "m", settings, {"caption": "dog"}),
        compute_document_fingerprint("a", "m", settings, {"caption": "cat"}),
        compute_document_fingerprint("a", "m", settings, {}, ["ocr-1"]),
        compute_document_fingerprint("a", "m", settings, {}, ["ocr-1", "blur-1"]),
        compute_document_fingerprint("a", "m", settings, {}, ["blur-1", "ocr-1"]),
    ]
    assert len(set(prints)) == len(prints)


def test_fingerprint_doesn_t_change_with_the_order_of_columns() -> None:
    settings = DocumentSettings()
    assert compute_document_fingerprint("a", "m", settings, {"x": 1, "y": 2}) == compute_document_fingerprint(
        "a", "m", settings, {"y": 2, "x": 1}
    )


def test_identity_is_model_and_settings_not_the_name() -> None:
    base = IndexSpec(model_name="m", model_id="m-1", settings={"a": 1, "b": 2})
    assert base.digest == replace(base, settings={"b": 2, "a": 1}).digest == replace(base, model_name="n").digest
    assert len({base.digest, replace(base, model_id="m-2").digest, replace(base, settings={"a": 1}).digest}) == 3
    assert len(base.digest) == 8


def test_index_names_respect_engine_limits() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
    assert make_index_name("photos", "Model@1/x", now) == "photos-model-1-x-20260102-020405-000006"
    assert len(make_index_name("a" * 200, "m" * 300, now) + ".tokens.write") == 255


@pytest.mark.parametrize(
    ("name", "creation_date", "created_ms"),
    [
        ("photos-m-1-20260102-020405-000006", "1700000000123", 1_700_000_000_123),
        ("photos-m-1-20260102-020405-250000", None, 1_767_319_445_250),
        ("photos-020405-250000", None, 0),
        ("photos-20261302-020405-250000", None, 0),
    ],
)
def test_an_index_was_created_when_its_name_says(name: str, creation_date: str | None, created_ms: int) -> None:
    assert get_creation_ms(name, creation_date) == created_ms


def test_an_index_without_uuid_is_known_by_its_own_id() -> None:
    body = {"settings": {"index": {"number_of_shards": 1, "refresh_interval": "5s"}}, "mappings": {"_meta": {"mine": 1}}}
    first, second = (fit_index_body(body, "elasticsearch-serverless") for _ in range(2))
    assert first["settings"] == {"index": {"refresh_interval": "5s"}}
    assert first["mappings"]["_meta"]["mine"] == 1
    hidden = {get_index_identity({**index, "settings": {}}) for index in (first, first, second)}
    assert (len(hidden), "" in hidden) == (2, False)
    settings = {"index": {"uuid": "u", "history": {"uuid": "h"}}}
    assert get_index_identity({**first, "settings": settings}) == get_index_identity({"settings": settings}) == "u h"
    assert get_index_identity({"mappings": {}}) == ""
    assert fit_index_body(body, "opensearch-service") == body
    assert fit_index_body(body, "opensearch-serverless")["settings"] == {}


def test_mapping_differences_name_field_and_type() -> None:
    expected = {"properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}, "width": {"type": "integer"}}}
    found = {"properties": {"tokens": {"properties": {}}, "width": {"type": "integer"}, "more": {"type": "text"}}}
    other_type, missing = compare_mappings(expected, found)
    assert {"tokens", "object", "rank_features"} <= set(other_type.split())
    assert "uri" in missing


@pytest.mark.parametrize("name", ["", "Photos", "a b", "a/b", "-a", "_a", ".a", "a*", "a,b", "x" * 201])
def test_invalid_index_names_are_rejected(name: str) -> None:
    with expect_error("invalid-index-name", UsageError):
        check_alias_name(name)


def test_with_meta_copies_its_source() -> None:
    base: dict[str, Any] = {"mappings": {"properties": {}, "_meta": {"mine": 1}}}
    assert add_index_meta(base, {"model": "m"})["mappings"]["_meta"] == {"mine": 1, "stair_es": {"model": "m"}}
    assert base == {"mappings": {"properties": {}, "_meta": {"mine": 1}}}


def test_custom_bodies_are_read_and_checked(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"settings": {}}))
    assert resources.load_json_resource("mappings", "image", own) == {"settings": {}}
    own.write_text("[]")
    with expect_error("resource-not-an-object", ResourceError) as caught:
        resources.load_json_resource("mappings", "image", own)
    assert "own.json" in caught.value.message
    with expect_error("resource-unreadable", ResourceError) as caught:
        resources.load_json_resource("mappings", "image", tmp_path / "none.json")
    assert "none.json" in caught.value.message
