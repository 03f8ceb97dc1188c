"""Hostile queries on real nodes: a clear error or the right answer, never a wrong ranking and never the engine's own failure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error
from support.oracles.search_oracle import Oracle
from support.strategies import (
    BAD_WEIGHTS,
    BROKEN_TEXTS,
    CHARACTERS,
    NAMES,
    TINY_WEIGHTS,
    TOKENS,
    WEIGHTS,
    limit_examples,
    mix_rarely,
)

from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.errors import ClusterError, QueryError, StairError
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.options import SearchOptions
from stair_es.search.query import SearchQuery
from stair_es.search.results import SearchResult
from stair_es.search.searcher import Searcher
from stair_es.types import SparseVector

SEED = 20261124
MODEL_ID = "drawn@1"
LARGEST, LEAST = 2.0**100, 2.0**-100
RARE_WEIGHTS = (LARGEST, LEAST, *TINY_WEIGHTS, *BAD_WEIGHTS)
CAPTION = ("dog", "cat", "tree", "house", "犬", "café")
ENGINES: dict[str, Literal["rank_features", "sparse_vector"]] = {
    "node_url": "rank_features",
    "elasticsearch7_url": "rank_features",
    "elasticsearch9_url": "sparse_vector",
}


@dataclass(frozen=True)
class FuzzedIndex:
    """An index full of strange words, and what is true of it."""

    cluster: Cluster
    index: str
    searcher: Searcher
    oracle: Oracle
    documents: dict[str, SparseVector]
    cluster_info: ClusterInfo
    settings: DocumentSettings

    @property
    def max_clauses(self) -> int:
        return self.cluster_info.max_clauses

    @property
    def is_sparse_vector(self) -> bool:
        return self.settings.vector == "sparse_vector"


def build_documents() -> dict[str, SparseVector]:
    """Build documents of strange tokens with weights of any size, the same in each run."""
    rng = random.Random(SEED)
    words = {*NAMES, *("".join(rng.choices(CHARACTERS, k=rng.randint(1, 8))) for _ in range(120))}
    vocabulary = sorted(words)
    return {
        f"{number:03}": SparseVector.from_pairs(
            (word, 10 ** rng.uniform(-6, 6)) for word in rng.sample(vocabulary, rng.randint(1, 30))
        )
        for number in range(150)
    }


@pytest.fixture(scope="module", params=list(ENGINES), ids=["opensearch", "elasticsearch7", "elasticsearch9"])
def fuzzed_index(request: pytest.FixtureRequest) -> Iterator[FuzzedIndex]:
    connection = Connection(url=request.getfixturevalue(request.param))
    cluster = Cluster(connection)
    index, documents = "test-search-fuzz", build_documents()
    cluster_info = get_cluster_info(cluster)
    settings = DocumentSettings(vector=ENGINES[request.param])
    try:
        create_index(cluster, index, settings)
        lines: list[dict[str, Any]] = []
        for number, (id_, tokens) in enumerate(documents.items()):
            caption = " ".join(CAPTION[: 1 + number % len(CAPTION)])
            texts = {"caption": caption, "title": "dog", "subtitle": "dog"}
            lines += [{"index": {"_id": id_}}, {**build_source(tokens), **texts, "uri": f"u/{id_}", "width": number}]
        response = cluster.client.bulk(body=lines, index=index, params={"refresh": "true"})
        assert not response["errors"], [item for item in response["items"] if "error" in item["index"]][:3]
        with Searcher(connection, index, MODEL_ID) as searcher:
            yield FuzzedIndex(cluster, index, searcher, Oracle(documents), documents, cluster_info, settings)
        cluster.client.indices.delete(index=",".join(cluster.client.indices.get(index=f"{index}*")))
    finally:
        cluster.close()


def create_index(cluster: Cluster, index: str, settings: DocumentSettings) -> None:
    body = build_index_body(get_cluster_info(cluster), settings)
    body["settings"]["index"]["number_of_shards"] = 3
    body["mappings"]["_meta"] = {"stair_es": {"format_version": INDEX_FORMAT, "model": MODEL_ID, "model_name": "drawn"}}
    cluster.client.indices.create(index=index, body=body)


def build_source(vector: SparseVector) -> dict[str, Any]:
    return {"tokens": {escape_feature(word): weight for word, weight in vector}}


def list_scores(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in result.hits]


def search_or_none(
    search: Callable[[], SearchResult], rejections: tuple[type[StairError], ...] = (QueryError,)
) -> SearchResult | None:
    """Search; None if the query is rejected: by us, unless `rejections` says by whom."""
    try:
        return search()
    except rejections as error:
        status = getattr(error, "status", None)
    assert status is None or status < 500
    return None


@st.composite
def draw_query_vector(draw: st.DrawFn, vocabulary: list[str]) -> SparseVector:
    """Draw mostly tokens of documents; sometimes very many, sometimes with a weight or a token that no engine takes."""
    tokens = draw(st.lists(st.sampled_from(vocabulary), unique=True, max_size=20))
    tokens += [token for token in draw(st.lists(TOKENS, unique=True, max_size=3)) if token not in tokens]
    pairs = [(token, draw(WEIGHTS)) for token in tokens]
    rng = random.Random(draw(st.integers(0, 99)))
    fillers = draw(st.sampled_from((0, 0, 0, 0, 0, 0, 50, 1100, 5000, 10_000)))
    pairs += [(f"w{number}", 10 ** rng.uniform(-3, 3)) for number in range(fillers)]
    rare_pair = st.tuples(st.just("rare"), st.sampled_from(RARE_WEIGHTS)) | st.tuples(
        BROKEN_TEXTS | st.just("x" * 40_000), st.just(1.0)
    )
    pairs += draw(mix_rarely(st.just([]), st.lists(rare_pair, min_size=1, max_size=1)))
    pairs = pairs or [(vocabulary[0], 1.0)]
    rng.shuffle(pairs)
    return SparseVector(tuple(token for token, _ in pairs), tuple(weight for _, weight in pairs))  # unchecked, unsorted


def draw_known_vector(
    index: FuzzedIndex, size: int, weights: st.SearchStrategy[float] = WEIGHTS
) -> st.SearchStrategy[SparseVector]:
    """Return a strategy for vectors of tokens that documents have."""
    tokens = st.sampled_from([*index.oracle.columns])
    return st.dictionaries(tokens, weights, min_size=size, max_size=size).map(SparseVector.from_mapping)


def is_valid_vector(vector: SparseVector) -> bool:
    """Say once more, by other means than the package, whether a vector can be sent."""
    for token, weight in vector:
        if not 0 < weight <= LARGEST or any("\ud800" <= c <= "\udfff" for c in token) or len(token) >= 40_000:
            return False
    return any(weight >= LEAST for weight in vector.weights)


def check_vector(fuzzed_index: FuzzedIndex, vector: SparseVector, k: int) -> int:
    """Check the ranking of a vector, or that it is rejected, and return the number of hits."""
    result = search_or_none(lambda: fuzzed_index.searcher.search(vector, k))
    assert (result is not None) == is_valid_vector(vector)
    if result is None:
        return 0
    truncated = set(result.truncated.tokens)
    sent = SparseVector.from_pairs(pair for pair in vector if pair[0] not in truncated)
    assert len(sent) == min(fuzzed_index.max_clauses, sum(weight >= LEAST for weight in vector.weights))
    assert max(result.truncated.weights, default=0.0) <= min(sent.weights)
    assert not fuzzed_index.oracle.find_errors(list_scores(result), fuzzed_index.oracle.compute_bounds(sent), k)
    for hit in result.hits[:3]:
        document = fuzzed_index.documents[hit.id]
        assert {each.token for each in hit.contributions} == set(sent.tokens) & set(document.tokens)
    return len(result.hits)


def test_vectors_of_any_kind(fuzzed_index: FuzzedIndex) -> None:
    compared_hits = 0

    @given(vector=draw_query_vector([*fuzzed_index.oracle.columns]), k=st.sampled_from((1, 3, 10, 200, 10_000)))
    def check_drawn_vector(vector: SparseVector, k: int) -> None:
        nonlocal compared_hits
        compared_hits += check_vector(fuzzed_index, vector, k)

    check_drawn_vector()
    assert compared_hits > 1000


@pytest.mark.parametrize("weight", RARE_WEIGHTS, ids=str)
def test_rare_weights_rank_or_are_rejected(fuzzed_index: FuzzedIndex, weight: float) -> None:
    first, second, *_ = fuzzed_index.documents["003"].tokens
    for vector in (SparseVector((first,), (weight,)), SparseVector((first, second), (weight, 1.0))):
        assert bool(check_vector(fuzzed_index, vector, 10_000)) == is_valid_vector(vector)


def test_contributions_match_the_engine_explanation(fuzzed_index: FuzzedIndex) -> None:
    explained_tokens = 0

    @limit_examples(0.15)
    @given(vector=draw_known_vector(fuzzed_index, 20))
    def check_contributions(vector: SparseVector) -> None:
        nonlocal explained_tokens
        for hit in fuzzed_index.searcher.search(vector, 5, options=SearchOptions(explain_engine=True)).hits:
            contributions = {each.token: each.contribution for each in hit.contributions}
            assert hit.engine_scores == pytest.approx(contributions, rel=2**-8)
            explained_tokens += len(contributions)

    check_contributions()
    assert explained_tokens > 100


@pytest.mark.parametrize("k", [-1, 0, 10_001, 2**40])
def test_k_beyond_its_limits(fuzzed_index: FuzzedIndex, k: int) -> None:
    with expect_error("invalid-k", QueryError):
        fuzzed_index.searcher.search(SparseVector.from_mapping({"a": 1.0}), k)


def test_conditions_on_strange_tokens(fuzzed_index: FuzzedIndex) -> None:
    oracle = fuzzed_index.oracle
    groups = st.lists(st.sampled_from([*oracle.columns]), min_size=1, max_size=2, unique=True).map(tuple)
    queries = st.builds(
        SearchQuery,
        vector=draw_known_vector(fuzzed_index, 20),
        required=st.lists(groups, max_size=1),
        excluded=st.lists(groups, max_size=2),
        min_weight=st.sampled_from((0.0, 0.0, 5e-324, 1e-3, 0.3, 1.0, 1e3, 1e300)),
    )

    @limit_examples(0.6)
    @given(query=queries)
    def check_conditions(query: SearchQuery) -> None:
        result = fuzzed_index.searcher.search(query, 10_000)
        part_N = np.ones(len(fuzzed_index.documents), bool)
        for conditions, expected in ((query.required, True), (query.excluded, False)):
            for group in conditions:
                weights = [oracle.get_weights(token) for token in group]
                matches = np.logical_and.reduce([(weight > 0) & (weight >= query.min_weight) for weight in weights])
                part_N &= matches == expected
        assert not oracle.find_errors(list_scores(result), oracle.compute_bounds(query.vector).select(part_N), 10_000)

    check_conditions()


FILTERS = (
    *("width:[1 TO", "((((", 'x:"', "*", "*:*", "/[/", "/(a+)+$/", "width:abc", "~", "\\", "a^1e999", "a^-1", "NOT", "!", "^"),
    *("_exists_:width", '"a b"~5', "nofield:x", "width:99999999999", "\x00", "x" * 40_000, "x\ud800", "", "   ", "tokens:x"),
    *("a" + " OR a" * 500, "a" + " OR a" * 1500, " ".join("abc~" for _ in range(300)), "caption:" + "-".join(["ab"] * 3000)),
    *('{"term":{}}', '{"bool":{}}', '{"nothing":{}}', "[1]", "{", "{}", "null", '{"a":1}', '{"match_all":{"boost":NaN}}'),
    *('{"range":{"width":{"gte":"abc"}}}', '{"term":{"width":1e400}}', '{"term":{"width":null}}', '{"term":{"a":1,"b":2}}'),
    *('{"terms":{"width":[' + ",".join(map(str, range(3000))) + "]}}", '{"ids":{"values":[]}}', '{"match_none":{}}'),
    '{"terms":{"caption.keyword":[' + ",".join(f'"w{number}"' for number in range(3000)) + "]}}",
    *('{"bool":{"filter":[' * depth + '{"match_all":{}}' + "]}}" * depth for depth in (10, 30, 60, 5000)),
    '{"bool":{"should":[' + ",".join('{"term":{"width":1}}' for _ in range(2000)) + "]}}",
    '{"bool":{"should":[{"term":{"width":1}}],"minimum_should_match":"x"}}',
    '{"function_score":{"query":{"match_all":{}},"boost_mode":"replace","weight":1000}}',
    '{"constant_score":{"filter":{"match_all":{}},"boost":1000}}',
)


@pytest.mark.parametrize("text", FILTERS, ids=range(len(FILTERS)))
def test_a_filter_of_any_kind_changes_no_score(fuzzed_index: FuzzedIndex, text: str) -> None:
    vector = fuzzed_index.documents["003"]
    ranking = list_scores(fuzzed_index.searcher.search(vector, 10_000))
    result = search_or_none(
        lambda: fuzzed_index.searcher.search(SearchQuery(vector=vector, filters=[parse_filter(text)]), 10_000),
        (QueryError, ClusterError),
    )
    if result is not None:
        ids = {hit.id for hit in result.hits}
        assert list_scores(result) == [hit for hit in ranking if hit[0] in ids]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ('{"terms":{"width":[' + ",".join(map(str, range(0, 3000, 2))) + "]}}", range(0, 3000, 2)),
        ('{"bool":{"filter":[' * 10 + '{"range":{"width":{"lt":50}}}' + "]}}" * 10, range(50)),
    ],
    ids=["terms", "deep"],
)
def test_valid_filters_select_documents(fuzzed_index: FuzzedIndex, text: str, numbers: range) -> None:
    vector = fuzzed_index.documents["003"]
    ranking = list_scores(fuzzed_index.searcher.search(vector, 10_000))
    query = SearchQuery(vector=vector, filters=[parse_filter(text)])
    selected = list_scores(fuzzed_index.searcher.search(query, 10_000))
    assert selected == [hit for hit in ranking if int(hit[0]) in numbers]
    assert selected


def test_cursors_of_any_kind(fuzzed_index: FuzzedIndex) -> None:
    """A cursor continues exactly there in the order; anything else is rejected."""
    vector = fuzzed_index.documents["003"]
    ranking = list_scores(fuzzed_index.searcher.search(vector, 10_000))
    names = (None, "", "u/050", "x" * 9000, "\ud800", "\x00", "NaN")
    values: st.SearchStrategy[Any] = st.sampled_from((*names, 1, 1.5, True, [], {}, float("nan"), float("inf")))
    scores = st.builds(float.__mul__, st.sampled_from([score for _, score in ranking]), st.sampled_from((1.0, 1.0, 0.5, 2.0)))
    uris = st.sampled_from(("", "zzz", "\U0010ffff")) | st.integers(0, 149).map("u/{:03}".format)
    cursors = st.tuples(scores, uris, st.none(), st.just(fuzzed_index.index)).map(list)

    @limit_examples(0.8)
    @given(cursor=st.lists(values, max_size=5) | cursors)
    def check_cursor(cursor: list[Any]) -> None:
        result = search_or_none(lambda: fuzzed_index.searcher.search(vector, 5, after=cursor))
        assert (result is not None) == is_cursor(cursor)
        if result is None:
            return
        score, uri, sha256, index = cursor
        place = (-float(np.float32(score)), uri is None, uri or "", sha256 is None, sha256 or "", index is None, index or "")
        later = [
            hit
            for hit in ranking
            if (-float(np.float32(hit[1])), False, f"u/{hit[0]}", True, "", False, fuzzed_index.index) > place
        ]
        assert list_scores(result) == later[:5]

    check_cursor()


def is_cursor(values: list[Any]) -> bool:
    if len(values) != 4 or type(values[0]) not in (int, float) or not np.isfinite(values[0]):
        return False
    names = values[1:]
    are_names = all(name is None or (isinstance(name, str) and "\ud800" not in name) for name in names)
    return are_names and not (names[0] is None and names[1] is None)


def list_long_captions(count: int) -> tuple[str, ...]:
    """List texts of so many terms, all different, one of them `dog`: with spaces, with dashes, and ideographs without either."""
    numbered = ["dog", *(f"d{number}" for number in range(count - 1))]
    return " ".join(numbered), "-".join(numbered), "dog " + "".join(chr(0x4E00 + number) for number in range(count - 1))


CAPTIONS: list[tuple[str, int | None]] = [  # and how many terms are in it, where that matters and is known
    *((text, 1) for text in ("dog", "dog cat 犬 -cat +dog", "NOT", "AND OR", "*", "\x00 dog", "x" * 40_000 + " dog")),
    *((text, count) for count in (900, 1000, 10_000) for text in list_long_captions(count)),
    *(("🐕" * 2000, None), ("dog.cat " * 2000, None), ("a" * 300_000, None)),
]


@pytest.mark.parametrize(("caption", "terms"), CAPTIONS, ids=range(len(CAPTIONS)))
def test_captions_add_their_bm25_score(fuzzed_index: FuzzedIndex, caption: str, terms: int | None) -> None:
    vector = SparseVector.from_mapping(dict.fromkeys([*fuzzed_index.oracle.columns][:64], 1.0))
    is_accepted = check_caption(fuzzed_index, SearchQuery(vector=vector, caption=caption, caption_weight=30.0))
    if terms is not None:
        assert is_accepted >= (terms + len(vector) <= fuzzed_index.max_clauses)
        assert is_accepted <= (terms < fuzzed_index.max_clauses)


def test_captions_of_any_words_add_their_bm25_score(fuzzed_index: FuzzedIndex) -> None:
    @limit_examples(0.25)
    @given(
        words=st.lists(TOKENS, max_size=30), vector=draw_known_vector(fuzzed_index, 64), weight=st.sampled_from((1.0, 0.01, 30.0))
    )
    def check_words(words: list[str], vector: SparseVector, weight: float) -> None:
        query = SearchQuery(vector=vector, caption=" ".join(["dog", *words]), caption_weight=weight)
        assert check_caption(fuzzed_index, query) or len(query.caption) > 1000

    check_words()


def check_caption(fuzzed_index: FuzzedIndex, query: SearchQuery) -> bool:
    """Check the scores of a query with a caption, and return whether it was accepted."""
    result = search_or_none(lambda: fuzzed_index.searcher.search(query, 10_000))
    if result is None:
        return False
    truncated = set(result.truncated.tokens)
    sent = SparseVector.from_pairs(pair for pair in query.vector if pair[0] not in truncated)
    by_tokens = dict(list_scores(fuzzed_index.searcher.search(sent, 10_000)))
    by_caption = dict(list_scores(fuzzed_index.searcher.search(replace(query, vector=SparseVector((), ())), 10_000)))
    assert by_caption or "dog" not in query.caption.split()
    expected = {id_: by_tokens.get(id_, 0.0) + by_caption.get(id_, 0.0) for id_ in {*by_tokens, *by_caption}}
    assert dict(list_scores(result)) == pytest.approx(expected, rel=1e-5)
    return True


@pytest.mark.parametrize(("tokens", "terms", "fits"), [(64, 900, True), (1024, 60, True), (64, 10_000, False)])
def test_captions_of_too_many_terms_are_rejected(fuzzed_index: FuzzedIndex, tokens: int, terms: int, fits: bool) -> None:
    vector = SparseVector.from_pairs((f"w{number}", 1.0) for number in range(tokens))
    query = SearchQuery(vector=vector, caption=" ".join(f"c{number}" for number in range(terms)))
    limit = fuzzed_index.max_clauses
    if fits:
        assert len(fuzzed_index.searcher.search(query).truncated) == max(0, tokens - (limit - limit // 16))
    elif limit == 1024:
        with expect_error("query-rejected", QueryError) as caught:
            fuzzed_index.searcher.search(query)
        assert "clause" in caught.value.message


def test_too_many_clauses_are_rejected(fuzzed_index: FuzzedIndex) -> None:
    """Each word once a field: that can't be known here."""
    text = " ".join(f"w{number}" for number in range(fuzzed_index.max_clauses - 30))
    clause: dict[str, Any] = {"multi_match": {"query": text, "fields": ["caption", "title", "subtitle"]}}
    query = SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), filters=[clause])
    is_rejected = search_or_none(lambda: fuzzed_index.searcher.search(query)) is None
    if fuzzed_index.cluster_info.distribution == "opensearch":
        assert is_rejected
    if fuzzed_index.cluster_info.version[0] == 7:  # it counts each `bool` by itself; 9 allows what its memory holds
        assert not is_rejected


