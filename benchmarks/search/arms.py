"""The search methods that `query.py` compares, each as a request body built from a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.http import Body

from search.indices import Kind
from stair_es.search.dsl.select import build_sparse_query
from stair_es.search.options import prune_vector
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import SparseVector

MAX_CLAUSES = 1024
EF_SEARCH = (10, 50, 100, 200, 400, 800)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A search method."""

    name: str
    kind: str
    """Index to search: a name of `build_kinds`."""
    body: Callable[[SparseVector, list[float]], Body]
    """Builds the body from the sparse and the dense query."""
    truth: Literal["tokens", "dense"] | None = "tokens"
    """The exact ranking for comparison; None for BM25, which has other weights."""


def build_ids_request(query: Body) -> Body:
    """Return a request for ids and scores only, to measure the search without reading documents."""
    return {"size": 10, "track_total_hits": False, "_source": False, "query": query}


def build_tokens_request(vector: SparseVector) -> Body:
    """Return a request with all tokens and no options."""
    return build_ids_request(build_sparse_query("rank_features", vector, max_clauses=MAX_CLAUSES).clause)


def keep_mass(mass: float) -> Callable[[SparseVector, list[float]], Body]:
    """Keep the heaviest tokens that hold this share of the weight."""
    return lambda vector, _dense: build_tokens_request(prune_vector(vector, mass).kept)


def keep_top(tokens: int) -> Callable[[SparseVector, list[float]], Body]:
    """Keep the heaviest tokens."""
    return lambda vector, _dense: build_tokens_request(vector.top(tokens))


def build_sent_request(vector: SparseVector, _dense: list[float]) -> Body:
    """Return the request of `Searcher`: in a total order, with the documents."""
    return build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=MAX_CLAUSES).body


def build_sent_bm25(vector: SparseVector, dense: list[float]) -> Body:
    """Return the same request with BM25."""
    return {**build_sent_request(vector, dense), "query": {"match": {"words": " ".join(vector.tokens)}}}


def search_knn(ef_search: int) -> Callable[[SparseVector, list[float]], Body]:
    """Search dense vectors."""
    return lambda _vector, dense: build_ids_request(
        {"knn": {"dense": {"vector": dense, "k": 10, "method_parameters": {"ef_search": ef_search}}}}
    )


def build_arms(kinds: Mapping[str, Kind]) -> list[Arm]:
    """Return all arms over these indices."""
    made = [
        Arm(name="BM25", kind="bm25", body=lambda v, _: build_ids_request({"match": {"words": " ".join(v.tokens)}}), truth=None),
        Arm(name="BM25, documents in order", kind="bm25", body=build_sent_bm25, truth=None),
        Arm(name="rank_features", kind="tokens", body=lambda v, _: build_tokens_request(v)),
        Arm(name="as Searcher sends it", kind="tokens", body=build_sent_request),
        *(Arm(name=f"mass {share}", kind="tokens", body=keep_mass(share)) for share in (0.95, 0.9, 0.8)),
        *(Arm(name=f"top {tokens}", kind="tokens", body=keep_top(tokens)) for tokens in (8, 16, 32)),
        Arm(
            name="impacts",
            kind="impacts",
            body=lambda v, _: build_ids_request(build_sparse_query("impacts", v, max_clauses=MAX_CLAUSES).clause),
        ),
    ]
    made += [Arm(name=f"kNN ef {ef}", kind="dense", body=search_knn(ef), truth="dense") for ef in EF_SEARCH]
    return [arm for arm in made if arm.kind in kinds]
