"""Which documents a policy may change, the script's parameters, and the policy as state of an index."""

from __future__ import annotations

from typing import Any

import pytest

from stair_es import resources
from stair_es.cluster.identity import Identity, about, with_meta
from stair_es.cluster.policy_state import PolicyState, check_asked, missing_fields, state_of, with_policy
from stair_es.cluster.steer_body import affected, script
from stair_es.cluster.steer_task import Pass, Speed
from stair_es.cluster.token_ids import Layout, TokenIds
from stair_es.errors import IndexMismatch, ResourceError
from stair_es.policy import WordPolicy

POLICY = WordPolicy(name="p", mute=("a.b",), cap={"": 0.5}, merge={"dog": ("100%",)})
FEATURES = Layout(vector="rank_features", top_words=16, max_clauses=1024)


def made(settings: dict[str, Any] | None = None, tokens: tuple[str, ...] = ()) -> dict[str, Any]:
    identity = Identity(model_name="m", model_id="m-1", settings=settings or {}, tokens=tokens)
    return with_meta(resources.load("mappings", "image"), about(identity, "photos"))


def test_affected_are_documents_with_a_word_of_the_policy_or_with_another_policy() -> None:
    words = [{"rank_feature": {"field": f"tokens.{key}", "linear": {}}} for key in ("%", "100%25", "a%2Eb")]
    assert affected(POLICY, FEATURES) == {
        "bool": {
            "filter": [{"bool": {"should": [{"exists": {"field": "policy"}}, *words], "minimum_should_match": 1}}],
            "must_not": [{"term": {"policy": POLICY.digest}}],
        }
    }
    assert affected(None, FEATURES, {"2": "", "1": ""}) == {
        "bool": {"filter": [{"exists": {"field": "policy"}}], "must_not": [{"ids": {"values": ["1", "2"]}}]}
    }


def test_a_sparse_vector_is_asked_in_its_own_way() -> None:
    [either] = affected(POLICY, Layout(vector="sparse_vector", top_words=16, max_clauses=1024))["bool"]["filter"]
    words = {"%": 1.0, "100%25": 1.0, "a%2Eb": 1.0}
    assert either["bool"]["should"][1:] == [{"sparse_vector": {"field": "tokens", "query_vector": words, "prune": False}}]


def test_a_policy_of_more_words_than_clauses_goes_through_all_documents() -> None:
    small = Layout(vector="rank_features", top_words=16, max_clauses=10)
    query = affected(POLICY, small)
    assert query["bool"]["filter"] == [{"match_all": {}}]
    assert query["bool"]["must_not"] == [{"term": {"policy": POLICY.digest}}]


def test_the_script_gets_escaped_words_and_no_policy_is_none() -> None:
    params = {"becomes": {"100%25": "dog"}, "mute": {"a%2Eb": True}, "cap": {"%": 0.5}, "top_words": 16, "token_ids": None}
    assert script(POLICY, FEATURES)["params"] == {"digest": POLICY.digest, **params}
    none: dict[str, Any] = {"digest": None, "becomes": {}, "mute": {}, "cap": {}, "top_words": 16, "token_ids": None}
    assert script(None, FEATURES)["params"] == none
    assert len(script(POLICY, FEATURES)["source"]) < 65_535  # what a cluster takes


def test_the_script_gets_the_ids_that_documents_have_under_the_policy() -> None:
    numbered = Layout.of(made(tokens=("a.b", "cat", "100%")), 1024)
    assert numbered.token_ids == TokenIds({"a.b": 0, "cat": 1, "100%": 2})
    assert script(None, numbered)["params"]["token_ids"] == {"a%2Eb": "0", "cat": "1", "100%25": "2"}
    assert script(POLICY, numbered)["params"]["token_ids"] == {"a%2Eb": "0", "cat": "1", "100%25": "2", "dog": "2"}


def test_the_layout_is_that_of_the_index() -> None:
    assert Layout.of(made({"top_words": 4}), 99) == Layout(vector="rank_features", top_words=4, max_clauses=99)
    assert Layout.of(made(), 99).top_words == 16


@pytest.mark.parametrize(
    "state",
    [
        PolicyState(),
        PolicyState(policy=POLICY),
        PolicyState(policy=POLICY, under_way="apply"),
        PolicyState(under_way="rollback"),
    ],
)
def test_the_state_is_written_and_read(state: PolicyState) -> None:
    index = made()
    if state.to_json():
        index["mappings"]["_meta"]["stair_es"]["policy"] = state.to_json()
    assert state_of(index, "photos-1") == state


def test_a_policy_of_a_later_version_is_named() -> None:
    index = made()
    index["mappings"]["_meta"]["stair_es"]["policy"] = {"digest": "00", "policy": {"stair_es_policy": 2, "mute": ["a"]}}
    with pytest.raises(ResourceError, match="policy of the index photos-1: stair_es_policy is 2"):
        state_of(index, "photos-1")


def test_a_new_index_has_the_fields_even_with_a_body_that_lacks_them() -> None:
    body = made()
    assert with_policy(body, None) == body
    for name in ("policy", "policy_undo"):
        del body["mappings"]["properties"][name]
    with_it = with_policy(body, POLICY)
    assert with_it["mappings"]["properties"] == resources.load("mappings", "image")["mappings"]["properties"]
    assert state_of(with_it, "") == PolicyState(policy=POLICY)
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
def test_a_field_of_the_name_that_is_someone_s_own_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(IndexMismatch, match="a column 'policy"):
        missing_fields(field, "index 'x'")


def test_an_ingest_takes_what_is_there_or_asks_for_the_same() -> None:
    check_asked(None, PolicyState(policy=POLICY), "photos-1", "photos")
    check_asked(POLICY, PolicyState(policy=WordPolicy(name="q", mute=POLICY.mute, cap=POLICY.cap, merge=POLICY.merge)), "", "")
    for state in (PolicyState(), PolicyState(policy=WordPolicy(mute=("x",))), PolicyState(under_way="rollback")):
        with pytest.raises(IndexMismatch, match=POLICY.digest) as caught:
            check_asked(POLICY, state, "photos-1", "photos")
        assert "stair-es policy apply FILE --index photos" in caught.value.remedy


def test_a_slow_task_takes_a_second_s_documents_at_once() -> None:
    assert [Speed(requests_per_second=rate).batch for rate in (-1.0, 0.2, 50.0, 1e6)] == [1000, 1, 50, 1000]
    assert Pass(total=9, changed=1, unchanged=2, conflicts=3, failed={"a": ""}).done == 7
