"""An index of many images in seconds: documents of an index, copied with other weights under other names."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.request import Request, urlopen

_BATCH = 500


def copy_documents(url: str, source: str, target: str, count: int) -> None:
    """Write `count` documents to `target`: those of `source` over and over, each with weights, hashes and a name of its own."""
    documents = [hit["_source"] for hit in _send_request(url, f"{source}/_search?size=100&sort=uri")["hits"]["hits"]]
    [mappings] = [index["mappings"] for index in _send_request(url, f"{source}/_mapping").values()]
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    _send_request(url, target, {"settings": settings, "mappings": mappings}, method="PUT")
    factors = random.Random(count)
    for start in range(0, count, _BATCH):
        lines = [
            _copy_document(documents[place % len(documents)], place, factors)
            for place in range(start, min(count, start + _BATCH))
        ]
        _send_request(url, f"{target}/_bulk", "".join(lines))
    _send_request(url, f"{target}/_refresh", {})


def _copy_document(document: dict[str, Any], place: int, factors: random.Random) -> str:
    weights = {token: round(weight * factors.uniform(0.5, 1.1), 5) for token, weight in document["tokens"].items()}
    copied = {
        **document,
        "tokens": dict(sorted(weights.items(), key=lambda item: -item[1])),
        "uri": document["uri"].replace(".jpg", f"-{place}.jpg"),
        "sha256": f"{place:064x}",
        "fingerprint": f"{place:032x}",
        "ingested_at": f"2026-01-01T{place // 3600:02}:{place // 60 % 60:02}:{place % 60:02}Z",  # all photos in turn
        "perceptual_hash": f"{factors.getrandbits(64):016x}",
    }
    if "name" in document:
        copied["name"] = document["name"].replace(".jpg", f"-{place}.jpg")
    return f'{{"index": {{"_id": "{place:032x}"}}}}\n{json.dumps(copied)}\n'


def _send_request(url: str, path: str, body: dict[str, Any] | str | None = None, method: str | None = None) -> dict[str, Any]:
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = Request(f"{url}/{path}", data, {"Content-Type": "application/x-ndjson"}, method=method)
    if not isinstance(body, str):
        request.add_header("Content-Type", "application/json")
    with urlopen(request) as response:
        answer: dict[str, Any] = json.load(response)
        if answer.get("errors"):
            raise RuntimeError(f"{path}: {answer['items'][0]}")
        return answer
