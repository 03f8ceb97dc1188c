"""The content of the cluster, read over plain HTTP from each index by its own name, without our client and without an alias."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, TypeAlias
from urllib.parse import urlsplit

_MOST = 10_000

Action: TypeAlias = "tuple[str, str, str, dict[str, Any]]"
"""`add` or `remove`, index, alias, properties."""


class Cluster:
    """A cluster by the URL of one of its nodes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request_json(self, method: str, path: str, body: object = None, missing: object = None) -> Any:  # noqa: ANN401
        """Return the response; `missing` for 404.

        Raises:
            RuntimeError: If the node rejects the request.
        """
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status == 404 and missing is not None:
            return missing
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text)

    def list_indices(self, alias: str) -> list[str]:
        """Return the indices that stair-es created for `alias`."""
        return sorted(self.request_json("GET", f"/{alias}-*?expand_wildcards=all"))

    def get_alias_targets(self, alias: str) -> dict[str, dict[str, Any]]:
        """Return `{index: properties of the alias}`."""
        found = self.request_json("GET", f"/_alias/{alias}", missing={})
        return {index: about["aliases"][alias] for index, about in found.items() if isinstance(about, dict)}

    def update_aliases(self, *actions: Action) -> None:
        """Apply alias actions in one step."""
        body = [{what: {"index": index, "alias": alias, **more}} for what, index, alias, more in actions]
        self.request_json("POST", "/_aliases", {"actions": body})

    def read_documents(self, index: str) -> list[dict[str, Any]]:
        """Return URI and model of each document of one index.

        Raises:
            RuntimeError: If there are more documents than one response holds, or a shard is unavailable.
        """
        self.request_json("GET", f"/_cluster/health/{index}?wait_for_status=yellow&timeout=60s")
        self.request_json("POST", f"/{index}/_refresh")
        counted = self.request_json("GET", f"/{index}/_count")
        found = self.request_json("POST", f"/{index}/_search", {"size": _MOST, "_source": ["uri", "model"]})
        hits = [hit["_source"] for hit in found["hits"]["hits"]]
        if found["_shards"]["failed"] or counted["_shards"]["failed"] or len(hits) != counted["count"]:
            raise RuntimeError(f"{index}: {len(hits)} of {counted['count']} documents, {found['_shards']}")
        return hits

    def get_model(self, index: str) -> str:
        """Return the model that the index names."""
        about = self.request_json("GET", f"/{index}/_mapping")[index]["mappings"]
        return str(about.get("_meta", {}).get("stair_es", {}).get("model"))

    def delete(self, indices: Iterable[str]) -> None:
        """Delete indices; missing ones are ignored."""
        for index in indices:
            self.request_json("DELETE", f"/{index}", missing={})


@dataclass(frozen=True)
class Counts:
    """Counts of wrong documents."""

    lost: int = 0
    """Images that were reported as written, or should be after the rerun, without a document in the run's index."""
    duplicated: int = 0
    """Surplus documents of the same URI in one index."""
    unexpected: int = 0
    """Documents of another model than their index, of images outside the sources, or in an index of another program."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.lost + other.lost, self.duplicated + other.duplicated, self.unexpected + other.unexpected)


def count_errors(documents: Iterable[dict[str, Any]], expected_uris: set[str], model_id: str) -> Counts:
    """Compare the documents of one index with the images that it should have."""
    listed = list(documents)
    uris = [str(each.get("uri")) for each in listed]
    unexpected = sum(uri not in expected_uris or each.get("model") != model_id for uri, each in zip(uris, listed, strict=True))
    return Counts(lost=len(expected_uris - set(uris)), duplicated=len(uris) - len(set(uris)), unexpected=unexpected)
