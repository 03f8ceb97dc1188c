"""What is in the cluster, asked over plain HTTP of each index by its own name: neither our client nor an alias takes part."""

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

    def ask(self, method: str, path: str, body: object = None, missing: object = None) -> Any:  # noqa: ANN401
        """The answer; `missing` for 404.

        Raises:
            RuntimeError: The node refuses.
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

    def indices_of(self, alias: str) -> list[str]:
        """The indices that stair-es made for `alias`."""
        return sorted(self.ask("GET", f"/{alias}-*?expand_wildcards=all"))

    def behind(self, alias: str) -> dict[str, dict[str, Any]]:
        """`{index: properties of the alias}`."""
        found = self.ask("GET", f"/_alias/{alias}", missing={})
        return {index: about["aliases"][alias] for index, about in found.items() if isinstance(about, dict)}

    def move(self, *actions: Action) -> None:
        """Alias actions, in one step."""
        said = [{what: {"index": index, "alias": alias, **more}} for what, index, alias, more in actions]
        self.ask("POST", "/_aliases", {"actions": said})

    def documents(self, index: str) -> list[dict[str, Any]]:
        """URI and model of each document of one index.

        Raises:
            RuntimeError: There are more than one answer holds, or the cluster has not all of them at hand.
        """
        self.ask("GET", f"/_cluster/health/{index}?wait_for_status=yellow&timeout=60s")
        self.ask("POST", f"/{index}/_refresh")
        counted = self.ask("GET", f"/{index}/_count")
        found = self.ask("POST", f"/{index}/_search", {"size": _MOST, "_source": ["uri", "model"]})
        hits = [hit["_source"] for hit in found["hits"]["hits"]]
        if found["_shards"]["failed"] or counted["_shards"]["failed"] or len(hits) != counted["count"]:
            raise RuntimeError(f"{index}: {len(hits)} of {counted['count']} documents, {found['_shards']}")
        return hits

    def model_of(self, index: str) -> str:
        """What the index itself says."""
        about = self.ask("GET", f"/{index}/_mapping")[index]["mappings"]
        return str(about.get("_meta", {}).get("stair_es", {}).get("model"))

    def delete(self, indices: Iterable[str]) -> None:
        """Delete indices, which may be gone already."""
        for index in indices:
            self.ask("DELETE", f"/{index}", missing={})


@dataclass(frozen=True)
class Counts:
    """What is wrong with the documents."""

    lost: int = 0
    """Images that were said to be stored, or should be after the rerun, and have no document in the run's index."""
    doubled: int = 0
    """Documents too many for one URI, in one index."""
    foreign: int = 0
    """Documents of another model than their index is of, of images that nobody asked for, or in somebody else's index."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.lost + other.lost, self.doubled + other.doubled, self.foreign + other.foreign)


def compare(documents: Iterable[dict[str, Any]], wanted: set[str], model_id: str) -> Counts:
    """The documents of one index against the images that it should have."""
    listed = list(documents)
    uris = [str(each.get("uri")) for each in listed]
    foreign = sum(uri not in wanted or each.get("model") != model_id for uri, each in zip(uris, listed, strict=True))
    return Counts(lost=len(wanted - set(uris)), doubled=len(uris) - len(set(uris)), foreign=foreign)
