"""What the page of `stair-es serve` takes beside the bare requests that it makes.

    nice python benchmarks/serve.py            # 100,000 documents with thumbnails; about ten minutes
    nice python benchmarks/serve.py --docs 5000 --questions 20

Documents are those of `query_corpus.py`, each with the thumbnail of a bundled photo. The node and the server are processes of
their own, this one asks both over keep-alive connections. Each question goes to the node as the very `_search` request that the
page makes of it, and to the page, in turn and in changing order: the ratio is of such pairs. The texts were asked before, as when
a slider moves; encoding a new one is shown by itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common import options, publish, thumbnails
from query_corpus import Corpus, Documents
from query_corpus import load as drawn
from query_load import Http, Kind, load
from query_questions import texts
from result import Ratio, ReportTable, Result

from stair_es import resources
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.config.defaults import THUMBNAIL_PX, DataDir
from stair_es.embedded_node import NodeSpec, start_node, stop_node
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair_mini.plugin import KIND
from stair_es.search.query import SearchQuery
from stair_es.types import SparseVector
from stair_es.web.query import QueryPlan, build_facets_request, build_page_request
from stair_es.web.schemas import DEFAULT_K, SearchParams

INDEX, WAY = "serve-bench", QueryPlan(query_type="rank_features", max_clauses=1024)
CONNECTIONS = 6
"""As many as browsers open to one host."""
SLIDING_S = 10.0
Call = Callable[[], object]


def kind(thumbnails: Sequence[str | None]) -> Kind:
    """The index as ingest makes it, with these thumbnails in turn."""
    pictures = itertools.cycle(thumbnails)
    numbers = itertools.count()
    body = resources.load_json_resource("mappings", "image")
    about = {
        "stair_es": {
            "format_version": INDEX_FORMAT,
            "model": KIND.card.model_id,
            "model_name": KIND.card.name,
            "settings": {"thumbnail_px": THUMBNAIL_PX},
        }
    }

    def fields(vector: SparseVector, _dense: object) -> dict[str, Any]:
        number = next(numbers)
        facts = {"source": f"s3://photos/{number % 7}", "fingerprint": f"{number:032x}", "width": 640, "height": 480}
        return {
            **build_vector_fields(vector, DocumentSettings()),
            **facts,
            "thumbnail": next(pictures),
            "caption": f"photo {number}",
        }

    return Kind(name="page", body={**body, "mappings": {**body["mappings"], "_meta": about}}, fields=fields)


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        """Connects with the first request."""
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def post(self, path: str, body: bytes) -> bytes:
        """The answer's body.

        Raises:
            SystemExit: It is a failure.
        """
        return self._ask("POST", path, body)

    def get(self, path: str) -> bytes:
        """The answer's body.

        Raises:
            SystemExit: It is a failure.
        """
        return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data


@contextmanager
def page(url: str) -> Iterator[str]:
    """`stair-es serve` as a process of its own."""
    command = [str(Path(sys.executable).with_name("stair-es")), "serve", "--index", INDEX, "--port", "0", "--json", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield json.loads(line)["url"].rstrip("/")
        finally:
            process.terminate()


def timed(call: Call) -> float:
    """Milliseconds."""
    began_s = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began_s)


def paired(pairs: Sequence[tuple[Call, Call]], rounds: int) -> tuple[list[float], list[float]]:
    """Times of the bare request and of the page's, question by question, the first round not counted."""
    bare, whole = [], []
    for turn in range(rounds + 1):
        for number, (plain, ours) in enumerate(pairs):
            first, second = (plain, ours) if (turn + number) % 2 else (ours, plain)
            took = {first: timed(first), second: timed(second)}
            if turn:
                bare.append(took[plain])
                whole.append(took[ours])
    return bare, whole


def row(name: str, bare: list[float], whole: list[float]) -> tuple[str, ...]:
    """A line of the table."""
    times = (f"{statistics.median(values):.1f} / {p95(values):.1f}" for values in (bare, whole))
    return (name, *times, f"{ratio(bare, whole):.2f}")


def ratio(bare: list[float], whole: list[float]) -> float:
    """Median of the pairs."""
    return statistics.median(ours / plain for plain, ours in zip(bare, whole, strict=True))


