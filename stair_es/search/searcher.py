"""`Searcher`: send search queries to a cluster, and return ranked hits with token contributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.capabilities import list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import describe_rejection, is_clause_limit_error
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.config.defaults import DEFAULT_PRICE_FIELD, MAX_HITS
from stair_es.errors import ClusterError, QueryError
from stair_es.retry import RetryPolicy
from stair_es.search.dsl.pagination import Cursor, build_field_order
from stair_es.search.dsl.understanding import SearchFields
from stair_es.search.index_cache import IndexCache, SearchTarget, fetch_search_target
from stair_es.search.options import SearchOptions, prune_vector
from stair_es.search.query import EMPTY_VECTOR, SearchQuery, TokenGroup, explain_no_hits
from stair_es.search.ranking import AddedScores, check_fusion, collect_pictures, fuse_rankings
from stair_es.search.refining import QueryRefiner
from stair_es.search.request import (
    EXCLUDED_FIELDS,
    SearchRequest,
    build_search_request,
    build_word_request,
    parse_word_score,
)
from stair_es.search.results import Hit, SearchResult, build_document_filter, judge_hit, parse_hit, parse_search_response
from stair_es.types import SparseVector, is_utf8

if TYPE_CHECKING:
    from stair_es.search.index_info import IndexInfo


class QueryRunner:
    """Runs queries against a resolved `SearchTarget`: pagination, fusion, folding of copies.

    `Searcher` and the page send through it.
    """

    def __init__(
        self,
        send: Callable[[Mapping[str, Any], str | None], dict[str, Any]],
        list_plugins: Callable[[], frozenset[str]] = frozenset,
        source_fields: Sequence[str] | None = None,
    ) -> None:
        """Create a runner without knowledge of the scores that the cluster adds.

        `send` sends the body of a `_search` request, with the name of a search pipeline or None. `list_plugins` is called only
        for query types that require a plugin. Hits contain the `source_fields`; None for all that are useful.
        """
        self.send, self._list_plugins, self._source_fields = send, list_plugins, source_fields
        self._added_scores = AddedScores()
        self._refiner = QueryRefiner(lambda body: send(body, None))

    def list_search_fields(self, target: SearchTarget, price_field: str = DEFAULT_PRICE_FIELD) -> SearchFields:
        """List the fields in which a text is searched besides the token weights, of captions those that a document has."""
        fields = target.info.list_search_fields(price_field)
        return replace(fields, text=self.choose_caption_field(target)) if fields.text else fields

    def choose_caption_field(self, target: SearchTarget) -> str:
        """Choose the text fields of captions and titles that a document has, separated by commas; empty for none."""
        return ",".join(filter(self._refiner.has_field, target.info.caption_fields))

    def refine_query(self, target: SearchTarget, query: SearchQuery, options: SearchOptions) -> SearchQuery:
        """Adapt a query to what the documents of the index have, as `QueryRefiner`."""
        if target.info.content_type != "images":  # others have no matches that could be weak
            return query
        query = target.info.apply_policy(query)  # whose tokens the documents have
        return self._refiner.refine_query(query, lambda refined: self.build_request(target, refined, 1, None, options))

    def find_largest_weight(self, target: SearchTarget, tokens: TokenGroup, options: SearchOptions) -> float | None:
        """Find the largest weight that a document has of one of the tokens of a word, as `QueryRefiner`."""
        policy = target.info.policy
        query_type = target.plan_query(options.query_type, self._list_plugins).query_type
        return self._refiner.find_largest_weight(tokens if policy is None else policy.replace_tokens(tokens), query_type)

    def forget_answers(self) -> None:
        """Forget what the index was asked, after a change of its documents."""
        self._refiner.forget_answers()

    def search(
        self, target: SearchTarget, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions
    ) -> SearchResult:
        """Search for the `k` best documents."""
        query = self.refine_query(target, query, options)
        pruned_vector = prune_vector(query.vector, options.weight_mass)
        query = replace(query, vector=pruned_vector.kept)
        search_page = self._search_fused if options.fusion == "rrf" else self._search_page
        if options.fold_duplicates:
            result = collect_pictures(lambda cursor: search_page(target, query, k, cursor, options), k, after)
        else:
            result = search_page(target, query, k, after, options)
        return replace(
            result,
            pruned=pruned_vector.pruned,
            conditions=tuple(query.conditions),
            unknown_words=tuple(query.unknown_words),
            remarks=(*query.remarks, *result.remarks),
        )

    def count(self, target: SearchTarget, query: SearchQuery, options: SearchOptions) -> int:
        """Count all documents that match the tokens that are sent."""
        options = replace(options, sort="")  # which leaves out weak matches
        pruned_query = replace(query, vector=prune_vector(query.vector, options.weight_mass).kept)
        request = self.build_request(target, self._added_scores.exclude(pruned_query), 0, None, options)
        return int(self._send_request(request, options, total=True)["hits"]["total"]["value"])

    def build_request(
        self, target: SearchTarget, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions
    ) -> SearchRequest:
        """Build the request for a page of hits."""
        info = target.info
        info.check_caption_field(query)
        info.check_filter_fields(query.filters)
        plan = target.plan_query(options.query_type, self._list_plugins)
        # the cut was measured on scores of images, and a pipeline can change scores
        has_cut = info.content_type == "images" and not options.search_pipeline and options.build_clause is None
        sent = info.apply_policy(query if has_cut else replace(query, match_thresholds=None))
        request = build_search_request(
            sent,
            plan.query_type,
            max_clauses=plan.max_clauses,
            k=k,
            after=after,
            ordered=plan.sortable and not options.search_pipeline,  # it may rescore, which excludes sorting
            order=build_field_order(options.sort, info.mapped_fields) if options.sort else None,
            build_clause=options.build_clause,
        )
        if self._source_fields is not None:
            request = replace(request, body={**request.body, "_source": self._source_fields})
        remarks = info.list_remarks(query)
        if options.sort and sent.match_cut is None:
            remarks.append("weak matches can't be told from others here: all hits are sorted")
        return replace(request, remarks=tuple(remarks))

    def _search_page(
        self, target: SearchTarget, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions
    ) -> SearchResult:
        def send(sent: SearchQuery) -> SearchResult:
            request = self.build_request(target, sent, k, after, options)
            return parse_search_response(self._send_request(request, options), request)

        if options.search_pipeline:  # which may change scores
            return send(query)
        by_tokens = bool(query.caption_words or not query.caption.strip()) and options.build_clause is None
        result = self._added_scores.search(query, send, by_tokens=by_tokens, is_first=after is None)
        return self._name_caption_words(target, query, result, options) if self._added_scores.are_found else result

    def _name_caption_words(
        self, target: SearchTarget, query: SearchQuery, result: SearchResult, options: SearchOptions
    ) -> SearchResult:
        """Ask which words the captions of hits have: OpenSearch doesn't name them to a user with document-level security."""
        if not query.searched_words or not result.hits or any(hit.caption_words for hit in result.hits):
            return result
        size = min(len(result.hits) * len(target.info.fields), MAX_HITS)  # the ids of an index needn't be those of another
        body = build_word_request(query, [hit.id for hit in result.hits], size)
        scores = {(raw["_index"], raw["_id"]): float(raw["_score"]) for raw in self.send(body, None)["hits"]["hits"]}
        cut = self.build_request(target, query, 1, None, options).match_cut
        named = (
            replace(hit, caption_words=parse_word_score(scores.get((hit.index, hit.id), 0.0), query.caption_words))
            for hit in result.hits
        )
        return replace(result, hits=tuple(hit if cut is None else judge_hit(hit, cut) for hit in named))

    def _search_fused(
        self, target: SearchTarget, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions
    ) -> SearchResult:
        window = max(options.fusion_window, k)
        # the weight applies to ranks; scores could underflow
        caption_query = replace(query, vector=EMPTY_VECTOR, caption_words=(), caption_weight=1.0)
        token_query = replace(query, caption="", caption_words=()) if len(query.vector) else None
        by_tokens = self._search_page(target, token_query, window, None, options) if token_query else None
        by_caption = self._search_page(target, caption_query, window, None, options)
        by_tokens = by_tokens or replace(by_caption, hits=())  # the model knows no word of the text
        return fuse_rankings(by_tokens, by_caption, query.caption_weight, k)

    def _send_request(self, request: SearchRequest, options: SearchOptions, *, total: bool = False) -> dict[str, Any]:
        body = {**request.body, "track_total_hits": total, **({"explain": True} if options.explain_engine else {})}
        try:
            return self.send(body, options.search_pipeline)
        except ClusterError as error:  # that the caption or a filter causes
            if is_clause_limit_error(error) or (error.status == 400 and "Failed to parse query" in error.message):
                raise QueryError(*describe_rejection(error), code="query-rejected") from None
            raise


