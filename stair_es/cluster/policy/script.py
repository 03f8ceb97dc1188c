"""The update script of a policy, and the query for the documents that it affects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from stair_es import feature_names
from stair_es.cluster.metadata.index_metadata import get_top_token_count
from stair_es.token_policy import TokenPolicy

_OTHER_CLAUSES = 8
"""Clauses of the query in addition to those for tokens."""


@dataclass(frozen=True, kw_only=True)
class TokenFieldLayout:
    """Layout of the token fields of an index."""

    vector: str
    top_token_count: int
    max_clauses: int

    @classmethod
    def from_index(cls, index: Mapping[str, Any], max_clauses: int) -> TokenFieldLayout:
        """Build the layout from a GET index response."""
        tokens = index.get("mappings", {}).get("properties", {}).get("tokens", {})
        return cls(
            vector=tokens.get("type", "rank_features"), top_token_count=get_top_token_count(index), max_clauses=max_clauses
        )


def build_policy_script(policy: TokenPolicy | None, layout: TokenFieldLayout) -> dict[str, Any]:
    """Build the script that applies a policy to a document, or removes the applied one."""
    policy_params: dict[str, Any] = {
        "digest": None,
        "replacements": {},
        "mute": {},
        "floor": {},
        "cap": {},
        "teach": {},
        "ranges": {},
    }
    if policy:
        policy_params = {
            "digest": policy.digest,
            "replacements": {
                feature_names.escape_feature(token): feature_names.escape_feature(target)
                for token, target in policy.replacements.items()
            },
            "mute": {feature_names.escape_feature(token): True for token in policy.mute},
            "floor": {feature_names.escape_feature(token): min_weight for token, min_weight in policy.floor.items()},
            "cap": {feature_names.escape_feature(token): max_weight for token, max_weight in policy.cap.items()},
            "teach": {
                feature_names.escape_feature(token): {_escape_word(policy, word): count for word, count in units.items()}
                for token, units in policy.taught_units.items()
            },
            "ranges": {_escape_word(policy, name): list(word.range_units) for name, word in policy.teach.items()},
        }
    params = {**policy_params, "top_token_count": layout.top_token_count}
    return {"lang": "painless", "source": _load_script_source(), "params": params}


def _escape_word(policy: TokenPolicy, word: str) -> str:
    return feature_names.escape_feature(policy.teach[word].token)


@cache
def _load_script_source() -> str:
    return (files("stair_es.cluster.policy") / "policy.painless").read_text(encoding="utf-8")


def build_affected_query(policy: TokenPolicy | None, layout: TokenFieldLayout, skip: Iterable[str] = ()) -> dict[str, Any]:
    """Build the query for all documents that a policy may change: those with one of its tokens, or with another policy.

    If a policy has more tokens than a query may have clauses, all documents are updated: nearly each has one of them.
    """
    excluded: list[dict[str, Any]] = [{"ids": {"values": sorted(skip)}}] if skip else []
    has_policy = {"exists": {"field": "policy"}}
    if policy is None:
        return {"bool": {"filter": [has_policy], "must_not": excluded}}
    excluded.append({"term": {"policy": policy.digest}})
    if len(policy.tokens) + _OTHER_CLAUSES > layout.max_clauses:
        return {"bool": {"filter": [{"match_all": {}}], "must_not": excluded}}
    affected = {"bool": {"should": [has_policy, *_build_token_clauses(policy.tokens, layout.vector)], "minimum_should_match": 1}}
    return {"bool": {"filter": [affected], "must_not": excluded}}


def _build_token_clauses(tokens: Iterable[str], vector: str) -> list[dict[str, Any]]:
    keys = [feature_names.escape_feature(token) for token in tokens]
    if vector == "sparse_vector":
        return [{"sparse_vector": {"field": "tokens", "query_vector": dict.fromkeys(keys, 1.0), "prune": False}}]
    return [{"rank_feature": {"field": f"tokens.{key}", "linear": {}}} for key in keys]
