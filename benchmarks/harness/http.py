"""Send requests to a node over one connection, and read its statistics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

Body = dict[str, Any]
"""A JSON value."""
TIMEOUT_S, BUSY = 3600.0, 429


class Http:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        """Connect lazily, with the first request."""
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def request_json(self, method: str, path: str, body: Body | bytes | None = None) -> Any:  # noqa: ANN401  JSON
        """Return the response as JSON.

        Raises:
            SystemExit: If the node rejected the request.
        """
        return orjson.loads(self.request_bytes(method, path, body) or b"null")

    def request_bytes(self, method: str, path: str, body: Body | bytes | None = None) -> bytes:
        """Return the body of the response; retry while the node is busy.

        Raises:
            SystemExit: If the node rejected the request.
        """
        sent = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        for wait_s in (0.2, 0.5, 1, 2, 5, 10, 20, 0):
            self._connection.request(method, path, sent, {"content-type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
            if response.status != BUSY or not wait_s:
                break
            time.sleep(wait_s)
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {response.status} {answer[:500]!r}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def read_store_bytes(http: Http, index: str, shards: Literal["primaries", "total"] = "primaries") -> int:
    """Return the bytes of the files of the shards without the translogs, of the primaries or including replicas."""
    return int(http.request_json("GET", f"/{index}/_stats/store")["indices"][index][shards]["store"]["size_in_bytes"])


@dataclass(frozen=True, kw_only=True)
class NodeHeap:
    """The current state of the JVM of a node."""

    node: str
    used_mb: float
    """Used heap in MB (10^6 bytes), including garbage."""
    collecting_s: float
    """Time in garbage collection since the start of the node."""


def read_heaps(http: Http) -> list[NodeHeap]:
    """Return the heap of each node."""
    return [
        NodeHeap(
            node=node["name"],
            used_mb=node["jvm"]["mem"]["heap_used_in_bytes"] / 1e6,
            collecting_s=sum(each["collection_time_in_millis"] for each in node["jvm"]["gc"]["collectors"].values()) / 1000,
        )
        for node in http.request_json("GET", "/_nodes/stats/jvm")["nodes"].values()
    ]
