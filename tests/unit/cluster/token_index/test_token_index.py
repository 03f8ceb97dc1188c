"""Words as documents, how two sides differ, and which aliases move: all without a cluster."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import Any

import pytest

from stair_es.cluster.documents.read import WriteVersion
from stair_es.cluster.metadata.index_metadata import (
    INDEX_FORMAT,
    IndexSpec,
    build_index_meta,
    build_token_index_meta,
    check_index_format,
    check_not_token_index,
    get_index_meta,
    get_token_index_meta,
)
from stair_es.cluster.metadata.names import MAX_INDEX_NAME_BYTES, make_index_name, make_write_alias
from stair_es.cluster.token_index.documents import (
    TokenSummary,
    build_token_documents,
    check_pageable_mapping,
    compute_source_version,
)
from stair_es.cluster.token_index.index import TokenIndexState, build_alias_actions, make_token_alias, make_token_index_name
from stair_es.cluster.token_index.sync import find_orphan_images, find_stale_images
from stair_es.errors import IndexMismatch

SOURCE = {
    "tokens": {"dog": 0.5, "a%2Eb": 1.5, "%": 0.25, "50%25": 0.25},
    "top_tokens": ["a.b"],
    "uri": "file:///a.jpg",
    "source": "file:///",
    "model": "m-1",
    "fingerprint": "f",
    "ingested_at": "2026-01-01T00:00:00Z",
    "sha256": "00",
    "thumbnail": "data:,",
}


def test_token_documents_have_share_rank_and_image_fields() -> None:
    made = build_token_documents("1", {**SOURCE, "caption": ["two", "captions"], "taken_at": None}, "s", 3)
    image: dict[str, Any] = {name: SOURCE[name] for name in ("uri", "source", "model", "ingested_at")}
    image |= {"image_id": "1", "token_count": 4, "caption": ["two", "captions"], "source_version": "s"}
    assert made == {
        "1-1": {**image, "token": "a.b", "weight": 1.5, "rank": 1, "weight_share": 0.6},
        "1-2": {**image, "token": "dog", "weight": 0.5, "rank": 2, "weight_share": 0.2},
        "1-3": {
            **image,
            "token": "",
            "weight": 0.25,
            "rank": 3,
            "weight_share": 0.1,
        },  # of two that weigh the same the first by name
    }


@pytest.mark.parametrize("caption", [{"en": "a dog"}, 3, True, [{"a": 1}], [["a"]]])
def test_a_caption_that_is_not_text_is_left_out(caption: object) -> None:
    assert all(
        "caption" not in document for document in build_token_documents("1", {**SOURCE, "caption": caption}, "s", 3).values()
    )


@pytest.mark.parametrize("source", [{}, {"tokens": {"dog": 1.0}}, {"tokens": {}, "top_tokens": []}])
def test_without_top_tokens_there_are_no_tokens(source: dict[str, Any]) -> None:
    assert build_token_documents("1", source, "s", 16) == {}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (None, "no `tokens`"),
        ([{"dog": 1.0}], "list"),
        ({"dog": "heavy"}, "could not convert"),
        ({"dog": [1.0]}, "an invalid weight"),
        ({"dog": -1.0}, "above 0"),
    ],
)
def test_foreign_tokens_may_have_no_weights(tokens: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_token_documents("1", {"top_tokens": ["dog"], "tokens": tokens}, "s", 16)


def test_a_stamp_is_the_same_from_a_source_and_from_doc_values_and_changes_with_each_write() -> None:
    write = WriteVersion.from_hit({"_seq_no": 7, "_primary_term": 2})
    assert (
        compute_source_version({"fingerprint": "f", "policy": "p"}, write)
        == compute_source_version({"fingerprint": ["f"], "policy": ["p"]}, write)
        == "3.f.p.7.2"
    )
    others = [
        compute_source_version({"fingerprint": "f"}, write),
        compute_source_version({"fingerprint": "g", "policy": "p"}, write),
        compute_source_version({"policy": "p"}, write),
        compute_source_version({"fingerprint": "f", "policy": "p"}, WriteVersion(8, 2)),
        compute_source_version({"fingerprint": "f", "policy": "p"}, WriteVersion(7, 3)),
    ]
    assert len({*others, "3.f.p.7.2"}) == 6


def test_reconciling_makes_both_sides_equal() -> None:
    draw = random.Random(3)
    for _ in range(300):
        wanted = {str(i): f"s{draw.randrange(2)}" for i in draw.sample(range(12), draw.randrange(12))}
        sizes = {str(i): draw.randrange(1, 6) for i in range(12)}
        found = {
            str(i): TokenSummary(
                documents=draw.randrange(1, 5),
                token_count=draw.choice([None, sizes[str(i)]]),
                source_version=draw.choice([None, "s0", "s1"]),
            )
            for i in draw.sample(range(12), draw.randrange(12))
        }
        old, gone = find_stale_images(wanted, found, 3), find_orphan_images(found, wanted)
        assert not set(old) & set(gone)
        right = {i: TokenSummary(documents=min(3, sizes[i]), token_count=sizes[i], source_version=wanted[i]) for i in wanted}
        settled = {i: one for i, one in found.items() if i not in gone} | {i: right[i] for i in old}
        assert settled == right
        assert all(i not in found or found[i] != right[i] for i in old)  # nothing is written twice


def test_names() -> None:
    index_spec = IndexSpec(model_name="m", model_id="m" * 300, settings={})
    name = make_index_name("a" * 200, index_spec.model_id, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert len(make_write_alias(make_token_index_name(name))) == MAX_INDEX_NAME_BYTES
    assert (make_token_alias("photos"), make_token_index_name("photos-m-1")) == ("photos-tokens", "photos-m-1.tokens")


def _index(about: object) -> dict[str, Any]:
    return {"mappings": {"_meta": {"stair_es": about}}}


def test_a_token_index_is_not_an_image_index_and_the_reverse() -> None:
    images, tokens = _index({"alias": "a", "model": "m"}), _index({"alias": "a", "token_index_of": "x"})
    assert (get_index_meta(images), get_token_index_meta(images)) == ({"alias": "a", "model": "m"}, {})
    assert (get_index_meta(tokens), get_token_index_meta(tokens)) == ({}, {"alias": "a", "token_index_of": "x"})
    assert get_index_meta(_index(3)) == get_token_index_meta(_index(3)) == get_index_meta({}) == get_token_index_meta({}) == {}
    check_not_token_index("x", images)
    check_not_token_index("x", _index(3))
    with pytest.raises(IndexMismatch, match=r"'x.tokens' is the token index of 'x' and contains no images") as wrong:
        check_not_token_index("x.tokens", tokens)
    assert "--index a;" in wrong.value.remedy


@pytest.mark.parametrize("found", [None, 1, INDEX_FORMAT + 1, "2", [2]])
def test_an_index_of_another_format_is_rejected(found: object) -> None:
    about = {"alias": "a", "model": "m", **({} if found is None else {"format_version": found})}
    with pytest.raises(IndexMismatch, match=f"index 'x' has the format .* this version uses {INDEX_FORMAT}"):
        check_index_format("x", _index(about))


def test_current_and_foreign_indices_have_no_other_format() -> None:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={})
    for about in (build_index_meta(index_spec, "a"), build_token_index_meta("x", "a"), {}, 3):
        check_index_format("x", _index(about))
    check_index_format("x", {})


def _state(behind: set[str]) -> TokenIndexState:
    return TokenIndexState(alias="a", indices={"x.tokens": "x", "y.tokens": "y"}, identities={}, alias_targets=frozenset(behind))


def test_the_token_alias_moves_to_the_token_index_of_the_new_index_alone() -> None:
    add = {"add": {"index": "y.tokens", "alias": "a-tokens"}}
    assert build_alias_actions(_state({"x.tokens"}), "y") == [{"remove": {"index": "x.tokens", "alias": "a-tokens"}}, add]
    assert build_alias_actions(_state(set()), "y") == [add]
    assert build_alias_actions(_state({"y.tokens"}), "y") == []
    assert build_alias_actions(_state({"x.tokens"}), "z") == []  # no words of it: what was found stays
    for foreign in ("theirs", "a-tokens"):
        with pytest.raises(IndexMismatch, match=r"that alias points to|another index has that name"):
            build_alias_actions(_state({"x.tokens", foreign}), "y")


def test_unpageable_mapping_is_rejected() -> None:
    keyword = {"type": "keyword"}
    check_pageable_mapping({"uri": keyword, "sha256": keyword}, "m")
    with pytest.raises(IndexMismatch, match="no doc values for sha256"):
        check_pageable_mapping({"uri": keyword, "sha256": {**keyword, "doc_values": False}}, "m")
    with pytest.raises(IndexMismatch, match="no doc values for uri, sha256"):
        check_pageable_mapping({"uri": {"type": "text"}}, "m")
