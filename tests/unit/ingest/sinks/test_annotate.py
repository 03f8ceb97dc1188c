"""Documents of other programs: which field holds the image, which fields are ours, and the update of a document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.errors import expect_error

import stair_es
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.ingest.sinks.annotate import OPTIONAL_FIELDS, build_annotate_action, choose_fields, get_image_value
from stair_es.model import registry
from stair_es.types import Json

MINI = registry.resolve_model(stair_es.ModelSpec(name="stair-mini"))


@pytest.mark.parametrize(
    ("source", "path", "value"),
    [
        ({"image": "a"}, "image", "a"),
        ({"image": ["a", "b"]}, "image", "a"),
        ({"image": []}, "image", None),
        ({"image": [None, "b"]}, "image", "b"),
        ({"media": {"photo": "a"}}, "media.photo", "a"),
        ({"media": [{"title": "x"}, {"photo": ["a", "b"]}]}, "media.photo", "a"),
        ({"media.photo": "a"}, "media.photo", "a"),
        ({"media": {"photo.url": "a"}}, "media.photo.url", "a"),
        ({"media": "a"}, "media.photo", None),
        ({}, "image", None),
        ({"image": {"url": "a"}}, "image", {"url": "a"}),
    ],
)
def test_the_first_value_at_a_path_is_the_image(source: dict[str, Any], path: str, value: object) -> None:
    assert get_image_value(source, path) == value


@pytest.mark.parametrize(
    ("mapped", "ours", "chosen"),
    [
        ([], [], ["tokens", "top_tokens", *OPTIONAL_FIELDS]),
        (["colors", "model", "uri"], [], ["tokens", "top_tokens", *(x for x in OPTIONAL_FIELDS if x not in ("colors", "uri"))]),
        (["tokens", "top_tokens", "stair_es", "uri", "width"], ["tokens", "top_tokens", "uri"], [
            *("tokens", "top_tokens", "uri"), *(x for x in OPTIONAL_FIELDS if x not in ("uri", "width", "height")),
        ]),
    ],
)  # fmt: skip
def test_fields_that_are_free_or_were_added_are_ours(mapped: list[str], ours: list[str], chosen: list[str]) -> None:
    meta = {"annotates": {"fields": ours}} if ours else {}
    assert choose_fields(dict.fromkeys(mapped), meta) == chosen


@pytest.mark.parametrize("taken", ["tokens", "top_tokens", "stair_es"])
def test_a_required_field_of_the_other_program_is_never_taken(taken: str) -> None:
    with expect_error("fields-taken"):
        choose_fields({taken: {"type": "text"}}, {})


def test_an_update_replaces_the_fields_that_are_ours() -> None:
    vector = stair_es.SparseVector.from_mapping({"cat": 0.5})
    about: dict[str, Json] = {"image": "d1", "uri": "https://shop/a.jpg", "routing": "r"}
    document = stair_es.build_document(
        vector,
        stair_es.ImageMetadata(uri="index://shop/1", sha256="s", version="v", width=3, name="n"),
        model_id="m",
        fields={"stair_es": about},
        fingerprint="f",
        ingested_at="2026-01-01",
    )
    id_, lines = build_annotate_action("1", document, ["tokens", "uri", "width", "colors"])
    action, update = map(json.loads, lines.splitlines())
    assert (id_, action) == ("1", {"update": {"_id": "1", "retry_on_conflict": 3, "routing": "r"}})
    own = {"image": "d1", "model": "m", "sha256": "s", "fingerprint": "f", "version": "v", "annotated_at": "2026-01-01"}
    fields = {"tokens": {"cat": 0.5}, "uri": "https://shop/a.jpg", "width": 3, "stair_es": own}
    assert update["script"]["params"] == {"fields": fields, "absent": ["colors"]}


def test_the_mapping_of_a_program_has_its_fields_and_the_model() -> None:
    mapping = stair_es.build_mapping(MINI, {"price": "float", "seen": {"type": "date", "format": "year"}})
    assert (mapping["properties"]["price"], mapping["properties"]["seen"]["format"]) == ({"type": "float"}, "year")
    assert mapping["properties"]["tokens"] == {"type": "rank_features"}
    meta = mapping["_meta"]["stair_es"]
    assert (meta["model"], meta["model_name"], {"alias", "digest"} & meta.keys()) == ("stair-mini-3", "stair-mini", set())


@pytest.mark.parametrize(
    ("fields", "settings", "code"),
    [
        ({"tokens": "text"}, DocumentSettings(), "reserved-field-name"),
        ({"_id": "text"}, DocumentSettings(), "invalid-field-name"),
        ({}, DocumentSettings(impacts=True), "mapping-needs-cluster"),
        ({}, DocumentSettings(vector="sparse_vector"), "mapping-needs-cluster"),
    ],
)
def test_what_a_mapping_can_not_have_is_rejected(fields: dict[str, Any], settings: DocumentSettings, code: str) -> None:
    with expect_error(code):
        stair_es.build_mapping(MINI, fields, settings)
