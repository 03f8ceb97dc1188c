"""Which documents a policy may change, the script's parameters, and the policy as state of an index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.errors import expect_error

from stair_es import resources
from stair_es.cluster.metadata.index_metadata import IndexSpec, add_index_meta, build_index_meta
from stair_es.cluster.metadata.policy_state import (
    PolicyState,
    add_policy_to_body,
    check_policy_fields,
    check_policy_matches,
    parse_policy_state,
)
from stair_es.cluster.policy.script import TokenFieldLayout, build_affected_query, build_policy_script
from stair_es.cluster.policy.update_by_query import UpdateLimits, UpdateProgress
from stair_es.errors import IndexMismatch, ResourceError
from stair_es.taught_words import TaughtWord
from stair_es.token_policy import TokenPolicy

TAUGHT = TaughtWord(word="windmill", tokens={"a.c": 0.5, "tower": 1.0}, floor=0.25, full=1.0, model="m-1")
POLICY = TokenPolicy(name="p", mute=("a.b",), cap={"": 0.5}, merge={"dog": ("100%",)}, teach={"windmill": TAUGHT})
FEATURES = TokenFieldLayout(vector="rank_features", top_token_count=16, max_clauses=1024)


def make_index(settings: dict[str, Any] | None = None) -> dict[str, Any]:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings=settings or {})
    return add_index_meta(resources.load_json_resource("mappings", "image"), build_index_meta(index_spec, "photos"))


def test_affected_documents_have_its_tokens_or_another_policy() -> None:
    words = [{"rank_feature": {"field": f"tokens.{key}", "linear": {}}} for key in ("%", "100%25", "a%2Eb", "a%2Ec", "tower")]
    assert build_affected_query(POLICY, FEATURES) == {
        "bool": {
            "filter": [{"bool": {"should": [{"exists": {"field": "policy"}}, *words], "minimum_should_match": 1}}],
            "must_not": [{"term": {"policy": POLICY.digest}}],
        }
    }
    assert build_affected_query(None, FEATURES, {"2": "", "1": ""}) == {
        "bool": {"filter": [{"exists": {"field": "policy"}}], "must_not": [{"ids": {"values": ["1", "2"]}}]}
    }


def test_sparse_vector_query_clause() -> None:
    [either] = build_affected_query(POLICY, TokenFieldLayout(vector="sparse_vector", top_token_count=16, max_clauses=1024))[
        "bool"
    ]["filter"]
    words = {"%": 1.0, "100%25": 1.0, "a%2Eb": 1.0, "a%2Ec": 1.0, "tower": 1.0}
    assert either["bool"]["should"][1:] == [{"sparse_vector": {"field": "tokens", "query_vector": words, "prune": False}}]


def test_large_policies_scan_all_documents() -> None:
    small = TokenFieldLayout(vector="rank_features", top_token_count=16, max_clauses=10)
    query = build_affected_query(POLICY, small)
    assert query["bool"]["filter"] == [{"match_all": {}}]
    assert query["bool"]["must_not"] == [{"term": {"policy": POLICY.digest}}]


def test_script_gets_escaped_tokens_or_none() -> None:
    params = {
        "replacements": {"100%25": "dog"},
        "mute": {"a%2Eb": True},
        "floor": {},
        "cap": {"%": 0.5},
        "teach": {"a%2Ec": {"#windmill": 500}, "tower": {"#windmill": 1000}},
        "ranges": {"#windmill": [1_024_000, 4_096_000]},
        "top_token_count": 16,
    }
    assert build_policy_script(POLICY, FEATURES)["params"] == {"digest": POLICY.digest, **params}
    empty: dict[str, Any] = {name: {} for name in ("replacements", "mute", "floor", "cap", "teach", "ranges")}
    assert build_policy_script(None, FEATURES)["params"] == {"digest": None, "top_token_count": 16, **empty}
    assert len(build_policy_script(POLICY, FEATURES)["source"]) < 65_535  # what a cluster takes


def test_the_layout_is_that_of_the_index() -> None:
    assert TokenFieldLayout.from_index(make_index({"top_token_count": 4}), 99) == TokenFieldLayout(
        vector="rank_features", top_token_count=4, max_clauses=99
    )
    assert TokenFieldLayout.from_index(make_index(), 99).top_token_count == 16


@pytest.mark.parametrize(
    "state",
    [
        PolicyState(),
        PolicyState(policy=POLICY),
        PolicyState(policy=POLICY, pending_operation="apply"),
        PolicyState(pending_operation="rollback"),
    ],
)
def test_the_state_is_written_and_read(state: PolicyState) -> None:
    index = make_index()
    if state.to_json():
        index["mappings"]["_meta"]["stair_es"]["policy"] = state.to_json()
    assert parse_policy_state(index, "photos-1") == state


def test_a_policy_of_a_later_version_is_named() -> None:
    index = make_index()
    index["mappings"]["_meta"]["stair_es"]["policy"] = {"digest": "00", "policy": {"stair_es_policy": 2, "mute": ["a"]}}
    with expect_error("policy-format-unknown", ResourceError) as caught:
        parse_policy_state(index, "photos-1")
    assert "photos-1" in caught.value.message


def test_custom_bodies_get_the_policy_fields() -> None:
    body = make_index()
    assert add_policy_to_body(body, None) == body
    for name in ("policy", "policy_undo"):
        del body["mappings"]["properties"][name]
    with_it = add_policy_to_body(body, POLICY)
    assert with_it["mappings"]["properties"] == resources.load_json_resource("mappings", "image")["mappings"]["properties"]
    assert parse_policy_state(with_it, "") == PolicyState(policy=POLICY)
    assert "policy" not in body["mappings"]["_meta"]["stair_es"]


@pytest.mark.parametrize(
    "field",
    [
        {"policy": {"type": "text"}},
        {"policy_undo": {"properties": {}}},
        {"policy_undo": {"type": "object"}},
        {"policy": {"type": "keyword"}},  # ours come together
        {"policy_undo": {"type": "object", "enabled": False}},
    ],
)
def test_conflicting_foreign_fields_are_rejected(field: dict[str, Any]) -> None:
    with expect_error("policy-field-taken", IndexMismatch) as caught:
        check_policy_fields(field, "index 'x'")
    assert any(repr(name) in caught.value.message for name in field)


def test_an_ingest_requires_the_policy_of_the_index() -> None:
    check_policy_matches(None, PolicyState(policy=POLICY), "photos-1", "photos")
    check_policy_matches(POLICY, PolicyState(policy=replace(POLICY, name="q")), "", "")
    check_policy_matches(replace(POLICY, teach={}), PolicyState(policy=POLICY), "", "")
    for state in (PolicyState(), PolicyState(policy=TokenPolicy(mute=("x",))), PolicyState(pending_operation="rollback")):
        with expect_error("other-policy", IndexMismatch) as caught:
            check_policy_matches(POLICY, state, "photos-1", "photos")
        assert POLICY.digest in caught.value.message
        assert all(fact in caught.value.remedy for fact in ("policy apply", "--index photos"))


def test_slow_tasks_use_small_batches() -> None:
    assert [UpdateLimits(requests_per_second=rate).batch_size for rate in (-1.0, 0.2, 50.0, 1e6)] == [1000, 1, 50, 1000]
    assert UpdateProgress(total=9, changed=1, unchanged=2, conflicts=3, failed={"a": ""}).processed == 7
