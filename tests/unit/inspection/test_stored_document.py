"""One stored document, its thumbnail, and differences to the current model."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import pytest
from PIL import Image

from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, parse_token_vector
from stair_es.inspection.diff import TOLERANCE, CurrentVector, WeightDifference, compare_vectors, find_policy_effect
from stair_es.inspection.stored_document import StoredImage, parse_stored_image, parse_thumbnail
from stair_es.token_policy import PolicyUndo, TokenPolicy
from stair_es.types import SparseVector

POLICY = TokenPolicy(name="p", mute=("egyptian",), cap={"cat": 0.3}, rename={"hound": "dog"})
WORDS = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.5, "hound": 0.25, "a.b": 0.125})


def build_hit(vector: SparseVector, policy: TokenPolicy | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    metadata = ImageMetadata(
        uri="u",
        name="u",
        source="s",
        version="v",
        bytes=1,
        sha256="aa",
        width=1,
        height=2,
        format="PNG",
        taken_at=None,
        thumbnail="data:,",
    )
    document = build_document(
        vector,
        metadata,
        fields={"caption": "c"},
        model_id="m-1",
        fingerprint="f",
        ingested_at="t",
        settings=DocumentSettings(impacts=True),
        policy=policy,
    )
    return {"_id": "1", "_index": "i-1", "_source": {**document, **more}}


def build_current_vector(vector: SparseVector = WORDS, *, sha256: str = "aa", model: str = "m-1") -> CurrentVector:
    return CurrentVector(sha256=sha256, model=model, vector=vector)


def encode_picture(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def build_data_uri(type_: str, data: bytes) -> str:
    return f"data:{type_};base64,{base64.b64encode(data).decode()}"


def test_document_shows_words_and_readable_fields() -> None:
    image = parse_stored_image(build_hit(WORDS))
    assert (image.id, image.index, image.uri, image.vector) == ("1", "i-1", "u", WORDS)
    assert not {"tokens", "impacts", "thumbnail", "policy_undo"} & set(image.source)
    assert image.source["caption"] == "c"
    assert image.source["top_tokens"] == list(WORDS.tokens)
    assert not image.undo


@pytest.mark.parametrize("source", [None, {}, {"tokens": None}, {"tokens": [], "uri": ["u"], "policy_undo": 3}, {"uri": 7}])
def test_a_foreign_document_is_read_without_error(source: object) -> None:
    image = parse_stored_image({"_id": "1", "_source": source})
    assert image == StoredImage(id="1", index="", uri="", vector=SparseVector((), ()), source=image.source)


def test_tokens_that_no_query_can_find_are_left_out() -> None:
    tokens = {"dog": 1, "a%2Eb": "0.5", "zero": 0, "less": -1.0, "none": None, "nan": math.nan, "inf": math.inf, "%": 0.25}
    assert parse_token_vector(tokens) == SparseVector(("dog", "a.b", ""), (1.0, 0.5, 0.25))
    for malformed in ({"dog": "one"}, {"dog": {"a": 1}}, "dog"):
        assert parse_token_vector(malformed) == SparseVector((), ())


@pytest.mark.parametrize("form", ["WEBP", "JPEG", "PNG"])
def test_a_thumbnail_must_have_the_format_that_it_declares(form: str) -> None:
    data = encode_picture(Image.new("RGB", (8, 4), "red"), form)
    type_ = f"image/{form.lower()}"
    found = parse_thumbnail(build_data_uri(type_, data))
    assert found is not None
    assert (found.content_type, found.data) == (type_, data)
    for other in {"image/webp", "image/jpeg", "image/png"} - {type_}:
        assert parse_thumbnail(build_data_uri(other, data)) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "data:,",
        "https://elsewhere/a.png",
        build_data_uri("image/svg+xml", b"<svg onload='x()'/>"),
        build_data_uri("text/html", b"<script>"),
        build_data_uri("image/png", b"<script>"),
        "data:image/png;base64,@@@",
        "data:image/png;base64,iVBORw0KGgo=x",
        "data:image/webp;base64,UklGRg==",
        "data:image/png;base64,\u00e9",
        "data:image/png,\x89PNG",
    ],
)
def test_anything_else_is_rejected_as_a_thumbnail(value: object) -> None:
    assert parse_thumbnail(value) is None


def test_the_same_words_are_the_same_up_to_rounding() -> None:
    image = parse_stored_image(build_hit(WORDS))
    assert compare_vectors(image, build_current_vector(), None).is_same
    near = SparseVector.from_pairs((word, weight + 0.9 * TOLERANCE) for word, weight in WORDS)
    assert compare_vectors(image, build_current_vector(near), None).is_same
    far = SparseVector.from_pairs((word, weight + 1.1 * TOLERANCE) for word, weight in WORDS)
    found = compare_vectors(image, build_current_vector(far), None)
    assert [each.token for each in found.differences]
    assert not found.reasons


def test_comparison_lists_the_largest_differences_first() -> None:
    other = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.4, "fox": 0.9})
    found = compare_vectors(parse_stored_image(build_hit(WORDS)), build_current_vector(other, sha256="bb", model="m-2"), None)
    assert not found.is_same
    assert found.differences == (
        WeightDifference(token="fox", stored=0.0, current=0.9),
        WeightDifference(token="hound", stored=0.25, current=0.0),
        WeightDifference(token="a.b", stored=0.125, current=0.0),
        WeightDifference(token="egyptian", stored=0.5, current=0.4),
    )
    _, model = found.reasons
    assert ("m-1" in model, "m-2" in model) == (True, True)


@pytest.mark.parametrize("vector", [WORDS, SparseVector.from_mapping({"tree": 1.0})], ids=["with effect", "without effect"])
def test_an_applied_policy_is_not_reported_as_a_difference(vector: SparseVector) -> None:
    image = parse_stored_image(build_hit(vector, POLICY))
    comparison = compare_vectors(image, build_current_vector(vector), POLICY)
    assert comparison.is_same
    assert not comparison.reasons


def test_policies_not_yet_applied_and_rolled_back() -> None:
    late = compare_vectors(parse_stored_image(build_hit(WORDS)), build_current_vector(), POLICY)
    assert {each.token for each in late.differences} == {"cat", "egyptian", "hound", "dog"}
    assert POLICY.digest in late.reasons[0]
    assert "no token policy" in late.reasons[0]
    back = compare_vectors(parse_stored_image(build_hit(WORDS, POLICY)), build_current_vector(), None)
    assert not back.is_same
    assert POLICY.digest in back.reasons[0]


def test_the_effect_of_a_policy_is_shown() -> None:
    found = find_policy_effect(parse_stored_image(build_hit(WORDS, POLICY)), POLICY)
    assert found is not None
    assert found.rules == ("hound -> dog", "mute egyptian", "cap cat")
    assert {each.token: (each.current, each.stored) for each in found.tokens} == {
        "cat": (0.8, 0.3),
        "egyptian": (0.5, 0.0),
        "hound": (0.25, 0.0),
        "dog": (0.0, 0.25),
    }
    assert find_policy_effect(parse_stored_image(build_hit(WORDS)), POLICY) is None
    unknown = find_policy_effect(parse_stored_image(build_hit(WORDS, POLICY)), None)
    assert unknown is not None
    assert unknown.rules == ()
    assert unknown.tokens == found.tokens


def test_an_undo_without_a_valid_vector_is_ignored() -> None:
    image = StoredImage(id="1", index="", uri="", vector=WORDS, source={}, undo=PolicyUndo(tokens={"cat": -1.0}))
    found = find_policy_effect(image, POLICY)
    assert found is not None
    assert found.tokens == ()
