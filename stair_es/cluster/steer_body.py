"""The requests that give documents a policy, and which documents those are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from stair_es import vocab
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.identity import ours
from stair_es.cluster.token_ids import TokenIds, tokens_of
from stair_es.policy import WordPolicy

_BESIDE = 8
"""Clauses that a query has besides those for words."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What has to be known of an index, besides its policy, to steer it."""

    vector: str
    """Type of `tokens`."""
    top_words: int
    """Length of `top_tokens`."""
    max_clauses: int
    """What one query may have."""
    token_ids: TokenIds | None = None
    """Those of an index with the field `token_ids`, without a policy."""

    @classmethod
    def of(cls, index: Mapping[str, Any], max_clauses: int) -> Layout:
        """The layout of an index as the cluster describes it."""
        tokens = index.get("mappings", {}).get("properties", {}).get("tokens", {})
        settings = ours(index).get("settings", {})
        top_words = settings.get("top_words", DocumentSettings().top_words)
        table = tokens_of(index)
        return cls(
            vector=tokens.get("type", "rank_features"),
            top_words=int(top_words),
            max_clauses=max_clauses,
            token_ids=None if table is None else TokenIds.from_tokens(table),
        )


def script(policy: WordPolicy | None, layout: Layout) -> dict[str, Any]:
    """The script that gives a document `policy`, or takes away what it has.

    It gets the ids of all tokens, where there are any: `tokens` and `policy_undo` have no ids, and a document may come from any
    earlier policy.
    """
    policy_params: dict[str, Any] = {"digest": None, "becomes": {}, "mute": {}, "cap": {}}
    if policy:
        policy_params = {
            "digest": policy.digest,
            "becomes": {vocab.escape(word): vocab.escape(target) for word, target in policy.becomes.items()},
            "mute": {vocab.escape(word): True for word in policy.mute},
            "cap": {vocab.escape(word): most for word, most in policy.cap.items()},
        }
    ids = layout.token_ids.under(policy).ids if layout.token_ids else None
    token_ids = None if ids is None else {vocab.escape(token): str(id_) for token, id_ in ids.items()}
    params = {**policy_params, "top_words": layout.top_words, "token_ids": token_ids}
    return {"lang": "painless", "source": _source(), "params": params}


@cache
def _source() -> str:
    return (files("stair_es.cluster") / "steer.painless").read_text(encoding="utf-8")


def affected(policy: WordPolicy | None, layout: Layout, without: Iterable[str] = ()) -> dict[str, Any]:
    """The query for all documents that `policy` may change: those with one of its words, or with another policy.

    A policy of more words than a query may have clauses goes through all documents: nearly each has one of them.

    Args:
        policy: None takes policies away.
        layout: Of the index.
        without: Ids of documents to leave out.
    """
    settled: list[dict[str, Any]] = [{"ids": {"values": sorted(without)}}] if without else []
    other = {"exists": {"field": "policy"}}
    if policy is None:
        return {"bool": {"filter": [other], "must_not": settled}}
    settled.append({"term": {"policy": policy.digest}})
    if len(policy.words) + _BESIDE > layout.max_clauses:
        return {"bool": {"filter": [{"match_all": {}}], "must_not": settled}}
    either = {"bool": {"should": [other, *_words(policy.words, layout.vector)], "minimum_should_match": 1}}
    return {"bool": {"filter": [either], "must_not": settled}}


def _words(words: Iterable[str], vector: str) -> list[dict[str, Any]]:
    keys = [vocab.escape(word) for word in words]
    if vector == "sparse_vector":
        return [{"sparse_vector": {"field": "tokens", "query_vector": dict.fromkeys(keys, 1.0), "prune": False}}]
    return [{"rank_feature": {"field": f"tokens.{key}", "linear": {}}} for key in keys]
