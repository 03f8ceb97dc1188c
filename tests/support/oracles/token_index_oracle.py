"""What a token index has to hold, computed from the documents of its main index without the code that fills it.

assert get_token_documents(client, f"{index}.tokens") == build_expected_documents(client, index)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from support.servers.fault_proxy import Request

_CARRIED = ("uri", "name", "source", "caption", "colors", "model", "taken_at", "ingested_at")


def build_expected_documents(client: OpenSearch, index: str, top_token_count: int = 16) -> dict[str, dict[str, Any]]:
    """Map `_id` to `_source` of every word of documents with words and URI."""
    client.indices.refresh(index=index)
    expected: dict[str, dict[str, Any]] = {}
    body = {"size": 10_000, "query": {"match_all": {}}, "seq_no_primary_term": True}
    for hit in client.search(index=index, body=body)["hits"]["hits"]:
        source = hit["_source"]
        if not source.get("uri") or not source.get("top_tokens"):
            continue
        version = f"{hit['_seq_no']}.{hit['_primary_term']}"
        image = {
            "image_id": hit["_id"],
            "token_count": len(source["tokens"]),
            "source_version": f"3.{source.get('fingerprint', '-')}.{source.get('policy', '-')}.{version}",
            **{name: source[name] for name in _CARRIED if source.get(name) is not None},
        }
        weights = {_unescape_token(key): weight for key, weight in source["tokens"].items()}
        total = sum(sorted(weights.values()))
        heaviest = sorted(weights, key=lambda word: (-weights[word], word))[:top_token_count]
        for rank, word in enumerate(heaviest, start=1):
            weight_share = round(weights[word] / total, 12)
            expected[f"{hit['_id']}-{rank}"] = {
                **image,
                "token": word,
                "weight": weights[word],
                "rank": rank,
                "weight_share": weight_share,
            }
    return expected


def get_token_documents(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    """Return the searchable documents of the token index, without a refresh."""
    hits = client.search(index=index, body={"size": 10_000, "query": {"match_all": {}}})["hits"]["hits"]
    return {hit["_id"]: {**hit["_source"], "weight_share": round(hit["_source"].get("weight_share", 0.0), 12)} for hit in hits}


def is_token_write(request: Request) -> bool:
    """Return whether a request writes documents of a token index."""
    return request.is_bulk and ".tokens.write/" in request.path


class TokenIndexChecks:
    """An alias whose index has a token index, as the cluster shows it."""

    client: OpenSearch
    alias: str

    def list_targets(self, alias: str) -> list[str]:
        """List the indices of an alias; empty if it doesn't exist."""
        return sorted(self.client.indices.get_alias(name=alias)) if self.client.indices.exists_alias(name=alias) else []

    def list_indices(self) -> list[str]:
        """List the indices whose names begin with the alias."""
        return sorted(self.client.indices.get(index=f"{self.alias}*", params={"expand_wildcards": "all"}))

    def check_tokens(self, images: int) -> None:
        """Assert that the token index behind the alias is complete and correct."""
        [index] = self.list_targets(self.alias)
        assert self.list_targets(f"{self.alias}-tokens") == [f"{index}.tokens"]
        self.check_tokens_of(index, images)

    def check_tokens_of(self, index: str, images: int) -> None:
        """Assert that the token index of an index is complete and correct."""
        documents = get_token_documents(self.client, f"{index}.tokens")
        assert documents == build_expected_documents(self.client, index)
        assert len({document["image_id"] for document in documents.values()}) == images


def _unescape_token(key: str) -> str:
    return "" if key == "%" else key.replace("%2E", ".").replace("%25", "%")
