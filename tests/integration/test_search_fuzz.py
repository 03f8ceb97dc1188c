"""Hostile queries on real nodes: a clear error or the right answer, never a wrong ranking and never the engine's own failure.

The cases are drawn with `SEED`; a failure names the number of its case.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from support import fuzz_inputs
from support.oracles.search_oracle import Oracle

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
    def newest(self) -> bool:
        return self.settings.vector == "sparse_vector"


def drawn_documents() -> dict[str, SparseVector]:
    rng = random.Random(SEED)
    vocabulary = fuzz_inputs.draw_words(rng, 150)
    documents = {}
    for number in range(150):
        chosen = rng.sample(vocabulary, rng.randint(1, 30))
        documents[f"{number:03}"] = SparseVector.from_pairs((word, fuzz_inputs.draw_weight(rng)) for word in chosen)
    return documents


@pytest.fixture(scope="module", params=list(ENGINES), ids=["opensearch", "elasticsearch7", "elasticsearch9"])
def node(request: pytest.FixtureRequest) -> Iterator[FuzzedIndex]:
    connection = Connection(url=request.getfixturevalue(request.param))
    cluster = Cluster(connection)
    index, documents = "test-search-fuzz", drawn_documents()
    cluster_info = get_cluster_info(cluster)
    settings = DocumentSettings(vector=ENGINES[request.param])
    try:
        create(cluster, index, settings)
        lines: list[dict[str, Any]] = []
        for number, (id_, tokens) in enumerate(documents.items()):
            caption = " ".join(CAPTION[: 1 + number % len(CAPTION)])
            texts = {"caption": caption, "title": "dog", "subtitle": "dog"}
            lines += [{"index": {"_id": id_}}, {**source(tokens), **texts, "uri": f"u/{id_}", "width": number}]
        answer = cluster.client.bulk(body=lines, index=index, params={"refresh": "true"})
        assert not answer["errors"], [item for item in answer["items"] if "error" in item["index"]][:3]
        with Searcher(connection, index, MODEL_ID) as searcher:
            yield FuzzedIndex(cluster, index, searcher, Oracle(documents), documents, cluster_info, settings)
        cluster.client.indices.delete(index=",".join(cluster.client.indices.get(index=f"{index}*")))
    finally:
        cluster.close()


def create(cluster: Cluster, index: str, settings: DocumentSettings) -> None:
    body = build_index_body(get_cluster_info(cluster), settings)
    body["settings"]["index"]["number_of_shards"] = 3
    body["mappings"]["_meta"] = {"stair_es": {"format_version": INDEX_FORMAT, "model": MODEL_ID, "model_name": "drawn"}}
    cluster.client.indices.create(index=index, body=body)


def source(vector: SparseVector) -> dict[str, Any]:
    return {"tokens": {escape_feature(word): weight for word, weight in vector}}


def ranking(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in result.hits]


def answer(ask: Callable[[], SearchResult], case: object, *refusals: type[StairError]) -> SearchResult | None:
    """The answer, or None where the query was refused in plain words: by us, unless `refusals` says by whom."""
    caught = refusals or (QueryError,)
    try:
        return ask()
    except caught as error:
        message = error.message
    assert message, case
    assert " answered 5" not in message, (case, message)
    return None


def drawn_vector(rng: random.Random, vocabulary: list[str]) -> SparseVector:
    """Mostly words that there are; sometimes very many, sometimes with a weight or a word that no engine takes."""
    size = rng.choice((1, 1, 2, 5, 20, 64, rng.choice((1100, 5000, 10_000)) if rng.random() < 0.3 else 10))
    chosen = dict.fromkeys(rng.sample(vocabulary, min(size, len(vocabulary) // 2)))
    chosen |= dict.fromkeys(fuzz_inputs.draw_words(rng, 3)) if rng.random() < 0.3 else {}
    chosen |= dict.fromkeys(f"w{number}" for number in range(size - len(chosen)))
    pairs = [(word, fuzz_inputs.draw_weight(rng, rng.choice((1, 3)))) for word in chosen]
    spoiled = rng.randrange(len(pairs))
    kind = rng.random()
    if kind < 0.1:
        pairs[spoiled] = (pairs[spoiled][0], rng.choice(fuzz_inputs.BAD_WEIGHTS))
    elif kind < 0.2:
        pairs[spoiled] = (pairs[spoiled][0], rng.choice((LARGEST, LEAST, *fuzz_inputs.TINY_WEIGHTS)))
    elif kind < 0.25:
        pairs[spoiled] = (rng.choice((fuzz_inputs.draw_broken_text(rng), "x" * 40_000)), 1.0)
    rng.shuffle(pairs)
    return SparseVector(tuple(word for word, _ in pairs), tuple(weight for _, weight in pairs))  # unchecked, unsorted


def can_be_asked(vector: SparseVector) -> bool:
    """Said once more, by other means than the code does."""
    for word, weight in vector:
        if not 0 < weight <= LARGEST or any("\ud800" <= c <= "\udfff" for c in word) or len(word) >= 40_000:
            return False
    return any(weight >= LEAST for weight in vector.weights)


def test_vectors_of_any_kind(node: FuzzedIndex) -> None:
    rng = random.Random(SEED)
    vocabulary = list(node.oracle.columns)
    compared = 0
    for case in range(110):
        vector, k = drawn_vector(rng, vocabulary), rng.choice((1, 3, 10, 200, 10_000))
        result = answer(lambda: node.searcher.search(vector, k), case)  # noqa: B023  called at once
        assert (result is not None) == can_be_asked(vector), (case, vector)
        if result is None:
            continue
        cut = set(result.truncated.tokens)
        sent = SparseVector.from_pairs(pair for pair in vector if pair[0] not in cut)
        assert len(sent) == min(node.max_clauses, sum(weight >= LEAST for weight in vector.weights)), case
        assert max(result.truncated.weights, default=0.0) <= min(sent.weights), case
        assert not node.oracle.find_errors(ranking(result), node.oracle.compute_bounds(sent), k), case
        for hit in result.hits[:3]:
            assert {reason.token for reason in hit.contributions} == set(sent.tokens) & set(node.documents[hit.id].tokens), case
        compared += len(result.hits)
    assert compared > 1000


def test_contributions_match_the_engine_explanation(node: FuzzedIndex) -> None:
    rng = random.Random(SEED)
    explained = 0
    for case in range(15):
        vector = SparseVector.from_pairs(
            (word, fuzz_inputs.draw_weight(rng, 2)) for word in rng.sample(list(node.oracle.columns), 20)
        )
        for hit in node.searcher.search(vector, 5, options=SearchOptions(explain_engine=True)).hits:
            ours = {reason.token: reason.contribution for reason in hit.contributions}
            assert hit.engine_scores == pytest.approx(ours, rel=2**-8), (case, hit.id)
            explained += len(ours)
    assert explained > 100


@pytest.mark.parametrize("k", [-1, 0, 10_001, 2**40])
def test_k_beyond_its_limits(node: FuzzedIndex, k: int) -> None:
    with pytest.raises(QueryError, match="k must be"):
        node.searcher.search(SparseVector.from_mapping({"a": 1.0}), k)


def test_conditions_on_strange_words(node: FuzzedIndex) -> None:
    rng = random.Random(SEED)
    vocabulary = list(node.oracle.columns)
    for case in range(60):
        vector = SparseVector.from_pairs((word, fuzz_inputs.draw_weight(rng, 2)) for word in rng.sample(vocabulary, 20))
        least = rng.choice((0.0, 0.0, 5e-324, 1e-3, 0.3, 1.0, 1e3, 1e300))
        required = [tuple(rng.sample(vocabulary, rng.choice((1, 1, 2)))) for _ in range(rng.randint(0, 1))]
        excluded = [tuple(rng.sample(vocabulary, rng.choice((1, 1, 2)))) for _ in range(rng.randint(0, 2))]
        query = SearchQuery(vector=vector, required=required, excluded=excluded, min_weight=least)
        result = node.searcher.search(query, 10_000)
        part_N = np.ones(len(node.documents), bool)
        for groups, wanted in ((required, True), (excluded, False)):
            for group in groups:
                weights = [node.oracle.get_weights(feature) for feature in group]
                part_N &= np.logical_and.reduce([(weight > 0) & (weight >= least) for weight in weights]) == wanted
        assert not node.oracle.find_errors(ranking(result), node.oracle.compute_bounds(vector).select(part_N), 10_000), (
            case,
            query,
        )


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


@pytest.mark.parametrize("given", FILTERS, ids=range(len(FILTERS)))
def test_a_filter_of_any_kind_changes_no_score(node: FuzzedIndex, given: str) -> None:
    vector = node.documents["003"]
    whole = dict(ranking(node.searcher.search(vector, 10_000)))
    result = answer(
        lambda: node.searcher.search(SearchQuery(vector=vector, filters=[parse_filter(given)]), 10_000),
        given[:80],
        QueryError,
        ClusterError,
    )
    if result is not None:
        found = ranking(result)
        assert found == [hit for hit in whole.items() if hit[0] in dict(found)]


def test_valid_filters_select_documents(node: FuzzedIndex) -> None:
    vector = node.documents["003"]
    whole = ranking(node.searcher.search(vector, 10_000))
    some = '{"terms":{"width":[' + ",".join(map(str, range(0, 3000, 2))) + "]}}"
    deep = '{"bool":{"filter":[' * 10 + '{"range":{"width":{"lt":50}}}' + "]}}" * 10
    for given, numbers in ((some, range(0, 3000, 2)), (deep, range(50))):
        found = ranking(node.searcher.search(SearchQuery(vector=vector, filters=[parse_filter(given)]), 10_000))
        assert found == [hit for hit in whole if int(hit[0]) in numbers]
        assert found


def test_cursors_of_any_kind(node: FuzzedIndex) -> None:
    """What is a cursor continues exactly there in the order; what is none is refused."""
    rng = random.Random(SEED)
    vector = node.documents["003"]
    whole = ranking(node.searcher.search(vector, 10_000))
    pieces: tuple[Any, ...] = (None, "", "u/050", "x" * 9000, "\ud800", "\x00", 1, 1.5, True, [], {}, "NaN", float("nan"), 1e400)
    for case in range(80):
        if rng.random() < 0.5:
            cursor = [rng.choice((*pieces, 1.0)) for _ in range(rng.choice((0, 1, 3, 4, 4, 4, 5)))]
        else:
            score = rng.choice(whole)[1] * rng.choice((1, 1, 0.5, 2))
            cursor = [score, rng.choice(("", f"u/{rng.randrange(150):03}", "zzz", "\U0010ffff")), None, node.index]
        result = answer(lambda: node.searcher.search(vector, 5, after=cursor), (case, cursor))  # noqa: B023  called at once
        if result is None:
            assert not is_cursor(cursor), (case, cursor)
            continue
        assert is_cursor(cursor), (case, cursor)
        score, uri, sha256, index = cursor
        place = (-float(np.float32(score)), uri is None, uri or "", sha256 is None, sha256 or "", index is None, index or "")
        later = [hit for hit in whole if (-float(np.float32(hit[1])), False, f"u/{hit[0]}", True, "", False, node.index) > place]
        assert ranking(result) == later[:5], (case, cursor)


def is_cursor(values: list[Any]) -> bool:
    if len(values) != 4 or type(values[0]) not in (int, float) or not np.isfinite(values[0]):
        return False
    names = values[1:]
    whole = all(name is None or (isinstance(name, str) and "\ud800" not in name) for name in names)
    return whole and not (names[0] is None and names[1] is None)


def many_terms(count: int) -> tuple[str, ...]:
    """Texts of so many terms, all different, one of them `dog`: with spaces, with dashes, and ideographs without either."""
    numbered = ["dog", *(f"d{number}" for number in range(count - 1))]
    return " ".join(numbered), "-".join(numbered), "dog " + "".join(chr(0x4E00 + number) for number in range(count - 1))


def test_captions_of_any_kind_add_their_bm25_score(node: FuzzedIndex) -> None:
    rng = random.Random(SEED)
    captions: list[tuple[str, int | None]] = [  # and how many terms are in it, where that matters and is known
        *((" ".join(["dog", fuzz_inputs.draw_text(rng, rng.choice((1, 5, 30)))]), None) for _ in range(25)),
        *((text, 1) for text in ("dog", "dog cat 犬 -cat +dog", "NOT", "AND OR", "*", "\x00 dog", "x" * 40_000 + " dog")),
        *((text, n) for n in (900, 1000, 10_000) for text in many_terms(n)),
        *(("🐕" * 2000, None), ("dog.cat " * 2000, None), ("a" * 300_000, None)),
    ]
    vector = SparseVector.from_pairs((word, 1.0) for word in list(node.oracle.columns)[:64])
    by_words = dict(ranking(node.searcher.search(vector, 10_000)))
    added = 0
    for case, (caption, terms) in enumerate(captions):
        weight = rng.choice((1.0, 0.01, 30.0))
        query = SearchQuery(vector=vector, caption=caption, caption_weight=weight)
        result = answer(lambda: node.searcher.search(query, 10_000), (case, caption[:50]))  # noqa: B023
        if terms is not None:
            assert (result is not None) >= (terms + len(vector) <= node.max_clauses), (case, caption[:50])
            assert (result is not None) <= (terms < node.max_clauses), (case, caption[:50])
        if result is None:
            assert len(caption) > 1000, (case, caption[:50])
            continue
        cut = set(result.truncated.tokens)
        words = (
            by_words
            if not cut
            else dict(
                ranking(node.searcher.search(SparseVector.from_pairs(pair for pair in vector if pair[0] not in cut), 10_000))
            )
        )
        alone = dict(ranking(node.searcher.search(replace(query, vector=SparseVector((), ())), 10_000)))
        expected = {id_: words.get(id_, 0.0) + alone.get(id_, 0.0) for id_ in {*words, *alone}}
        assert dict(ranking(result)) == pytest.approx(expected, rel=1e-5), (case, caption[:50])
        added += len(alone)
    assert added > 1000


@pytest.mark.parametrize(("features", "terms", "fits"), [(64, 900, True), (1024, 60, True), (64, 10_000, False)])
def test_a_caption_that_needs_too_many_clauses_has_a_clear_error(
    node: FuzzedIndex, features: int, terms: int, fits: bool
) -> None:
    vector = SparseVector.from_pairs((f"w{number}", 1.0) for number in range(features))
    query = SearchQuery(vector=vector, caption=" ".join(f"c{number}" for number in range(terms)))
    if fits:
        assert len(node.searcher.search(query).truncated) == max(0, features - (node.max_clauses - node.max_clauses // 16))
    elif node.max_clauses == 1024:
        with pytest.raises(QueryError, match="exceeds the clause limit"):
            node.searcher.search(query)


def test_too_many_clauses_have_a_clear_error(node: FuzzedIndex) -> None:
    """Each word once a field: that can't be known here."""
    text = " ".join(f"w{number}" for number in range(node.max_clauses - 30))
    clause: dict[str, Any] = {"multi_match": {"query": text, "fields": ["caption", "title", "subtitle"]}}
    query = SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), filters=[clause])
    refused = answer(lambda: node.searcher.search(query), "multi_match") is None
    if node.cluster_info.distribution == "opensearch":
        assert refused
    if node.cluster_info.version[0] == 7:  # it counts each `bool` by itself; 9 allows what its memory holds
        assert not refused


