"""Documents/s of the bulk path, over raw pre-serialised `_bulk` requests with the same documents in the same run.

    python benchmarks/sink.py
    python benchmarks/sink.py --docs 20000 --rounds 7

Raw: the request bodies lie ready in memory, one keep-alive connection, the answers are read and not looked at. Ours serialises,
sends, reads the answer and gives each document its outcome. `helpers.bulk` is the client's own. Rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from common import PHOTOS, machine, node
from opensearchpy import helpers

from stair_es import resources
from stair_es.cluster.bulk import BulkPolicy, BulkWriter, chunks, operation
from stair_es.cluster.documents import ImageFacts, document, document_id
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.sources.decode import DecodeLimits, decode

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Documents = list[tuple[str, dict[str, Any]]]
POLICY = BulkPolicy(max_chunk_docs=500)


def documents(count: int) -> Documents:
    """The bundled photos' documents, each many times under another URI."""
    encoder = catalogue.load(ModelSpec(name="starter"))
    made = []
    for path in sorted(PHOTOS.glob("*.jpg")):
        decoded = decode(path.read_bytes(), encoder.image_spec, DecodeLimits(), 128)
        [vector] = encoder.encode_images(np.stack([decoded.pixels_HWC]))
        made.append((vector, decoded))
    result: Documents = []
    for i in range(count):
        vector, decoded = made[i % len(made)]
        uri = f"file:///bench/{i}.jpg"
        facts = ImageFacts(
            uri=uri,
            source="file:///bench",
            sha256=f"{i:064x}",
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            taken_at=None,
            thumbnail=decoded.thumbnail,
        )
        source = document(vector, facts, model_id="bench", fingerprint="0", ingested_at="2026-01-01T00:00:00Z", top_words=16)
        result.append((document_id(uri), source))
    return result


def raw(url: str, index: str, bodies: list[bytes]) -> None:
    """Post what lies ready."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    for body in bodies:
        connection.request("POST", f"/{index}/_bulk?filter_path=errors", body, {"content-type": "application/x-ndjson"})
        answer = connection.getresponse().read()
        if b"true" in answer:
            raise SystemExit(f"raw bulk failed: {answer[:200]!r}")
    connection.close()


def helpers_bulk(client: OpenSearch, index: str, docs: Documents) -> None:
    """The client's own helper."""
    helpers.bulk(client, ({"_index": index, "_id": id_, "_source": doc} for id_, doc in docs), chunk_size=POLICY.max_chunk_docs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--url", default=os.environ.get("STAIR_ES_URL"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    docs = documents(arguments.docs)
    bodies = [b"".join(lines for _, lines in chunk) for chunk in chunks([operation(*doc) for doc in docs], POLICY)]
    rates: dict[str, list[float]] = {}
    with node(arguments.url) as (connection, client, name):

        def ours(index: str) -> None:
            writer = BulkWriter(client=client, connection=connection, alias=f"{index}-alias", policy=POLICY)
            if any(writer.write(docs).values()):
                raise SystemExit("documents were refused")

        ways: dict[str, Callable[[str], None]] = {
            "raw _bulk": lambda index: raw(connection.url, index, bodies),
            "stair-es": ours,
            "helpers.bulk": lambda index: helpers_bulk(client, index, docs),
        }
        for turn in range(-1, arguments.rounds):  # the first round warms the node up and isn't counted
            for label, way in ways.items():
                index = f"{name}-{turn + 1}"
                client.indices.create(
                    index=index, body={**resources.load("mappings", "image"), "aliases": {f"{index}-alias": {}}}
                )
                start = time.perf_counter()
                way(index)
                if turn >= 0:
                    rates.setdefault(label, []).append(len(docs) / (time.perf_counter() - start))
                client.indices.delete(index=index)
    medians = {label: statistics.median(values) for label, values in rates.items()}
    if arguments.json:
        print(json.dumps({"machine": machine(), "docs": len(docs), "docs_per_s": medians, "rounds": rates}))
        return
    size = sum(map(len, bodies)) / len(docs)
    print(f"{machine()}; {len(docs)} documents of {size:.0f} bytes, median of {arguments.rounds} rounds")
    print(f"{'':16}{'docs/s':>10}{'of raw':>10}")
    for label, rate in medians.items():
        print(f"{label:16}{rate:10.0f}{rate / medians['raw _bulk']:10.2f}")


if __name__ == "__main__":
    main()
