"""`Searcher`: send search queries to a cluster, and return ranked hits with token contributions."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.capabilities import ClusterInfo, list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.config.defaults import MAX_HITS
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError
from stair_es.search.diagnose import explain_no_hits
from stair_es.search.dsl.pagination import Cursor
from stair_es.search.dsl.select import select_query_type
from stair_es.search.index_cache import IndexCache, SearchTarget, fetch_search_target
from stair_es.search.options import SearchOptions, prune_vector
from stair_es.search.query import EMPTY_VECTOR, SearchQuery
from stair_es.search.ranking import AddedScores, check_fusion, collect_pictures, fuse_rankings
from stair_es.search.request import EXCLUDED_FIELDS, SearchRequest, build_search_request
from stair_es.search.results import Hit, SearchResult, build_document_filter, parse_hit, parse_search_response
from stair_es.types import SparseVector, is_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from types import TracebackType


class Searcher:
    """Search client for one index and the vectors of one model. Close it, or use it in a `with` statement.

    Connects lazily: the first search fetches the clause limit of the cluster and the index info (model and fields). Later
    searches fetch the index info again when they fail, have no hits, or have hits of another index than the alias pointed to.
    """

    def __init__(self, connection: Connection, index: str, model_id: str) -> None:
        """Create the client.

        Args:
            connection: The connection to the cluster.
            index: An alias or index.
            model_id: The `model_id` of the encoder of the query vectors.
        """
        self._cluster = Cluster(connection)
        self._index = index
        self._model_id = model_id
        self._targets = IndexCache(self._fetch_target)
        self._added_scores = AddedScores()

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
        """Search for the `k` best documents.

        Args:
            query: The search query, or only a vector.
            k: Number of hits.
            after: `SearchResult.after` of the previous page.
            options: The search options.

        Raises:
            QueryError: If the query is empty or not supported, if the index doesn't exist, or if another model wrote it.
            IndexMismatch: If the index was not written by stair-es.
            ClusterError: Or a subclass, if the cluster rejects the request or returns partial results.
        """
        options = options or SearchOptions()
        search_query = SearchQuery(vector=query) if isinstance(query, SparseVector) else query
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k must be between 1 and {MAX_HITS}, got {k}")
        pruned_vector = prune_vector(search_query.vector, options.weight_mass)
        search_query = replace(search_query, vector=pruned_vector.kept)
        search_page = self._search_fused if options.fusion == "rrf" else self._search_page
        if options.fold_duplicates:
            result = collect_pictures(lambda cursor: search_page(search_query, k, cursor, options), k, after)
        else:
            result = search_page(search_query, k, after, options)
        return replace(
            result,
            pruned=pruned_vector.pruned,
            unknown_words=tuple(search_query.unknown_words),
            remarks=(*self._explain_end(result, search_query, after, options), *search_query.remarks, *result.remarks),
        )

    def apply_policy(self, query: SearchQuery) -> SearchQuery:
        """Rewrite a query by the token policy of the index.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        return self._targets.get().info.apply_policy(query)

    def count(self, query: SearchQuery, *, options: SearchOptions | None = None) -> int:
        """Count all documents that match the tokens that are sent.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        options = options or SearchOptions()
        pruned_query = replace(query, vector=prune_vector(query.vector, options.weight_mass).kept)
        response, _ = self._send_query(self._added_scores.exclude(pruned_query), 0, None, options, total=True)
        return int(response["hits"]["total"]["value"])

    def find_document(self, reference: str) -> Hit | None:
        """Find the document with an id or URI, regardless of its score; None if there is none.

        Raises:
            ClusterError: As for `search`.
        """
        if not reference or not is_utf8(reference):
            return None
        clause = {"bool": {"should": [{"ids": {"values": [reference]}}, {"term": {"uri": reference}}]}}
        body = {"size": 1, "query": clause, "_source": {"excludes": EXCLUDED_FIELDS}}
        hits = self._send(body)["hits"]["hits"]
        return parse_hit(hits[0], EMPTY_VECTOR) if hits else None

    def is_match(self, document: Hit, clause: Mapping[str, Any]) -> bool:
        """Check whether a document matches a query clause.

        Raises:
            ClusterError: As for `search`.
        """
        query = {"bool": {"filter": [build_document_filter(document), clause]}}
        return bool(self._send({"size": 1, "query": query, "_source": False})["hits"]["hits"])

    def _explain_end(
        self, result: SearchResult, query: SearchQuery, after: Cursor | None, options: SearchOptions
    ) -> Iterator[str]:
        if not result.hits and after is not None:
            yield "no further hits"
        elif not result.hits:
            reason = explain_no_hits(query, lambda other: self.count(other, options=options))
            reason = reason or f"nothing in {self._index!r} has a word in common with the query and meets its conditions"
            yield f"nothing found: {reason}"

    def _search_page(self, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions) -> SearchResult:
        def send(sent: SearchQuery) -> SearchResult:
            return parse_search_response(*self._send_query(sent, k, after, options))

        if options.search_pipeline:  # which may change scores
            return send(query)
        return self._added_scores.search(query, send, by_tokens=not query.caption.strip(), is_first=after is None)

    def _search_fused(self, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions) -> SearchResult:
        """Search by vector and by caption, and fuse both rankings by rank."""
        check_fusion(query, after)
        window = max(options.fusion_window, k)
        by_tokens = self._search_page(replace(query, caption=""), window, None, options)
        # the weight applies to ranks; scores could underflow
        caption_query = replace(query, vector=EMPTY_VECTOR, caption_weight=1.0)
        by_caption = self._search_page(caption_query, window, None, options)
        return fuse_rankings(by_tokens, by_caption, query.caption_weight, k)

    def _send_query(
        self, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions, *, total: bool = False
    ) -> tuple[dict[str, Any], SearchRequest]:
        """Send a query; send it again if the alias has moved since the index info was fetched."""

        def send(target: SearchTarget) -> tuple[tuple[dict[str, Any], SearchRequest], AbstractSet[str] | None]:
            request = self._build_request(target, query, k, after, options)
            body = {**request.body, "track_total_hits": total, **({"explain": True} if options.explain_engine else {})}
            with _describe_errors(target.cluster_info):
                response = self._send(body, options.search_pipeline)
            indices = {hit["_index"] for hit in response["hits"]["hits"]}
            return (response, request), indices if k else None

        return self._targets.search_with_refresh(send)

    def _build_request(
        self, target: SearchTarget, query: SearchQuery, k: int, after: Cursor | None, options: SearchOptions
    ) -> SearchRequest:
        info = target.info
        info.check_caption_field(query)
        info.check_filter_fields(query.filters)
        query_type = select_query_type(target.cluster_info, info.common_fields, self._fetch_plugins, options.query_type)
        request = build_search_request(
            info.apply_policy(query),
            query_type,
            max_clauses=target.cluster_info.max_clauses,
            k=k,
            after=after,
            ordered=info.sortable and not options.search_pipeline,  # it may rescore, which excludes sorting
        )
        # the cut was measured on images, and a pipeline can change scores
        has_cut = info.content_type == "images" and not options.search_pipeline
        return replace(request, remarks=tuple(info.list_remarks(query)), match_cut=request.match_cut if has_cut else None)

    def _send(self, body: Mapping[str, Any], pipeline: str | None = None) -> dict[str, Any]:
        params = {"search_pipeline": pipeline} if pipeline else {}
        return self._cluster.search(self._index, body, retry=NO_RETRY, **params)

    def _fetch_target(self, previous: SearchTarget | None) -> SearchTarget:
        target = fetch_search_target(self._cluster, self._index, previous)
        target.info.check_model(self._model_id)
        return previous if previous == target else target

    def _fetch_plugins(self) -> frozenset[str]:
        return list_cluster_plugins(self._cluster)


@contextmanager
def _describe_errors(cluster_info: ClusterInfo) -> Iterator[None]:
    """Describe the errors of a query that its caption or its filters cause."""
    try:
        yield
    except ClusterUnreachable:
        raise
    except ClusterError as error:
        if "maxClauseCount" in error.message:
            raise QueryError(
                f"the caption and the filters need more clauses than the cluster allows ({cluster_info.max_clauses:,})",
                "Shorten them, or send fewer tokens (--weight-mass).",
            ) from None
        _, marker, reason = error.message.partition("Failed to parse query")
        if marker:
            raise QueryError(
                f"the cluster can't parse the filter: {marker}{reason}".splitlines()[0],
                'In a query string, quote values with : / or other operators (uri:"file:///a.jpg"), or write the clause as JSON.',
            ) from None
        raise