def create_query_runner(cluster: Cluster, index: str, retry: RetryPolicy = NO_RETRY) -> QueryRunner:
    """Create a runner that sends to an index of a cluster."""

    def send(body: Mapping[str, Any], pipeline: str | None = None) -> dict[str, Any]:
        return cluster.search(index, body, retry=retry, **({"search_pipeline": pipeline} if pipeline else {}))

    return QueryRunner(send, partial(list_cluster_plugins, cluster))


class Searcher:
    """Search client for one index and the vectors of one model. Close it, or use it in a `with` statement.

    Connects lazily: the first search fetches the clause limit of the cluster and the index info (model and fields). Later
    searches fetch the index info again when they fail, have no hits, or have hits of another index than the alias pointed to.
    """

    def __init__(self, cluster: Cluster | Connection, index: str, model_id: str, retry: RetryPolicy = NO_RETRY) -> None:
        """Create the client of an alias or index; `model_id` is that of the encoder of the query vectors."""
        self._cluster = cluster if isinstance(cluster, Cluster) else Cluster(cluster)
        self._index = index
        self._model_id = model_id
        self._targets = IndexCache(self._fetch_target)
        self._runner = create_query_runner(self._cluster, index, retry)

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        self._cluster.close()

    def search(
        self, query: SearchQuery | SparseVector, k: int = 10, *, after: Cursor | None = None, options: SearchOptions | None = None
    ) -> SearchResult:
        """Search for the `k` best documents; `after` is `SearchResult.after` of the previous page.

        Raises:
            QueryError: If the query is empty or not supported, if the index doesn't exist, or if another model wrote it.
            IndexMismatch: If the index was not written by stair-es.
            ClusterError: Or a subclass, if the cluster rejects the request or returns partial results.
        """
        options = options or SearchOptions()
        search_query = SearchQuery(vector=query) if isinstance(query, SparseVector) else query
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k must be between 1 and {MAX_HITS}, got {k}", code="invalid-k")
        if options.fusion == "rrf":
            check_fusion(search_query, after)

        def search_target(target: SearchTarget) -> tuple[SearchResult, AbstractSet[str]]:
            result = self._runner.search(target, search_query, k, after, options)
            return result, {hit.index for hit in result.hits}

        result = self._targets.search_with_refresh(search_target)
        return replace(result, remarks=(*self._explain_end(result, search_query, after, options), *result.remarks))

    @property
    def info(self) -> IndexInfo:
        """The metadata of the index."""
        return self._targets.get().info

    def list_search_fields(self, price_field: str = DEFAULT_PRICE_FIELD) -> SearchFields:
        """List the fields in which a text is searched besides the token weights, of captions those that a document has."""
        return self._runner.list_search_fields(self._targets.get(), price_field)

    def refine_query(self, query: SearchQuery, options: SearchOptions) -> SearchQuery:
        """Adapt a query to what the documents of the index have, as `QueryRefiner`."""
        return self._runner.refine_query(self._targets.get(), query, options)

    def find_largest_weight(self, tokens: TokenGroup, options: SearchOptions) -> float | None:
        """Find the largest weight that an image has of one of the tokens of a word, as `QueryRefiner`."""
        return self._runner.find_largest_weight(self._targets.get(), tokens, options)

    def apply_policy(self, query: SearchQuery) -> SearchQuery:
        """Rewrite a query by the token policy of the index."""
        return self.info.apply_policy(query)

    def count(self, query: SearchQuery, *, options: SearchOptions | None = None) -> int:
        """Count all documents that match the tokens that are sent."""
        search_options = options or SearchOptions()
        return self._targets.search_with_refresh(lambda target: (self._runner.count(target, query, search_options), None))

    def find_document(self, reference: str) -> Hit | None:
        """Find the document with an id or URI, regardless of its score; None if there is none."""
        if not reference or not is_utf8(reference):
            return None
        clause = {"bool": {"should": [{"ids": {"values": [reference]}}, {"term": {"uri": reference}}]}}
        body = {"size": 1, "query": clause, "_source": {"excludes": EXCLUDED_FIELDS}}
        hits = self._runner.send(body, None)["hits"]["hits"]
        return parse_hit(hits[0], EMPTY_VECTOR) if hits else None

    def is_match(self, document: Hit, clause: Mapping[str, Any]) -> bool:
        """Check whether a document matches a query clause."""
        query = {"bool": {"filter": [build_document_filter(document), clause]}}
        return bool(self._runner.send({"size": 1, "query": query, "_source": False}, None)["hits"]["hits"])

    def _explain_end(
        self, result: SearchResult, query: SearchQuery, after: Cursor | None, options: SearchOptions
    ) -> Iterator[str]:
        if not result.hits and after is not None:
            yield "no further hits"
        elif not result.hits:
            reason = explain_no_hits(query, lambda other: self.count(other, options=options))
            needed = "is a match (weak ones aren't sorted)" if options.sort else "has a word in common with the query"
            reason = reason or f"nothing in {self._index!r} meets the conditions of the query and {needed}"
            yield f"nothing found: {reason}"

    def _fetch_target(self, previous: SearchTarget | None) -> SearchTarget:
        target = fetch_search_target(self._cluster, self._index, previous)
        target.info.check_model(self._model_id)
        return previous if previous == target else target