@pytest.mark.parametrize(
    "arguments",
    [
        {"caption": "dog\ud800"},
        {"caption": "dog", "caption_field": "\ud800"},
        {"caption": "dog", "caption_field": ""},
        {"caption": "dog", "caption_weight": 1e300},
        {"caption": "dog", "caption_weight": float("nan")},
        {"min_weight": float("inf")},
        {"min_score": float("nan")},
        {"required": [()]},
        {"filters": [{"term": {"a": float("nan")}}]},
        {"filters": [{"term": {"a": {1, 2}}}]},
    ],
    ids=str,
)
def test_queries_that_no_engine_accepts_are_not_sent(arguments: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), **arguments)


def test_scores_beyond_float32_are_rejected(fuzzed_index: FuzzedIndex) -> None:
    index, client = f"{fuzzed_index.index}-large", fuzzed_index.cluster.client
    create_index(fuzzed_index.cluster, index, fuzzed_index.settings)
    client.index(index=index, id="1", body={"tokens": {"a": 3e38, "b": 1.0}}, params={"refresh": "true"})
    with Searcher(fuzzed_index.cluster.connection, index, MODEL_ID) as searcher:
        assert len(searcher.search(SparseVector.from_mapping({"a": 0.5})).hits) == 1
        with expect_error("scores-overflow", QueryError):
            searcher.search(SparseVector.from_mapping({"a": 5.0}))


