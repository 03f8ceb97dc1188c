"""Compare the page of `stair-es serve` with the bare requests that it sends.

    nice python benchmarks/serve.py            # 100,000 documents with thumbnails; about ten minutes
    nice python benchmarks/serve.py --docs 5000 --queries 20

Documents are those of `query_corpus.py`, each with the thumbnail of a bundled photo. The node and the server run in separate
processes. This process queries both over keep-alive connections. Each query is sent to the node, as the `_search` request that
the page makes of it, and to the page, in changing order. The ratio is the median over these pairs. The texts are already
encoded, as when a slider moves. Encoding a new text is reported separately.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.browser import PageLoad, load_page, start_browser
from harness.http import Http
from harness.paired import Call, Client, compute_p95, compute_ratio, make_row, measure_ms, measure_pairs
from harness.photos import make_thumbnails
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from harness.server import start_server
from search.corpus import Corpus, Documents
from search.corpus import load_corpus as drawn
from search.indices import Kind, load_index
from search.queries import make_texts

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.config.defaults import THUMBNAIL_PX, DataDir
from stair_es.embedded_node import NodeSpec, start_node, stop_node
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair_mini.plugin import KIND
from stair_es.search.dsl.mapped_fields import MappedField
from stair_es.search.index_info import fetch_index_info
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_match_clause, build_search_request
from stair_es.types import SparseVector
from stair_es.web.search.facet_scales import build_profile_request, parse_profiles
from stair_es.web.search.facets import Facet, build_facets_request, list_facet_fields, list_facets
from stair_es.web.search.params import DEFAULT_K
from stair_es.web.search.service import HIT_FIELDS

LOADS, SCREEN = 3, 24
"""Loads of each view; pictures that a screen shall have."""
INDEX = "serve-bench"
CONNECTIONS = 6
"""Connections that browsers open to one host."""
SLIDING_S = 10.0


def build_kind(thumbnails: Sequence[str | None]) -> Kind:
    """Return the index as ingest creates it, with these thumbnails in rotation."""
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


def list_page_facets(node: str) -> tuple[list[Facet], Mapping[str, MappedField]]:
    """Return the facets of the page, and the fields of the index."""
    with Cluster(Connection(url=node)) as cluster:
        fields = fetch_index_info(cluster, INDEX).mapped_fields
        wanted = list_facet_fields(fields)
        profiles = parse_profiles(wanted, cluster.search(INDEX, build_profile_request(wanted)))
    return list_facets(wanted, profiles, ()), fields


def build_search_pairs(texts: Sequence[str], encoder: Encoder, node: str, url: str, route: str) -> list[tuple[Call, Call]]:
    """Return the bare request and the request to the page, for each text."""
    plain, ours = Client(node), Client(url)
    facets, fields = list_page_facets(node)
    pairs: list[tuple[Call, Call]] = []
    for text in texts:
        query = SearchQuery(vector=encoder.encode_texts([text])[0])
        request = build_search_request(query, "rank_features", max_clauses=1024, k=DEFAULT_K)
        body = {**request.body, "_source": HIT_FIELDS}
        raw = json.dumps(
            build_facets_request(body["query"], build_match_clause(request, query), facets, (), fields)
            if route == "facets"
            else body
        ).encode()
        pairs.append(
            (
                lambda raw=raw: plain.post(f"/{INDEX}/_search", raw),  # type: ignore[misc]
                lambda text=text: ours.post(f"/api/{route}", json.dumps({"text": text}).encode()),  # type: ignore[misc]
            )
        )
    return pairs


def build_thumbnail_pairs(hits: Sequence[Mapping[str, Any]], node: str, url: str) -> list[tuple[Call, Call]]:
    """Return the bare request and the request to the page, for each thumbnail."""
    plain, ours = Client(node), Client(url)
    pairs: list[tuple[Call, Call]] = []
    for hit in hits:
        raw = json.dumps({"size": 1, "query": {"ids": {"values": [hit["id"]]}}, "_source": ["thumbnail"]}).encode()
        pairs.append(
            (
                lambda raw=raw: plain.post(f"/{INDEX}/_search", raw),  # type: ignore[misc]
                lambda path="/" + hit["thumbnail"]: ours.get(path),  # type: ignore[misc]
            )
        )
    return pairs


def measure_slider_moves(text: str, url: str, seconds: float) -> float:
    """Return the slider moves per second, each with another weight of the heaviest token and after the previous response."""
    client = Client(url)
    word = json.loads(client.post("/api/search", json.dumps({"text": text}).encode()))["query"][0]["token"]
    began_s, count = time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        client.post("/api/search", json.dumps({"text": text, "factors": {word: 0.01 + count % 300 / 100}}).encode())
        count += 1
    return count / (time.perf_counter() - began_s)


def measure_grid(paths: Sequence[str], url: str) -> float:
    """Return the milliseconds until all pictures of a page are loaded, over as many connections as a browser opens."""
    clients = [Client(url) for _ in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return measure_ms(
            lambda: list(pool.map(lambda i: [clients[i].get(path) for path in paths[i::CONNECTIONS]], range(CONNECTIONS)))
        )


def search_page(text: str, url: str, k: int) -> list[dict[str, Any]]:
    """Return the hits of the page."""
    found: list[dict[str, Any]] = json.loads(Client(url).post("/api/search", json.dumps({"text": text, "k": k}).encode()))["hits"]
    return found


def find_full_screen(texts: Sequence[str], url: str) -> str:
    """Return the first text with enough hits for a screen: the gallery leaves weak ones out."""
    for text in texts:
        if sum(not hit["weak"] for hit in search_page(text, url, DEFAULT_K)) >= SCREEN:
            return text
    raise SystemExit(f"none of the {len(texts)} texts has {SCREEN} hits that aren't weak: use more documents or queries")


def measure_loads(url: str, text: str) -> dict[str, list[PageLoad]]:
    """Return loads of the page with an empty cache: the start page, the gallery of a query, its explanation, and on a phone."""
    query = f"{url}/?q={quote(text)}"
    with start_browser() as browser:
        scenes: dict[str, Callable[[], PageLoad]] = {
            "start page": lambda: load_page(browser, url),
            "gallery": lambda: load_page(browser, query),
            "gallery, 2x": lambda: load_page(browser, query, scale=2.0),
            "explain": lambda: load_page(browser, f"{query}&show=explain"),
            "phone": lambda: load_page(browser, query, width_px=390, height_px=844, scale=3.0),
        }
        return {name: [scene() for _ in range(LOADS)] for name, scene in scenes.items()}


def report_loads(loads: Mapping[str, Sequence[PageLoad]]) -> tuple[ReportTable, tuple[Ratio, ...]]:
    """Return the table of the loads in a browser, and their budgets."""

    def find_median(name: str, field: str) -> float:
        return float(statistics.median(getattr(load, field) for load in loads[name]))

    head = ("in Chromium, nothing cached", "requests", "kB", "kB of pictures", "pictures", "first, ms", "all, ms", "layout shift")
    rows = tuple(
        (
            name,
            f"{find_median(name, 'requests'):.0f}",
            f"{find_median(name, 'page_bytes') / 1000:.0f}",
            f"{find_median(name, 'picture_bytes') / 1000:.0f}",
            f"{find_median(name, 'pictures'):.0f}",
            f"{find_median(name, 'first_picture_ms'):.0f}",
            f"{find_median(name, 'screen_ms'):.0f}",
            f"{find_median(name, 'layout_shift'):.3f}",
        )
        for name in loads
    )
    pictures, phone = find_median("start page", "pictures"), find_median("phone", "pictures")
    bounds = [
        Ratio(what="pictures on a screen of 1366 x 900", against="budget", value=pictures, goal=SCREEN),
        Ratio(what="pictures on a phone of 390 x 844", against="budget", value=phone, goal=8),
    ]
    for what, field, unit, goal in (
        ("seconds to the first picture of a query", "first_picture_ms", 1000, 1.0),
        ("kB of scripts, styles and answers", "page_bytes", 1000, 150.0),
        ("requests other than for pictures", "requests", 1, 50.0),
        ("cumulative layout shift", "layout_shift", 1, 0.1),
    ):
        bounds.append(Ratio(what=what, against="budget", value=find_median("gallery", field) / unit, goal=goal, at_most=True))
    return ReportTable(head=head, rows=rows), tuple(bounds)


def measure(about: str, texts: Sequence[str], node: str, url: str, rounds: int) -> Result:
    """Return the table, and the measurements that aren't pairs."""
    encoder = registry.load_encoder(ModelSpec(name=KIND.card.name))
    client = Client(url)
    cold = [measure_ms(lambda text=text: client.post("/api/search", json.dumps({"text": text}).encode())) for text in texts]  # type: ignore[misc]
    times = {
        f"`/api/{route}`": measure_pairs(build_search_pairs(texts, encoder, node, url, route), rounds)
        for route in ("search", "facets")
    }
    pictures = [hit for text in texts[:8] for hit in search_page(text, url, 100)]
    fresh = list({hit["id"]: hit for hit in pictures}.values())
    pairs = build_thumbnail_pairs(fresh, node, url)
    first = [(measure_ms(plain), measure_ms(ours)) for plain, ours in pairs]
    times["`/thumb`, rendered"] = ([bare for bare, _ in first], [whole for _, whole in first])
    times["`/thumb`, cached"] = measure_pairs(pairs[:200], 2)
    unseen = [["/" + hit["thumbnail"] for hit in search_page(text, url, DEFAULT_K)] for text in texts[8:]]
    grids = [(measure_grid(paths, url), measure_grid(paths, url)) for paths in unseen if len(paths) == DEFAULT_K]
    first_ms, second_ms = (statistics.median(column) for column in zip(*grids, strict=True))
    rate = measure_slider_moves(texts[0], url, SLIDING_S)
    loads = measure_loads(url, find_full_screen(texts, url))
    screens, budgets = report_loads(loads)
    head = ("", "bare, ms: median / p95", "page, ms: median / p95", "median ratio")
    return Result(
        about=about,
        tables=(ReportTable(head=head, rows=tuple(make_row(name, *both) for name, both in times.items())), screens),
        ratios=tuple(
            Ratio(
                what=f"response time of {name}",
                against="the same request sent directly to the cluster",
                value=compute_ratio(*both),
                at_most=True,
            )
            for name, both in list(times.items())[:2]
        )
        + budgets,
        remarks=(
            f"a new text: {statistics.median(cold):.1f} ms median, {compute_p95(cold):.1f} ms p95",
            f"slider moves, one after the other: {rate:.0f} per second",
            f"{DEFAULT_K} thumbnails over {CONNECTIONS} connections: {first_ms:.0f} ms, the second time {second_ms:.0f} ms",
        ),
        figures={"ms": times, "new_text_ms": cold, "moves_per_s": rate, "grid_ms": [first_ms, second_ms], "loads": loads},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heap", default="1g")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora")
    args = parser.parse_args()
    corpus, documents = drawn(args.docs, args.cache)
    with tempfile.TemporaryDirectory(prefix="stair-es-serve-") as folder:
        spec = NodeSpec(
            dist=DataDir.from_env().dist, base=Path(folder) / "node", port=0, heap=args.heap, jit="full", die_with_parent=True
        )
        node = start_node(spec)
        try:
            measure_page(corpus, documents, node, args)
        finally:
            stop_node(spec)


def measure_page(corpus: Corpus, documents: Documents, node: str, args: argparse.Namespace) -> None:
    """Load, serve, measure."""
    pictures = make_thumbnails()
    loaded = load_index(Http(node), INDEX, build_kind(pictures), corpus, documents)
    characters = statistics.median(len(str(picture)) for picture in pictures)
    sizes = f"thumbnails of {characters:.0f} characters, {loaded.bytes_a_document:.0f} bytes per document"
    about = f"{args.docs:,} documents, {sizes}, one shard"
    with start_server("serve", "--index", INDEX, "--url", node) as (url, _):
        publish_result(measure(about, make_texts(corpus, args.queries), node, url.rstrip("/"), args.rounds), args.json)


if __name__ == "__main__":
    main()
