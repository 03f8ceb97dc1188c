"""Documents of other programs: which field holds the image, which fields are ours, and the update of a document."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error

import stair_es
from stair_es.cluster.documents.document import DocumentSettings, get_field_value
from stair_es.ingest.sinks.annotated_documents import (
    OPTIONAL_FIELDS,
    ImageBase,
    build_annotate_action,
    build_clear_action,
    build_version_action,
    choose_fields,
)
from stair_es.model import registry
from stair_es.sources.io.resolve import ResolvedImage
from stair_es.types import Json

MINI = registry.resolve_model(stair_es.ModelSpec(name="stair-mini"))


@pytest.mark.parametrize(
    ("source", "path", "value"),
    [
        ({"image": "a"}, "image", "a"),
        ({"image": ["a", "b"]}, "image", "a"),
        ({"image": []}, "image", None),
        ({"image": [None, "", "b"]}, "image", "b"),
        ({"image": ""}, "image", None),
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
    assert get_field_value(source, path) == value


@pytest.mark.parametrize(
    ("mapped", "ours", "chosen"),
    [
        ([], [], ["tokens", "top_tokens", *OPTIONAL_FIELDS]),
        (["colors", "model", "uri"], [], ["tokens", "top_tokens", *(x for x in OPTIONAL_FIELDS if x not in ("colors", "uri"))]),
        (["tokens", "top_tokens", "stair_es", "uri", "colors"], ["tokens", "top_tokens", "uri"], [
            *("tokens", "top_tokens", "uri"), *(x for x in OPTIONAL_FIELDS if x not in ("uri", "colors")),
        ]),
    ],
)  # fmt: skip
def test_fields_that_are_free_or_were_added_are_ours(mapped: list[str], ours: list[str], chosen: list[str]) -> None:
    meta = {"annotates": {"fields": ours}} if ours else {}
    assert choose_fields({"properties": dict.fromkeys(mapped)}, meta) == chosen


@pytest.mark.parametrize(
    ("mapping", "optional"),
    [
        ({"dynamic": False}, []),
        ({"dynamic": "runtime"}, []),
        ({"dynamic": "strict"}, list(OPTIONAL_FIELDS)),
        ({"runtime": {"colors": {"type": "keyword"}}}, [name for name in OPTIONAL_FIELDS if name != "colors"]),
    ],
)
def test_a_field_that_is_not_mapped_may_be_taken(mapping: dict[str, Any], optional: list[str]) -> None:
    assert choose_fields(mapping, {}) == ["tokens", "top_tokens", *optional]


@pytest.mark.parametrize("taken", ["tokens", "top_tokens", "stair_es"])
def test_a_required_field_of_the_other_program_is_never_taken(taken: str) -> None:
    for meta in ({}, {"model": "m"}):
        with expect_error("fields-taken"):
            choose_fields({"properties": {taken: {"type": "text"}}}, meta)


def test_an_update_replaces_the_fields_that_are_ours() -> None:
    vector = stair_es.SparseVector.from_mapping({"cat": 0.5})
    about: dict[str, Json] = {"image": "d1", "uri": "https://shop/a.jpg", "routing": "r"}
    document = stair_es.build_document(
        vector,
        stair_es.ImageMetadata(uri="index://shop/1", sha256="s", version="v", perceptual_hash="p", name="n"),
        model_id="m",
        fields={"stair_es": about},
        fingerprint="f",
        ingested_at="2026-01-01",
    )
    id_, lines = build_annotate_action("1", document, ["tokens", "uri", "perceptual_hash", "colors"])
    action, update = map(json.loads, lines.splitlines())
    assert (id_, action) == ("1", {"update": {"_id": "1", "retry_on_conflict": 3, "routing": "r"}})
    own = {"image": "d1", "model": "m", "sha256": "s", "fingerprint": "f", "version": "v", "annotated_at": "2026-01-01"}
    fields = {"tokens": {"cat": 0.5}, "uri": "https://shop/a.jpg", "perceptual_hash": "p", "stair_es": own}
    assert update["script"]["params"] == {
        "fields": fields,
        "absent": ["colors"],
        "names": ["tokens", "uri", "perceptual_hash", "colors", "stair_es"],
    }


@pytest.mark.parametrize("routing", [None, "r"])
def test_other_updates_are_routed_as_well(routing: str | None) -> None:
    own = {"routing": routing} if routing else {}
    for _, lines in (
        build_version_action("1", {"version": "v2", "stair_es": own}),
        build_clear_action("1", {"routing": routing}, ["tokens"]),
    ):
        assert json.loads(lines.splitlines()[0])["update"].get("routing") == routing


JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(90)).decode()


@pytest.mark.parametrize(
    ("base", "value", "uri"),
    [
        ("", "https://shop/a.jpg", "https://shop/a.jpg"),
        ("", "//cdn.shop/a.jpg", "https://cdn.shop/a.jpg"),
        ("http://shop/media", "//cdn.shop/a.jpg", "http://cdn.shop/a.jpg"),
        ("https://shop/media/", "a.jpg", "https://shop/media/a.jpg"),
        ("https://shop/media", "/other/a.jpg", "https://shop/other/a.jpg"),
        ("https://shop/media", JPEG, None),
        ("", f"data:image/jpeg;base64,{JPEG}", None),
        ("s3://bucket/shop", "a.jpg", "s3://bucket/shop/a.jpg"),
        ("s3://bucket/shop", "s3://bucket/shop/a.jpg", "s3://bucket/shop/a.jpg"),
    ],
)
def test_images_are_located(base: str, value: str, uri: str | None) -> None:
    located = ImageBase.parse(base).locate(value)
    assert isinstance(located, ResolvedImage), located
    assert located.uri == uri


@pytest.mark.parametrize(
    ("base", "value"),
    [
        *(
            ("", value)
            for value in ("a.jpg", "/etc/passwd", "file:///etc/passwd", "~/x", "s3://bucket/a.jpg", "hf://datasets/a/b")
        ),
        ("FOLDER", "../other.jpg"),
        ("FOLDER", "/etc/hostname"),
        ("FOLDER", "link/hostname"),
        ("FOLDER", "loop"),
        ("FOLDER", "s3://bucket/a.jpg"),
        ("https://shop/media", "file:///etc/passwd"),
        ("https://shop/media", "s3://bucket/a.jpg"),
        ("s3://bucket/shop", "s3://bucket/other/a.jpg"),
        ("s3://bucket/shop", "../other/a.jpg"),
        ("", "https://u:p@shop/a.jpg"),
        ("", "https://shop/?token=\ud800"),
        ("", "ftp://shop/a.jpg"),
    ],
)
def test_documents_lead_nowhere_else(base: str, value: str, tmp_path: Path) -> None:
    """Who writes the documents doesn't choose what this machine reads."""
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "other.jpg").touch()
    (folder / "link").symlink_to("/etc")
    (folder / "loop").symlink_to("loop")
    located = ImageBase.parse(str(folder) if base == "FOLDER" else base).locate(value)
    assert isinstance(located, str), located


def test_a_folder_may_be_a_uri_and_a_login_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").touch()
    located = ImageBase.parse(tmp_path.as_uri()).locate("a b.jpg")
    assert isinstance(located, ResolvedImage)
    with expect_error("credentials-in-url"):
        ImageBase.parse("https://u:p@shop/media")


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