@pytest.mark.parametrize(
    "ask",
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
def test_queries_that_no_engine_accepts_are_rejected_before_they_are_sent(ask: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), **ask)


def test_scores_beyond_float32_are_rejected(node: FuzzedIndex) -> None:
    index = f"{node.index}-large"
    create(node.cluster, index, node.settings)
    node.cluster.client.index(index=index, id="1", body={"tokens": {"a": 3e38, "b": 1.0}}, params={"refresh": "true"})
    with Searcher(node.cluster.connection, index, MODEL_ID) as searcher:
        assert len(searcher.search(SparseVector.from_mapping({"a": 0.5})).hits) == 1
        with pytest.raises(QueryError, match="float32"):
            searcher.search(SparseVector.from_mapping({"a": 5.0}))


def test_pages_over_equal_scores_have_every_document_once(node: FuzzedIndex) -> None:
    """Equal scores, equal URIs in two indices, URIs too long to be sorted by; documents with nothing to sort by are refused."""
    names = [f"{node.index}-tied-{number}" for number in (1, 2)]
    for name in names:
        create(node.cluster, name, node.settings)
        for number in range(9):
            uri = f"u/{number}" if number < 6 else "x" * 8200 + str(number)
            body = {"tokens": {"a": 1.0 + number // 4}, "uri": uri, "sha256": f"{number}"}
            node.cluster.client.index(index=name, id=str(number), body=body)
    node.cluster.client.indices.refresh(index=f"{node.index}-tied-*")
    vector = SparseVector.from_mapping({"a": 1.0})
    for pattern, count in ((names[0], 9), (f"{node.index}-tied-*", 18)):
        with Searcher(node.cluster.connection, pattern, MODEL_ID) as searcher:
            whole = [(hit.index, hit.id) for hit in searcher.search(vector, 100).hits]
            assert len(set(whole)) == len(whole) == count
            for size in (1, 2, 5, 9):
                paged, result = [], searcher.search(vector, size)
                paged += [(hit.index, hit.id) for hit in result.hits]
                while result.after is not None:
                    result = searcher.search(vector, size, after=result.after)
                    paged += [(hit.index, hit.id) for hit in result.hits]
                assert paged == whole
    for number in range(3):
        node.cluster.client.index(index=names[0], id=f"bare-{number}", body={"tokens": {"bare": 1.0}}, params={"refresh": "true"})
    with Searcher(node.cluster.connection, names[0], MODEL_ID) as searcher:
        page = searcher.search(SparseVector.from_mapping({"bare": 1.0}), 2)
        with pytest.raises(QueryError, match="neither `uri` nor `sha256`"):
            searcher.search(SparseVector.from_mapping({"bare": 1.0}), 2, after=page.after)


def test_fused_ranks_combine_both_rankings(node: FuzzedIndex) -> None:
    rng = random.Random(SEED)
    for _ in range(10):
        vector = SparseVector.from_pairs((word, 1.0) for word in rng.sample(list(node.oracle.columns), 3))
        query = SearchQuery(vector=vector, caption=rng.choice(CAPTION), caption_weight=rng.choice((0.5, 1.0, 2.0)))
        result = node.searcher.search(query, 20, options=SearchOptions(fusion="rrf", fusion_window=150))
        by_words = [hit.id for hit in node.searcher.search(vector, 150).hits]
        by_caption = [hit.id for hit in node.searcher.search(replace(query, vector=SparseVector((), ())), 150).hits]
        expected = {}
        for id_ in {*by_words, *by_caption}:
            parts = [(1.0, by_words), (query.caption_weight, by_caption)]
            expected[id_] = sum(weight / (61 + of.index(id_)) for weight, of in parts if id_ in of)
        best = sorted(expected.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:20]
        assert [hit.score for hit in result.hits] == pytest.approx([score for _, score in best])
        assert [hit.id for hit in result.hits] == [id_ for id_, _ in best]


@pytest.mark.parametrize("reference", ["", "\ud800", "x" * 40_000, "*", '"', "\x00", "u/does-not-exist"])
def test_invalid_documents(node: FuzzedIndex, reference: str) -> None:
    # Elasticsearch 9 takes no id that is so long, and says so.
    refused = pytest.raises(ClusterError, match="400") if len(reference) == 40_000 and node.newest else nullcontext()
    with refused:
        assert node.searcher.find_document(reference) is None