def test_pages_over_equal_scores_have_every_document_once(fuzzed_index: FuzzedIndex) -> None:
    """Equal scores, equal URIs in two indices, URIs too long to be sorted by; documents with nothing to sort by are rejected."""
    client, connection = fuzzed_index.cluster.client, fuzzed_index.cluster.connection
    names = [f"{fuzzed_index.index}-tied-{number}" for number in (1, 2)]
    for name in names:
        create_index(fuzzed_index.cluster, name, fuzzed_index.settings)
        for number in range(9):
            uri = f"u/{number}" if number < 6 else "x" * 8200 + str(number)
            body = {"tokens": {"a": 1.0 + number // 4}, "uri": uri, "sha256": f"{number}"}
            client.index(index=name, id=str(number), body=body)
    client.indices.refresh(index=f"{fuzzed_index.index}-tied-*")
    vector = SparseVector.from_mapping({"a": 1.0})
    for pattern, count in ((names[0], 9), (f"{fuzzed_index.index}-tied-*", 18)):
        with Searcher(connection, pattern, MODEL_ID) as searcher:
            ranking = [(hit.index, hit.id) for hit in searcher.search(vector, 100).hits]
            assert len(set(ranking)) == len(ranking) == count
            for size in (1, 2, 5, 9):
                paged, result = [], searcher.search(vector, size)
                paged += [(hit.index, hit.id) for hit in result.hits]
                while result.after is not None:
                    result = searcher.search(vector, size, after=result.after)
                    paged += [(hit.index, hit.id) for hit in result.hits]
                assert paged == ranking
    for number in range(3):
        client.index(index=names[0], id=f"bare-{number}", body={"tokens": {"bare": 1.0}}, params={"refresh": "true"})
    with Searcher(connection, names[0], MODEL_ID) as searcher:
        page = searcher.search(SparseVector.from_mapping({"bare": 1.0}), 2)
        with expect_error("no-order-across-pages", QueryError):
            searcher.search(SparseVector.from_mapping({"bare": 1.0}), 2, after=page.after)


def test_fused_ranks_combine_both_rankings(fuzzed_index: FuzzedIndex) -> None:
    captions, weights = st.sampled_from(CAPTION), st.sampled_from((0.5, 1.0, 2.0))
    vectors = draw_known_vector(fuzzed_index, 3, st.just(1.0))

    @limit_examples(0.1)
    @given(query=st.builds(SearchQuery, vector=vectors, caption=captions, caption_weight=weights))
    def check_ranks(query: SearchQuery) -> None:
        searcher = fuzzed_index.searcher
        result = searcher.search(query, 20, options=SearchOptions(fusion="rrf", fusion_window=150))
        by_tokens = [hit.id for hit in searcher.search(query.vector, 150).hits]
        by_caption = [hit.id for hit in searcher.search(replace(query, vector=SparseVector((), ())), 150).hits]
        rankings = [(1.0, by_tokens), (query.caption_weight, by_caption)]
        expected = {
            id_: sum(weight / (61 + ranking.index(id_)) for weight, ranking in rankings if id_ in ranking)
            for id_ in {*by_tokens, *by_caption}
        }
        best = sorted(expected.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:20]
        assert [hit.score for hit in result.hits] == pytest.approx([score for _, score in best])
        assert [hit.id for hit in result.hits] == [id_ for id_, _ in best]

    check_ranks()


@pytest.mark.parametrize("reference", ["", "\ud800", "x" * 40_000, "*", '"', "\x00", "u/does-not-exist"])
def test_invalid_documents(fuzzed_index: FuzzedIndex, reference: str) -> None:
    # Elasticsearch 9 takes no id that is so long, and says so.
    is_rejected = len(reference) == 40_000 and fuzzed_index.is_sparse_vector
    with expect_error("cluster-error", ClusterError) if is_rejected else nullcontext():
        assert fuzzed_index.searcher.find_document(reference) is None