def p95(values: list[float]) -> float:
    """Of times."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def searches(asked: Sequence[str], encoder: Encoder, node: str, url: str, route: str) -> list[tuple[Call, Call]]:
    """Bare and page, for each text."""
    plain, ours = Client(node), Client(url)
    pairs: list[tuple[Call, Call]] = []
    for text in asked:
        body = build_page_request(SearchQuery(vector=encoder.encode_texts([text])[0]), SearchParams(), WAY).body
        raw = json.dumps(build_facets_request(body["query"], colours=True) if route == "facets" else body).encode()
        pairs.append(
            (
                lambda raw=raw: plain.post(f"/{INDEX}/_search", raw),  # type: ignore[misc]
                lambda text=text: ours.post(f"/api/{route}", json.dumps({"text": text}).encode()),  # type: ignore[misc]
            )
        )
    return pairs


def thumbs(hits: Sequence[Mapping[str, Any]], node: str, url: str) -> list[tuple[Call, Call]]:
    """Bare and page, for each thumbnail."""
    plain, ours = Client(node), Client(url)
    pairs: list[tuple[Call, Call]] = []
    for hit in hits:
        raw = json.dumps({"size": 1, "query": {"ids": {"values": [hit["id"]]}}, "_source": ["thumbnail"]}).encode()
        pairs.append(
            (
                lambda raw=raw: plain.post(f"/{INDEX}/_search", raw),  # type: ignore[misc]
                lambda path=hit["thumbnail"]: ours.get(path),  # type: ignore[misc]
            )
        )
    return pairs


def moves(text: str, url: str, seconds: float) -> float:
    """Slider moves a second: each another weight of the heaviest word, the answer awaited."""
    client = Client(url)
    word = json.loads(client.post("/api/search", json.dumps({"text": text}).encode()))["query"][0]["token"]
    began_s, count = time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        client.post("/api/search", json.dumps({"text": text, "factors": {word: 0.01 + count % 300 / 100}}).encode())
        count += 1
    return count / (time.perf_counter() - began_s)


def grid(paths: Sequence[str], url: str) -> float:
    """Milliseconds until all pictures of a page are there, over as many connections as a browser opens."""
    clients = [Client(url) for _ in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return timed(
            lambda: list(pool.map(lambda i: [clients[i].get(path) for path in paths[i::CONNECTIONS]], range(CONNECTIONS)))
        )


def hits_of(text: str, url: str, k: int) -> list[dict[str, Any]]:
    """What the page finds."""
    found: list[dict[str, Any]] = json.loads(Client(url).post("/api/search", json.dumps({"text": text, "k": k}).encode()))["hits"]
    return found


def measure(about: str, asked: Sequence[str], node: str, url: str, rounds: int) -> Result:
    """The table, and what isn't a pair."""
    encoder = registry.load_encoder(ModelSpec(name=KIND.card.name))
    client = Client(url)
    cold = [timed(lambda text=text: client.post("/api/search", json.dumps({"text": text}).encode())) for text in asked]  # type: ignore[misc]
    times = {f"`/api/{route}`": paired(searches(asked, encoder, node, url, route), rounds) for route in ("search", "facets")}
    pictures = [hit for text in asked[:8] for hit in hits_of(text, url, 100)]
    fresh = list({hit["id"]: hit for hit in pictures}.values())
    pairs = thumbs(fresh, node, url)
    first = [(timed(plain), timed(ours)) for plain, ours in pairs]
    times["`/thumb`, drawn"] = ([bare for bare, _ in first], [whole for _, whole in first])
    times["`/thumb`, lying ready"] = paired(pairs[:200], 2)
    unseen = [[hit["thumbnail"] for hit in hits_of(text, url, DEFAULT_K)] for text in asked[8:]]
    grids = [(grid(paths, url), grid(paths, url)) for paths in unseen if len(paths) == DEFAULT_K]
    first_ms, second_ms = (statistics.median(column) for column in zip(*grids, strict=True))
    rate = moves(asked[0], url, SLIDING_S)
    head = ("", "bare, ms: median / p95", "page, ms: median / p95", "median ratio")
    return Result(
        about=about,
        tables=(ReportTable(head=head, rows=tuple(row(name, *both) for name, both in times.items())),),
        ratios=tuple(
            Ratio(what=f"time of {name}", against="the same request without the page", value=ratio(*both), at_most=True)
            for name, both in list(times.items())[:2]
        ),
        remarks=(
            f"a text that is new: {statistics.median(cold):.1f} ms median, {p95(cold):.1f} ms p95",
            f"slider moves, one after the other: {rate:.0f} a second",
            f"{DEFAULT_K} thumbnails over {CONNECTIONS} connections: {first_ms:.0f} ms at first, {second_ms:.0f} ms again",
        ),
        figures={"ms": times, "new_text_ms": cold, "moves_per_s": rate, "grid_ms": [first_ms, second_ms]},
    )


def main() -> None:
    """Run and print."""
    parser = options(__doc__)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heap", default="1g")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora")
    given = parser.parse_args()
    corpus, documents = drawn(given.docs, given.cache)
    with tempfile.TemporaryDirectory(prefix="stair-es-serve-") as folder:
        spec = NodeSpec(
            dist=DataDir.from_env().dist, base=Path(folder) / "node", port=0, heap=given.heap, jit="full", die_with_parent=True
        )
        node = start_node(spec)
        try:
            run(corpus, documents, node, given)
        finally:
            stop_node(spec)


def run(corpus: Corpus, documents: Documents, node: str, given: argparse.Namespace) -> None:
    """Load, serve, measure."""
    pictures = thumbnails()
    loaded = load(Http(node), INDEX, kind(pictures), corpus, documents)
    characters = statistics.median(len(str(picture)) for picture in pictures)
    sizes = f"thumbnails of {characters:.0f} characters, {loaded.bytes_a_document:.0f} bytes a document"
    about = f"{given.docs:,} documents, {sizes}, one shard"
    with page(node) as url:
        publish(measure(about, texts(corpus, given.questions), node, url, given.rounds), given.json)


if __name__ == "__main__":
    main()
