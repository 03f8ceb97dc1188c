"""Token policies: effect on a vector, rollback, and validation."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stair_es import SparseVector
from stair_es.errors import ResourceError
from stair_es.token_policy import TokenPolicy, load_policy, parse_policy

WORDS = [*"abcdefghij", "", ".", "%", "##s", "a.b", "犬", "\ue000", "\U0001f600"]


def vector(**weights: float) -> SparseVector:
    return SparseVector.from_mapping(weights)


def test_the_order_is_move_then_mute_then_cap() -> None:
    policy = TokenPolicy(mute=("egyptian",), cap={"dog": 0.5}, rename={"automobile": "car"}, merge={"dog": ("dogs", "puppy")})
    applied = policy.apply(vector(dogs=0.9, egyptian=0.8, automobile=0.7, grass=0.1))
    assert applied.vector == vector(car=0.7, dog=0.5, grass=0.1)
    assert applied.rules == ("dogs -> dog", "automobile -> car", "mute egyptian", "cap dog")
    assert set(policy.rules) == {*applied.rules, "puppy -> dog"}
    assert policy.tokens == ("automobile", "dog", "dogs", "egyptian", "puppy")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"dog": 0.5, "dogs": 0.75}, {"dog": 0.75}),
        ({"dog": 0.75, "dogs": 0.5}, {"dog": 0.75}),
        ({"dogs": 0.5, "puppy": 0.25}, {"dog": 0.5}),
        ({"puppy": 0.25}, {"dog": 0.25}),
    ],
)
def test_merged_tokens_keep_the_larger_weight(before: dict[str, float], after: dict[str, float]) -> None:
    policy = TokenPolicy(merge={"dog": ("dogs", "puppy")})
    applied = policy.apply(SparseVector.from_mapping(before))
    assert applied.vector.to_dict() == after
    assert applied.undo.restore(applied.vector).to_dict() == dict(sorted(before.items(), key=lambda pair: -pair[1]))


def test_an_unaffected_vector_stays_unchanged() -> None:
    policy = TokenPolicy(mute=("x",), cap={"dog": 0.5}, rename={"y": "z"})
    applied = policy.apply(vector(dog=0.5, z=0.25))
    assert (applied.vector, bool(applied.undo), applied.rules) == (vector(dog=0.5, z=0.25), False, ())


def test_emptied_vectors_are_restored() -> None:
    applied = TokenPolicy(mute=("a",)).apply(vector(a=0.1))
    assert len(applied.vector) == 0
    assert applied.undo.restore(applied.vector) == vector(a=0.1)


def test_queries_follow_the_tokens_but_are_neither_muted_nor_capped() -> None:
    policy = TokenPolicy(mute=("x",), cap={"dog": 0.5}, merge={"dog": ("dogs",)})
    assert policy.rewrite_query(vector(dogs=2.0, dog=1.0, x=0.5)) == vector(dog=2.0, x=0.5)


def random_policy(rng: np.random.Generator, words: list[str]) -> TokenPolicy:
    """Return a random valid policy over `words`."""
    mixed = [str(word) for word in rng.permutation(words)]
    sources, rest = mixed[: len(mixed) // 3], mixed[len(mixed) // 3 :]
    targets = [*rest[:3], "new", "new.er"]
    rename, merge = dict[str, str](), dict[str, tuple[str, ...]]()
    for source in sources:
        target = str(rng.choice(targets))
        if rng.random() < 0.5:
            rename[source] = target
        else:
            merge[target] = (*merge.get(target, ()), source)
    ends = rest[3:]
    cap = {word: float(rng.random()) + 1e-9 for word in [*rest[:2], *ends[: len(ends) // 2]]}
    return TokenPolicy(name="r", mute=tuple(ends[len(ends) // 2 :]), cap=cap, rename=rename, merge=merge)


def random_vector(rng: np.random.Generator, words: list[str]) -> SparseVector:
    chosen = rng.choice(len(words), size=int(rng.integers(0, len(words))), replace=False)
    weights = [float(rng.choice([rng.random() + 1e-9, float(np.float32(rng.random() + 1e-6)), 0.5, 0.0005])) for _ in chosen]
    return SparseVector.from_pairs((words[i], weight) for i, weight in zip(chosen, weights, strict=True))


def test_random_policies_keep_their_invariants() -> None:
    rng = np.random.default_rng(5)
    for _ in range(500):
        policy, before = random_policy(rng, WORDS), random_vector(rng, WORDS)
        applied = policy.apply(before)
        after, weights = applied.vector.to_dict(), before.to_dict()
        assert applied.undo.restore(applied.vector) == before
        assert bool(applied.undo) == bool(applied.rules) == (applied.vector != before)
        assert set(applied.rules) <= set(policy.rules)
        assert policy.apply(applied.vector).vector == applied.vector  # applied twice is applied once
        assert not set(after) & {*policy.mute, *policy.replacements}
        for word, weight in after.items():
            origins = [weights[w] for w in weights if policy.replacements.get(w, w) == word]
            assert weight == min(max(origins), policy.cap.get(word, np.inf))
        if not set(policy.tokens) & set(weights):
            assert applied.vector == before


def test_digest_identifies_the_rules() -> None:
    base = TokenPolicy(name="a", mute=("x", "y"), cap={"p": 1.0}, rename={"s": "t"})
    same = TokenPolicy(name="b", mute=("y", "x"), cap={"p": 1}, merge={"t": ("s",)})
    assert base.digest == same.digest
    assert len(base.digest) == 8
    assert int(base.digest, 16) >= 0
    others = [TokenPolicy(mute=("x",)), TokenPolicy(cap={"x": 1.0}), TokenPolicy(cap={"x": 0.5}), TokenPolicy(rename={"x": "y"})]
    assert len({base.digest, *(policy.digest for policy in others)}) == 5


def test_json_and_pickle_and_back() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        policy = random_policy(rng, WORDS)
        loaded = parse_policy(json.loads(json.dumps(policy.to_json())), "here")
        assert loaded == policy == pickle.loads(pickle.dumps(policy))
        assert loaded.digest == policy.digest


def test_unnamed_files_use_their_file_name(tmp_path: Path) -> None:
    file = tmp_path / "no-breeds.json"
    file.write_text('{"stair_es_policy": 1, "mute": ["egyptian"]}')
    assert load_policy(file).name == "no-breeds"
    assert load_policy(file).label == f"no-breeds ({load_policy(file).digest})"
    file.write_text('{"stair_es_policy": 1, "name": "own", "mute": ["egyptian"]}')
    assert load_policy(file).name == "own"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mute": ["a", "a"]}, "mute[1]: 'a' already has a rule: mute[0]"),
    ({"rename": {"a": "a"}}, "rename.a: 'a' is replaced by itself"),
    ({"merge": {"a": ["b", "a"]}}, "merge.a[1]: 'a' is replaced by itself"),
    ({"rename": {"a": "b", "b": "a"}}, "rename.a: 'b' is itself replaced by rename.b"),
    ({"rename": {"a": "b"}, "merge": {"c": ["b"]}}, "rename.a: 'b' is itself replaced by merge.c[0]"),
    ({"rename": {"a": "b"}, "merge": {"c": ["x", "a"]}}, "merge.c[1]: 'a' already has a rule: rename.a"),
    ({"merge": {"c": ["a", "a"]}}, "merge.c[1]: 'a' already has a rule: merge.c[0]"),
    ({"rename": {"a": "b"}, "mute": ["a"]}, "mute[0]: 'a' is already replaced by rename.a"),
    ({"rename": {"a": "b"}, "mute": ["b"]}, "mute[0]: 'b' already has a rule: rename.a"),
    ({"rename": {"a": "b"}, "cap": {"a": 1}}, "cap.a: 'a' is already replaced by rename.a"),
    ({"mute": ["a"], "cap": {"a": 1}}, "cap.a: 'a' is muted"),
    ({"cap": {"a": 0}}, "cap.a: 0 is not a valid weight"),
    ({"cap": {"a": -1}}, "cap.a: -1 is not a valid weight"),
    ({"cap": {"a": 1e-39}}, "cap.a: 1e-39 is not a valid weight"),
    ({"cap": {"a": float("nan")}}, "cap.a: nan is not a valid weight"),
    ({"cap": {"a": float("inf")}}, "cap.a: inf is not a valid weight"),
    ({"cap": {"a": 10**400}}, "cap.a: too large for a weight"),
    ({"cap": {"a": True}}, "cap.a: true is not a number"),
    ({"cap": {"a": "1"}}, 'cap.a: "1" is not a number'),
    ({"cap": ["a"]}, "cap: not an object"),
    ({"mute": "a"}, "mute: not a list of tokens"),
    ({"mute": [1]}, "mute[0]: 1 is not a token"),
    ({"mute": ["\ud800"]}, "mute[0]: '\\ud800' is not valid Unicode"),
    ({"merge": {"a": "b"}}, "merge.a: not a list of tokens"),
    ({"rename": {"a": None}}, "rename.a: null is not a token"),
    ({"name": 1, "mute": ["a"]}, "name: not a string"),
    ({"name": "\ud800", "mute": ["a"]}, "name: '\\ud800' is not valid Unicode"),
    ({"muted": ["a"]}, "muted: no such rule"),
    ({"stair_es_policy": 2, "mute": ["a"]}, "stair_es_policy is 2 instead of 1"),
    ({"stair_es_policy": True, "mute": ["a"]}, "stair_es_policy is true instead of 1"),
    ({}, "it has no rule"),
    ({"mute": [], "merge": {"a": []}}, "it has no rule"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_contradictions_and_other_forms_are_rejected_with_their_place(body: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"stair_es_policy": 1, **body}))
    with pytest.raises(ResourceError) as caught:
        load_policy(file)
    assert f"policy {file}: {message}" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "not an object"),
        ('{"mute": ["a"]}', "stair_es_policy is null"),
        ('{"stair_es_policy": 1, "cap": {"a": 1, "a": 2}}', "'a' is duplicated"),
        ('{"stair_es_policy": 1, "mute": [], "mute": ["a"]}', "'mute' is duplicated"),
        ("[" * 100_000, "can't read"),
    ],
    ids=["empty", "list", "no version", "word twice", "rule twice", "deep"],
)
def test_an_invalid_policy_is_rejected(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    with pytest.raises(ResourceError, match=message):
        load_policy(file)
    with pytest.raises(ResourceError, match=r"none\.json"):
        load_policy(tmp_path / "none.json")
