"""Words as documents, how two sides differ, and which aliases move: all without a cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error

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
    ("tokens", "reason"),
    [
        (None, "no `tokens`"),
        ([{"dog": 1.0}], "list"),
        ({"dog": "heavy"}, "could not convert"),
        ({"dog": [1.0]}, "an invalid weight"),
        ({"dog": -1.0}, "above 0"),
    ],
)
def test_foreign_tokens_may_have_no_weights(tokens: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_token_documents("1", {"top_tokens": ["dog"], "tokens": tokens}, "s", 16)


def test_source_versions_change_with_each_write() -> None:
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


_IMAGE_IDS = st.sampled_from("abcdef")
_TOKEN_COUNTS = dict(zip("abcdef", (1, 2, 3, 4, 5, 5), strict=True))
_SUMMARIES = st.builds(
    TokenSummary,
    documents=st.integers(1, 4),
    token_count=st.none() | st.integers(1, 5),
    source_version=st.sampled_from((None, "s0", "s1")),
)


@given(expected=st.dictionaries(_IMAGE_IDS, st.sampled_from(("s0", "s1"))), stored=st.dictionaries(_IMAGE_IDS, _SUMMARIES))
def test_reconciling_makes_both_sides_equal(expected: dict[str, str], stored: dict[str, TokenSummary]) -> None:
    for id_, summary in stored.items():
        if summary.token_count:
            stored[id_] = replace(summary, token_count=_TOKEN_COUNTS[id_])
    stale, orphans = find_stale_images(expected, stored, 3), find_orphan_images(stored, expected)
    assert not set(stale) & set(orphans)
    correct = {
        id_: TokenSummary(documents=min(3, _TOKEN_COUNTS[id_]), token_count=_TOKEN_COUNTS[id_], source_version=version)
        for id_, version in expected.items()
    }
    kept = {id_: summary for id_, summary in stored.items() if id_ not in orphans}
    assert kept | {id_: correct[id_] for id_ in stale} == correct
    assert all(stored.get(id_) != correct[id_] for id_ in stale)  # nothing is written twice


def test_names() -> None:
    index_spec = IndexSpec(model_name="m", model_id="m" * 300, settings={})
    name = make_index_name("a" * 200, index_spec.model_id, datetime(2026, 1, 1, tzinfo=UTC))
    assert len(make_write_alias(make_token_index_name(name))) == MAX_INDEX_NAME_BYTES
    assert (make_token_alias("photos"), make_token_index_name("photos-m-1")) == ("photos-tokens", "photos-m-1.tokens")


def make_index(about: object) -> dict[str, Any]:
    return {"mappings": {"_meta": {"stair_es": about}}}


def test_a_token_index_is_not_an_image_index_and_the_reverse() -> None:
    images, tokens = make_index({"alias": "a", "model": "m"}), make_index({"alias": "a", "token_index_of": "x"})
    assert (get_index_meta(images), get_token_index_meta(images)) == ({"alias": "a", "model": "m"}, {})
    assert (get_index_meta(tokens), get_token_index_meta(tokens)) == ({}, {"alias": "a", "token_index_of": "x"})
    for foreign in (make_index(3), {}):
        assert get_index_meta(foreign) == get_token_index_meta(foreign) == {}
    check_not_token_index("x", images)
    check_not_token_index("x", make_index(3))
    with expect_error("token-index-given", IndexMismatch) as wrong:
        check_not_token_index("x.tokens", tokens)
    assert "'x.tokens'" in wrong.value.message
    assert "--index a;" in wrong.value.remedy


@pytest.mark.parametrize("found", [None, 1, INDEX_FORMAT + 1, "2", [2]])
def test_an_index_of_another_format_is_rejected(found: object) -> None:
    about = {"alias": "a", "model": "m", **({} if found is None else {"format_version": found})}
    with expect_error("other-index-format", IndexMismatch) as caught:
        check_index_format("x", make_index(about))
    assert "'x'" in caught.value.message
    assert str(INDEX_FORMAT) in caught.value.message


def test_current_and_foreign_indices_have_no_other_format() -> None:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={})
    for about in (build_index_meta(index_spec, "a"), build_token_index_meta("x", "a"), {}, 3):
        check_index_format("x", make_index(about))
    check_index_format("x", {})


def make_state(behind: set[str]) -> TokenIndexState:
    return TokenIndexState(alias="a", indices={"x.tokens": "x", "y.tokens": "y"}, identities={}, alias_targets=frozenset(behind))


def test_the_token_alias_moves_to_the_new_token_index() -> None:
    add = {"add": {"index": "y.tokens", "alias": "a-tokens"}}
    assert build_alias_actions(make_state({"x.tokens"}), "y") == [{"remove": {"index": "x.tokens", "alias": "a-tokens"}}, add]
    assert build_alias_actions(make_state(set()), "y") == [add]
    assert build_alias_actions(make_state({"y.tokens"}), "y") == []
    assert build_alias_actions(make_state({"x.tokens"}), "z") == []  # no words of it: what was found stays
    for foreign in ("theirs", "a-tokens"):
        with expect_error("token-index-name-taken", IndexMismatch):
            build_alias_actions(make_state({"x.tokens", foreign}), "y")


def test_unpageable_mapping_is_rejected() -> None:
    keyword = {"type": "keyword"}
    check_pageable_mapping({"uri": keyword, "sha256": keyword}, "m")
    for mapping, fields in (
        ({"uri": keyword, "sha256": {**keyword, "doc_values": False}}, "sha256"),
        ({"uri": {"type": "text"}}, "uri, sha256"),
        ({}, "uri, sha256"),
    ):
        with expect_error("no-doc-values", IndexMismatch) as caught:
            check_pageable_mapping(mapping, "m")
        assert caught.value.message.endswith(f" {fields}")
