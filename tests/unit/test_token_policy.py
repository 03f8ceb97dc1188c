"""Token policies: effect on a vector, rollback, and validation."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error
from support.strategies import JSON_VALUES, build_vectors, mix_rarely

from stair_es import SparseVector
from stair_es.config.policy_file import load_policy, parse_policy
from stair_es.errors import ResourceError
from stair_es.taught_words import TaughtWord
from stair_es.token_policy import MIN_WEIGHT, TokenPolicy

WORDS = [*"abcdefghij", "", ".", "%", "##s", "a.b", "犬", "\ue000", "\U0001f600"]


def make_vector(**weights: float) -> SparseVector:
    return SparseVector.from_mapping(weights)


def test_the_order_is_move_then_mute_then_cap_then_floor() -> None:
    policy = TokenPolicy(
        mute=("egyptian",),
        floor={"grass": 0.1, "sky": 0.6, "sun": 0.3},
        cap={"dog": 0.5, "sky": 0.7},
        rename={"automobile": "car"},
        merge={"dog": ("dogs", "puppy")},
    )
    applied = policy.apply(make_vector(dogs=0.9, egyptian=0.8, automobile=0.7, sky=0.5, sun=0.2, grass=0.1))
    assert applied.vector == make_vector(car=0.7, dog=0.5, grass=0.1)
    assert applied.rules == ("dogs -> dog", "automobile -> car", "mute egyptian", "cap dog", "floor sky", "floor sun")
    assert set(policy.rules) == {*applied.rules, "puppy -> dog", "floor grass", "cap sky"}
    assert policy.tokens == ("automobile", "dog", "dogs", "egyptian", "grass", "puppy", "sky", "sun")


WEIGHTS = st.floats(MIN_WEIGHT, 2.0) | st.sampled_from((0.5, 0.0005))
VECTORS = build_vectors(st.sampled_from(WORDS), WEIGHTS, min_size=0)


@st.composite
def draw_policy(draw: st.DrawFn) -> TokenPolicy:
    """Draw a valid policy over `WORDS`."""
    roles = {word: draw(st.sampled_from(("", "cap", "floor", "mute", "rename", "merge"))) for word in WORDS}
    targets = st.sampled_from(["new", "new.er", *(word for word, role in roles.items() if role in ("", "cap", "floor"))])
    merge: dict[str, tuple[str, ...]] = {}
    for word in (word for word, role in roles.items() if role == "merge"):
        target = draw(targets)
        merge[target] = (*merge.get(target, ()), word)
    return TokenPolicy(
        name=draw(st.text()),
        mute=tuple(word for word, role in roles.items() if role == "mute"),
        floor={word: draw(WEIGHTS) for word, role in roles.items() if role == "floor"},
        cap={word: draw(WEIGHTS) for word, role in roles.items() if role == "cap"},
        rename={word: draw(targets) for word, role in roles.items() if role == "rename"},
        merge=merge,
        teach={word: draw(draw_taught_word(word)) for word in draw(st.sets(st.sampled_from(("windmill", "art nouveau"))))},
    )


@st.composite
def draw_taught_word(draw: st.DrawFn, word: str) -> TaughtWord:
    steps = draw(st.dictionaries(st.sampled_from(WORDS), st.integers(1, 1000), min_size=1))
    floor = draw(st.integers(0, 100)) / 100
    return TaughtWord(
        word=word,
        tokens={token: count / 1000 for token, count in steps.items()},
        floor=floor,
        full=floor + draw(st.integers(1, 100)) / 100,
        mode=draw(st.sampled_from(("replace", "add"))),
        model=draw(st.sampled_from(("", "m-1"))),
        yes=tuple(draw(st.lists(st.text("abc", min_size=1), max_size=2))),
        precision=draw(st.none() | st.floats(0, 1)),
    )


@given(policy=draw_policy(), before=VECTORS)
def test_policies_keep_their_invariants(policy: TokenPolicy, before: SparseVector) -> None:
    applied = policy.apply(before)
    after, weights = applied.vector.to_dict(), before.to_dict()
    assert applied.undo.restore(applied.vector) == before
    assert bool(applied.undo) == bool(applied.rules) == (applied.vector != before)
    assert set(applied.rules) <= set(policy.rules)
    for taught in policy.teach.values():
        assert after.pop(taught.token, 0.0) == taught.compute_weight(before)
    others = replace(policy, teach={})
    once = others.apply(before).vector
    assert once.to_dict() == after
    assert others.apply(once).vector == once  # applied twice is applied once
    assert not set(after) & {*policy.mute, *policy.replacements}
    for word, weight in after.items():
        origins = [weights[w] for w in weights if policy.replacements.get(w, w) == word]
        assert weight == min(max(origins), policy.cap.get(word, math.inf)) >= policy.floor.get(word, 0.0)
    if not set(policy.tokens) & set(weights):
        assert applied.vector == before


@given(policy=draw_policy(), vector=VECTORS)
def test_queries_follow_the_tokens_of_a_policy_only(policy: TokenPolicy, vector: SparseVector) -> None:
    """They are neither muted nor capped."""
    weights = vector.to_dict()
    rewritten = policy.rewrite_query(vector).to_dict()
    assert set(rewritten) == set(policy.replace_tokens(weights))
    for token, weight in rewritten.items():
        assert weight == max(weights[old] for old in weights if policy.replacements.get(old, old) == token)


def test_digest_identifies_the_rules() -> None:
    base = TokenPolicy(name="a", mute=("x", "y"), cap={"p": 1.0}, rename={"s": "t"})
    same = TokenPolicy(name="b", mute=("y", "x"), cap={"p": 1}, merge={"t": ("s",)})
    assert base.digest == same.digest
    assert len(base.digest) == 8
    assert int(base.digest, 16) >= 0
    others = [TokenPolicy(mute=("x",)), TokenPolicy(cap={"x": 1.0}), TokenPolicy(cap={"x": 0.5}), TokenPolicy(rename={"x": "y"})]
    others.append(TokenPolicy(floor={"x": 0.5}))
    assert len({base.digest, *(policy.digest for policy in others)}) == 6


@given(policy=draw_policy().filter(lambda policy: policy.rules))
def test_policies_survive_json_and_pickle(policy: TokenPolicy) -> None:
    loaded = parse_policy(json.loads(json.dumps(policy.to_json())), "here")
    assert loaded == policy == pickle.loads(pickle.dumps(policy))
    assert loaded.digest == policy.digest


_TOKENS = mix_rarely(st.sampled_from("abcdefgh"), JSON_VALUES)
_RULES = {
    "name": st.text(),
    "mute": st.lists(_TOKENS, max_size=3),
    "cap": st.dictionaries(_TOKENS.filter(lambda token: isinstance(token, str)), mix_rarely(WEIGHTS, JSON_VALUES), max_size=3),
    "rename": st.dictionaries(st.sampled_from("abcdefgh"), _TOKENS, max_size=3),
    "merge": st.dictionaries(st.sampled_from("abcdefgh"), st.lists(_TOKENS, max_size=3), max_size=3),
    "teach": st.dictionaries(
        st.sampled_from(("a", "windmill")),
        st.fixed_dictionaries(
            {
                "tokens": st.dictionaries(st.sampled_from("abc"), mix_rarely(st.just(0.5), JSON_VALUES), max_size=3),
                "floor": mix_rarely(st.just(0.2), JSON_VALUES),
                "full": mix_rarely(st.just(1.0), JSON_VALUES),
            }
        ),
        max_size=2,
    ),
}
_BODIES = st.fixed_dictionaries(
    {"stair_es_policy": mix_rarely(st.just(1), JSON_VALUES)},
    optional={name: mix_rarely(values, JSON_VALUES) for name, values in _RULES.items()},
)


@given(body=mix_rarely(_BODIES, JSON_VALUES))
def test_policies_of_any_json_are_valid_or_rejected(body: Any) -> None:  # noqa: ANN401  JSON
    try:
        policy = parse_policy(body, "here")
    except ResourceError:
        return
    assert policy.rules
    assert parse_policy(policy.to_json(), "here") == policy


def test_unnamed_files_use_their_file_name(tmp_path: Path) -> None:
    file = tmp_path / "no-breeds.json"
    file.write_text('{"stair_es_policy": 1, "mute": ["egyptian"]}')
    assert load_policy(file).name == "no-breeds"
    assert load_policy(file).label == f"no-breeds ({load_policy(file).digest})"
    file.write_text('{"stair_es_policy": 1, "name": "own", "mute": ["egyptian"]}')
    assert load_policy(file).name == "own"


TAUGHT: dict[str, Any] = {"tokens": {"b": 0.5}, "floor": 0.2, "full": 1.0}


def test_no_change_makes_more_words_than_can_be_read() -> None:
    word = TaughtWord(word="a", tokens={"b": 0.5}, floor=0.2, full=1.0)
    full = TokenPolicy(teach={f"a{i}": replace(word, word=f"a{i}") for i in range(2000)})
    with expect_error("too-many-taught-words"):
        full.change_words({"b": replace(word, word="b")})


INVALID_RULES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"mute": ["a", "a"]}, "policy-token-in-two-rules", ["mute[1]", "mute[0]"]),
    ({"rename": {"a": "a"}}, "policy-token-replaced-by-itself", ["rename.a"]),
    ({"merge": {"a": ["b", "a"]}}, "policy-token-replaced-by-itself", ["merge.a[1]"]),
    ({"rename": {"a": "b", "b": "a"}}, "policy-replacement-replaced", ["rename.a", "rename.b"]),
    ({"rename": {"a": "b"}, "merge": {"c": ["b"]}}, "policy-replacement-replaced", ["rename.a", "merge.c[0]"]),
    ({"rename": {"a": "b"}, "merge": {"c": ["x", "a"]}}, "policy-token-in-two-rules", ["merge.c[1]", "rename.a"]),
    ({"merge": {"c": ["a", "a"]}}, "policy-token-in-two-rules", ["merge.c[1]", "merge.c[0]"]),
    ({"rename": {"a": "b"}, "mute": ["a"]}, "policy-token-replaced-twice", ["mute[0]", "rename.a"]),
    ({"rename": {"a": "b"}, "mute": ["b"]}, "policy-token-in-two-rules", ["mute[0]", "rename.a"]),
    ({"rename": {"a": "b"}, "cap": {"a": 1}}, "policy-token-replaced-twice", ["cap.a", "rename.a"]),
    ({"mute": ["a"], "cap": {"a": 1}}, "policy-limit-of-muted", ["cap.a"]),
    ({"mute": ["a"], "floor": {"a": 1}}, "policy-limit-of-muted", ["floor.a"]),
    ({"floor": {"a": 2}, "cap": {"a": 1}}, "policy-floor-above-cap", ["floor.a"]),
    ({"floor": {"a": 0}}, "policy-limit-invalid", ["floor.a"]),
    ({"floor": {"a": "1"}}, "policy-not-a-number", ["floor.a"]),
    ({"cap": {"a": 0}}, "policy-limit-invalid", ["cap.a"]),
    ({"cap": {"a": -1}}, "policy-limit-invalid", ["cap.a"]),
    ({"cap": {"a": 1e-39}}, "policy-limit-invalid", ["cap.a"]),
    ({"cap": {"a": float("nan")}}, "policy-limit-invalid", ["cap.a"]),
    ({"cap": {"a": float("inf")}}, "policy-limit-invalid", ["cap.a"]),
    ({"cap": {"a": 10**400}}, "policy-weight-too-large", ["cap.a"]),
    ({"cap": {"a": True}}, "policy-not-a-number", ["cap.a"]),
    ({"cap": {"a": "1"}}, "policy-not-a-number", ["cap.a"]),
    ({"cap": ["a"]}, "policy-not-an-object", ["cap"]),
    ({"mute": "a"}, "policy-not-a-token-list", ["mute"]),
    ({"mute": [1]}, "policy-not-a-token", ["mute[0]"]),
    ({"mute": ["\ud800"]}, "policy-not-unicode", ["mute[0]"]),
    ({"merge": {"a": "b"}}, "policy-not-a-token-list", ["merge.a"]),
    ({"rename": {"a": None}}, "policy-not-a-token", ["rename.a"]),
    ({"name": 1, "mute": ["a"]}, "policy-name-invalid", ["name"]),
    ({"name": "\ud800", "mute": ["a"]}, "policy-not-unicode", ["name"]),
    ({"muted": ["a"]}, "policy-unknown-rule", ["muted"]),
    ({"stair_es_policy": 2, "mute": ["a"]}, "policy-format-unknown", ["stair_es_policy"]),
    ({"stair_es_policy": True, "mute": ["a"]}, "policy-format-unknown", ["stair_es_policy"]),
    ({"teach": []}, "policy-not-an-object", ["teach"]),
    ({"teach": {"a": 1}}, "policy-not-an-object", ["teach.a"]),
    ({"teach": {"a|b": TAUGHT}}, "not-a-teachable-word", ["a|b"]),
    ({"teach": {"a": TAUGHT, "A": TAUGHT}}, "taught-word-twice", ["teach.A"]),
    ({"teach": {"a": {**TAUGHT, "tokens": {}}}}, "taught-word-tokens", ["teach.a.tokens"]),
    ({"teach": {"a": {**TAUGHT, "tokens": {f"t{i}": 1 for i in range(33)}}}}, "taught-word-tokens", ["teach.a.tokens"]),
    ({"teach": {"a": {**TAUGHT, "tokens": {"b": -0.1}}}}, "taught-word-weight", ["teach.a.tokens.b"]),
    ({"teach": {"a": {**TAUGHT, "tokens": {"b": 1.1}}}}, "taught-word-weight", ["teach.a.tokens.b"]),
    ({"teach": {"a": {**TAUGHT, "precision": float("nan")}}}, "taught-word-range", ["teach.a.precision"]),
    ({"teach": {"a": {**TAUGHT, "floor": 1}}}, "taught-word-range", ["teach.a"]),
    ({"teach": {"a": {**TAUGHT, "full": float("inf")}}}, "taught-word-range", ["teach.a"]),
    ({"teach": {"a": {**TAUGHT, "full": 1e300}}}, "taught-word-range", ["teach.a"]),
    ({"teach": {"a": {**TAUGHT, "floor": float("nan")}}}, "taught-word-range", ["teach.a"]),
    ({"teach": {"a": {**TAUGHT, "floor": 10**400}}}, "policy-weight-too-large", ["teach.a.floor"]),
    ({"teach": {"a": {**TAUGHT, "mode": "merge"}}}, "taught-word-mode", ["teach.a.mode"]),
    ({"teach": {"a": {**TAUGHT, "yes": "id"}}}, "taught-word-marks", ["teach.a.yes"]),
    ({"teach": {"a": {**TAUGHT, "yes": ["id"] * 21}}}, "taught-word-marks", ["teach.a.yes"]),
    ({"teach": {"a": {**TAUGHT, "no": ["i" * 513]}}}, "taught-word-marks", ["teach.a.no"]),
    ({"teach": {"a": {**TAUGHT, "taught_at": "t" * 513}}}, "taught-word-field", ["teach.a.taught_at"]),
    ({"teach": {"a": {**TAUGHT, "tokens": {"t" * 513: 1}}}}, "taught-word-tokens", ["teach.a.tokens"]),
    ({"teach": {f"a{i}": TAUGHT for i in range(2001)}}, "too-many-taught-words", ["2,001"]),
    ({"teach": {"a": {**TAUGHT, "model": 3}}}, "taught-word-field", ["teach.a.model"]),
    ({"teach": {"a": {**TAUGHT, "weight": 3}}}, "taught-word-field", ["teach.a.weight"]),
    ({"teach": {"a": TAUGHT}, "mute": ["a"]}, "taught-word-in-policy", ["teach.a", "mute[0]"]),
    ({"teach": {"a": TAUGHT}, "rename": {"c": "#a"}}, "taught-word-in-policy", ["teach.a", "rename.c"]),
    ({}, "policy-empty", []),
    ({"mute": [], "merge": {"a": []}}, "policy-empty", []),
]
"""A body, and the code and the places in the error."""


@pytest.mark.parametrize(("body", "code", "places"), INVALID_RULES, ids=range(len(INVALID_RULES)))
def test_invalid_rules_are_rejected_with_their_place(body: dict[str, Any], code: str, places: list[str], tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"stair_es_policy": 1, **body}))
    with expect_error(code, ResourceError) as caught:
        load_policy(file)
    assert str(file) in caught.value.message
    assert [place for place in places if place not in caught.value.message] == []
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "code", "fact"),
    [
        ("", "policy-unreadable", ""),
        ("[]", "policy-not-an-object", ""),
        ('{"mute": ["a"]}', "policy-format-unknown", "stair_es_policy"),
        ('{"stair_es_policy": 1, "cap": {"a": 1, "a": 2}}', "policy-unreadable", "'a'"),
        ('{"stair_es_policy": 1, "mute": [], "mute": ["a"]}', "policy-unreadable", "'mute'"),
        ("[" * 100_000, "policy-unreadable", ""),
    ],
    ids=["empty", "list", "no version", "token twice", "rule twice", "deep"],
)
def test_invalid_policy_files_are_rejected(text: str, code: str, fact: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    with expect_error(code, ResourceError) as caught:
        load_policy(file)
    assert str(file) in caught.value.message
    assert fact in caught.value.message


def test_missing_policy_files_are_rejected(tmp_path: Path) -> None:
    with expect_error("policy-unreadable", ResourceError) as caught:
        load_policy(tmp_path / "none.json")
    assert "none.json" in caught.value.message
