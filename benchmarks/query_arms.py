"""The ways to search that `query.py` compares: each a request body made of a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from query_load import Kind

from stair_es.cluster.metadata.token_fields import TokenIds
from stair_es.search.dsl.select import build_sparse_query
from stair_es.search.options import prune_vector
from stair_es.search.query import SearchQuery
from stair_es.search.request import TwoPhase, build_search_request
from stair_es.types import SparseVector

Body = dict[str, Any]
MAX_CLAUSES = 1024
EF_SEARCH = (10, 50, 100, 200, 400, 800)
PHASES = ((8, 200), (8, 1000), (16, 100), (16, 500), (32, 200))
"""Heavy words, window."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way."""

    name: str
    kind: str
    """Which index: a name of `query_load.kinds`."""
    body: Callable[[SparseVector, list[float]], Body]
    """Of the sparse and the dense question."""
    truth: Literal["tokens", "dense"] | None = "tokens"
    """What the ten best are compared with; BM25 ranks by other weights."""


def bare(query: Body) -> Body:
    """Ids and scores only: what searching takes, without reading documents."""
    return {"size": 10, "track_total_hits": False, "_source": False, "query": query}


def whole(vector: SparseVector) -> Body:
    """All words, and nothing else."""
    return bare(build_sparse_query("rank_features", vector, max_clauses=MAX_CLAUSES).clause)


def cut(mass: float) -> Callable[[SparseVector, list[float]], Body]:
    """The heaviest words that hold this share of the weight."""
    return lambda vector, _dense: whole(prune_vector(vector, mass).kept)


def top(words: int) -> Callable[[SparseVector, list[float]], Body]:
    """The heaviest words."""
    return lambda vector, _dense: whole(vector.top(words))


def two_phase(heavy: int, window: int) -> Callable[[SparseVector, list[float]], Body]:
    """Few words find, all words rank."""
    phases = TwoPhase(top_k=heavy, window_size=window)

    def body(vector: SparseVector, _dense: list[float]) -> Body:
        asked = build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=MAX_CLAUSES, two_phase=phases).body
        # A question as short as the first phase has none; it would be sorted like any other.
        return {**asked, "_source": False} if "rescore" in asked else whole(vector)

    return body


def as_sent(vector: SparseVector, _dense: list[float]) -> Body:
    """What `Searcher` sends: in a total order, with the documents."""
    return build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=MAX_CLAUSES).body


def bm25_as_sent(vector: SparseVector, dense: list[float]) -> Body:
    """BM25 with the same trimmings."""
    return {**as_sent(vector, dense), "query": {"match": {"words": " ".join(vector.tokens)}}}


def seismic(ids: TokenIds) -> Callable[[SparseVector, list[float]], Body]:
    """Candidates by SEISMIC, exact scores for them; without documents."""

    def body(vector: SparseVector, _dense: list[float]) -> Body:
        asked = build_search_request(SearchQuery(vector=vector), "seismic", max_clauses=MAX_CLAUSES, token_ids=ids)
        return {**asked.body, "_source": False}

    return body


def knn(ef_search: int) -> Callable[[SparseVector, list[float]], Body]:
    """Dense vectors."""
    return lambda _vector, dense: bare(
        {"knn": {"dense": {"vector": dense, "k": 10, "method_parameters": {"ef_search": ef_search}}}}
    )


def arms(kinds: Mapping[str, Kind], vocabulary: Sequence[str]) -> list[Arm]:
    """Return all ways over these indices."""
    made = [
        Arm(name="BM25", kind="bm25", body=lambda v, _: bare({"match": {"words": " ".join(v.tokens)}}), truth=None),
        Arm(name="BM25, documents in order", kind="bm25", body=bm25_as_sent, truth=None),
        Arm(name="rank_features", kind="tokens", body=lambda v, _: whole(v)),
        Arm(name="as Searcher sends it", kind="tokens", body=as_sent),
        *(Arm(name=f"mass {share}", kind="tokens", body=cut(share)) for share in (0.95, 0.9, 0.8)),
        *(Arm(name=f"top {words}", kind="tokens", body=top(words)) for words in (8, 16, 32)),
        *(Arm(name=f"two-phase {heavy}/{window}", kind="tokens", body=two_phase(heavy, window)) for heavy, window in PHASES),
        Arm(
            name="impacts",
            kind="impacts",
            body=lambda v, _: bare(build_sparse_query("impacts", v, max_clauses=MAX_CLAUSES).clause),
        ),
    ]
    made.append(Arm(name="SEISMIC", kind="seismic", body=seismic(TokenIds.from_tokens(vocabulary))))
    made += [Arm(name=f"kNN ef {ef}", kind="dense", body=knn(ef), truth="dense") for ef in EF_SEARCH]
    return [arm for arm in made if arm.kind in kinds]
