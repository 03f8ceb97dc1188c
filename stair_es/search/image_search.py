"""`ImageSearch`: search an index with the model that wrote it."""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TypeAlias

from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import QueryError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.taught_encoder import teach_encoder
from stair_es.search.diagnose import RankExplanation, explain_rank
from stair_es.search.dsl.pagination import Cursor
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.index_encoder import load_index_encoder
from stair_es.search.options import SearchOptions
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import build_search_query
from stair_es.search.results import SearchResult
from stair_es.search.searcher import Searcher
from stair_es.sources.base import ReadLimits
from stair_es.types import SparseVector

QueryLike: TypeAlias = "str | Path | QueryInputs | SearchQuery | SparseVector"
"""A query string, an image file, a combination as `QueryInputs` (image URLs as well), a built query, or a vector."""


class ImageSearch:
    """Search client for an index and the model that wrote it. Close it, or use it in a `with` statement.

    Connects and loads the model lazily, at the first search; several threads may search. For your own vectors, use `Searcher`.
    """

    def __init__(
        self,
        index: str = DEFAULT_INDEX,
        *,
        url: str | None = None,
        connection: Connection | None = None,
        model: ModelSpec | None = None,
        read_limits: ReadLimits | None = None,
    ) -> None:
        """Configure the client.

        Args:
            index: An alias or index.
            url: The URL of the cluster; by default `STAIR_ES_URL`, or the embedded node if it runs. Credentials and certificates
                come from the environment, as for the command line.
            connection: A complete connection, instead of `url`.
            model: The model; by default the one that the index names.
            read_limits: Limits for query images, and the addresses that their URLs may lead to.

        Raises:
            UsageError: If there is neither a URL nor a connection nor a running node, or if settings contradict each other.
        """
        self._index = index
        self._connection = connection or Connection.from_env(url)
        self._model = model
        self._read_limits = read_limits
        self._lock = RLock()
        self._encoder: Encoder | None = None
        self._searcher: Searcher | None = None

    def __enter__(self) -> ImageSearch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        if self._searcher is not None:
            self._searcher.close()

    @property
    def encoder(self) -> Encoder:
        """The loaded model.

        Raises:
            QueryError: If the index doesn't exist.
            IndexMismatch: If the index was not written by stair-es.
            ModelNotFetched: If its model is not on this machine; pass it as `model` to fetch it.
            ModelError: If its model can't be loaded.
        """
        with self._lock:
            if self._encoder is None and self._model is not None:
                self._encoder = registry.load_encoder(self._model)
            elif self._encoder is None:
                self._encoder = load_index_encoder(self._connection, self._index)
            return self._encoder

    @property
    def searcher(self) -> Searcher:
        """The searcher of the index."""
        with self._lock:
            if self._searcher is None:
                self._searcher = Searcher(self._connection, self._index, self.encoder.model_id)
            return self._searcher

    def build_query(self, query: QueryLike) -> SearchQuery:
        """Build the query, to inspect it, change it with `dataclasses.replace`, or send it.

        Raises:
            QueryError: If the query is empty, the model knows none of its tokens, or `query` has an unsupported type.
            DecodeError: If an image can't be read.
        """
        if isinstance(query, SearchQuery):
            return query
        if isinstance(query, SparseVector):
            return SearchQuery(vector=query)
        if isinstance(query, Path):
            query = QueryInputs(images=[query])
        if isinstance(query, str):
            query = QueryInputs(query_string=query)
        if not isinstance(query, QueryInputs):
            raise QueryError(
                f"can't search for a {type(query).__name__}",
                "Pass words, a Path, QueryInputs, a SearchQuery or a SparseVector.",
                code="unsupported-query",
            )
        fields = self.searcher.list_search_fields(query.price_field)
        encoder = teach_encoder(self.encoder, self.searcher.info.taught_words)
        return build_search_query(encoder, query, self._read_limits, fields=fields)

    def search(
        self, query: QueryLike, k: int = 10, *, after: Cursor | None = None, options: SearchOptions | None = None
    ) -> SearchResult:
        """Search for the `k` best documents; `after` is `SearchResult.after` of the previous page.

        Raises:
            StairError: As for `build_query` and `Searcher.search`.
        """
        return self.searcher.search(self.build_query(query), k, after=after, options=options)

    def explain(self, document: str, query: QueryLike, k: int = 10, *, options: SearchOptions | None = None) -> RankExplanation:
        """Explain why the document with an id or URI is among the `k` best hits or not.

        Raises:
            QueryError: If there is no such document, or as for `search`.
        """
        return explain_rank(self.searcher, self.build_query(query), document, k=k, options=options)
