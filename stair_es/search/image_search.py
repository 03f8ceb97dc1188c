"""`ImageSearch` and `AsyncImageSearch`: search an index with the model that wrote it, in threads or on an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Event, RLock, Semaphore
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from stair_es.cluster.client.async_client import AsyncClient, check_async_client, open_async_cluster
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import OptionConflict, QueryError, UsageError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.taught_encoder import teach_encoder
from stair_es.retry import CANCEL_EVENT, raise_if_cancelled
from stair_es.search.diagnose import RankExplanation, explain_rank
from stair_es.search.dsl.pagination import Cursor
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.index_encoder import load_index_encoder
from stair_es.search.options import SearchOptions
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import build_search_query, encode_any_text
from stair_es.search.results import SearchResult
from stair_es.search.searcher import Searcher
from stair_es.sources.base import ReadLimits
from stair_es.types import SparseVector

QueryLike: TypeAlias = "str | Path | bytes | QueryInputs | SearchQuery | SparseVector"
"""A query string, an image file or its bytes, a combination as `QueryInputs` (image URLs as well), a built query, or a vector."""

_T = TypeVar("_T")


class ImageSearch:
    """Search client for an index and the model that wrote it. Close it, or use it in a `with` statement.

    Connects and loads the model lazily, at the first search; several threads may search. For your own vectors, use `Searcher`.
    """

    def __init__(
        self,
        index: str = DEFAULT_INDEX,
        *,
        url: str | None = None,
        connection: Connection | Cluster | None = None,
        model: ModelSpec | None = None,
        read_limits: ReadLimits | None = None,
    ) -> None:
        """Configure the client.

        Args:
            index: An alias or index.
            url: The URL of the cluster; by default `STAIR_ES_URL`, or the embedded node if it runs. Credentials and certificates
                come from the environment, as for the command line.
            connection: A complete connection, or an open cluster, instead of `url`.
            model: The model; by default the one that the index names.
            read_limits: Limits for query images, and the addresses that their URLs may lead to.

        Raises:
            UsageError: If there is neither a URL nor a connection nor a running node, or if settings contradict each other.
        """
        self._index = index
        self._owns_cluster = not isinstance(connection, Cluster)
        self._cluster = connection if isinstance(connection, Cluster) else Cluster(connection or Connection.from_env(url))
        self._encode_text = encode_any_text
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
        """Close the client's connections. An open cluster that it was given stays open."""
        if self._owns_cluster:
            self._cluster.close()

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
                self._encoder = load_index_encoder(self._cluster, self._index)
            return self._encoder

    @property
    def searcher(self) -> Searcher:
        """The searcher of the index."""
        with self._lock:
            if self._searcher is None:
                self._searcher = Searcher(self._cluster, self._index, self.encoder.model_id)
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
        if isinstance(query, Path | bytes):
            query = QueryInputs(images=[query])
        if isinstance(query, str):
            query = QueryInputs(query_string=query)
        if not isinstance(query, QueryInputs):
            raise QueryError(
                f"can't search for a {type(query).__name__}",
                "Pass words, a Path, bytes, QueryInputs, a SearchQuery or a SparseVector.",
                code="unsupported-query",
            )
        fields = self.searcher.list_search_fields(query.price_field)
        encoder = teach_encoder(self.encoder, self.searcher.info.taught_words)
        return build_search_query(encoder, query, self._read_limits, fields=fields, encode_text=self._encode_text)

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


class AsyncImageSearch:
    """Search client for an index and the model that wrote it, with coroutines. Close it, or use it in an `async with` statement.

    Requests go through the program's own asynchronous client, if it is given: one pool, login and tracing for the whole program.
    A search takes a thread, as its text is encoded there. Searches beyond `max_concurrency` wait, and a cancelled one ends before
    its next request.
    """

    def __init__(
        self,
        index: str = DEFAULT_INDEX,
        *,
        client: AsyncClient | None = None,
        url: str | None = None,
        connection: Connection | None = None,
        model: ModelSpec | None = None,
        read_limits: ReadLimits | None = None,
        max_concurrency: int = 32,
    ) -> None:
        """Configure the client.

        Args:
            index: An alias or index.
            client: An `AsyncOpenSearch`, or an `AsyncElasticsearch` of version 8 or newer; it stays open.
            url: The URL of the cluster, instead of `client`, as for `ImageSearch`.
            connection: A complete connection, instead of `client` or `url`.
            model: The model; by default the one that the index names.
            read_limits: Limits for query images, and the addresses that their URLs may lead to.
            max_concurrency: Searches at the same time.

        Raises:
            UsageError: As for `ImageSearch`, if `max_concurrency` is below 1, or if it is another kind of client.
            OptionConflict: If both `client` and an address are given.
        """
        if client is not None and (url or connection):
            raise OptionConflict("a client and an address are given", "Pass the client alone: it knows its nodes.")
        if client is not None:
            check_async_client(client)
        if max_concurrency < 1:
            raise UsageError(f"max_concurrency must be at least 1, got {max_concurrency}", code="invalid-max-concurrency")
        self._client = client
        self._target = None if client is not None else connection or Connection.from_env(url)
        self._options = {"model": model, "read_limits": read_limits}
        self._index = index
        self._threads = ThreadPoolExecutor(max_concurrency, thread_name_prefix="stair-es-search")
        self._encoding = Semaphore(os.cpu_count() or 1)  # more at once only takes the time of the others
        self._search: ImageSearch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> AsyncImageSearch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the threads, and the connections that aren't those of the program's client. Searches end first."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        if self._search is not None:
            self._search.close()

    async def load_encoder(self) -> Encoder:
        """Load the model and return it: at the start of a program, so that no search waits for it.

        Raises:
            StairError: As for `ImageSearch.encoder`.
        """
        return await self._run(lambda search: search.encoder)

    async def build_query(self, query: QueryLike) -> SearchQuery:
        """Build the query; see `ImageSearch.build_query`.

        Raises:
            QueryError: If the query is empty, the model knows none of its tokens, or `query` has an unsupported type.
            DecodeError: If an image can't be read.
        """
        return await self._run(lambda search: search.build_query(query))

    async def search(
        self, query: QueryLike, k: int = 10, *, after: Cursor | None = None, options: SearchOptions | None = None
    ) -> SearchResult:
        """Search for the `k` best documents; `after` is `SearchResult.after` of the previous page.

        Raises:
            StairError: As for `ImageSearch.search`.
        """
        return await self._run(lambda search: search.search(query, k, after=after, options=options))

    async def explain(
        self, document: str, query: QueryLike, k: int = 10, *, options: SearchOptions | None = None
    ) -> RankExplanation:
        """Explain why the document with an id or URI is among the `k` best hits or not.

        Raises:
            QueryError: If there is no such document, or as for `search`.
        """
        return await self._run(lambda search: search.explain(document, query, k, options=options))

    async def _run(self, work: Callable[[ImageSearch], _T]) -> _T:
        loop, cancelled = asyncio.get_running_loop(), Event()
        search = self._open_search(loop)
        context = copy_context()
        context.run(CANCEL_EVENT.set, cancelled)
        try:
            return await loop.run_in_executor(self._threads, partial(context.run, work, search))
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def _encode_in_turn(self, encoder: Encoder, text: str) -> SparseVector:
        with self._encoding:
            raise_if_cancelled()
            return encode_any_text(encoder, text)

    def _open_search(self, loop: asyncio.AbstractEventLoop) -> ImageSearch:
        """Open the search at the first use: the client belongs to the loop that runs then."""
        if self._search is None:
            target: Connection | Cluster | None = self._target
            if self._client is not None:
                target = open_async_cluster(self._client, loop)
            options: dict[str, Any] = self._options
            self._search, self._loop = ImageSearch(self._index, connection=target, **options), loop
            self._search._encode_text = self._encode_in_turn
        if self._client is not None and loop is not self._loop:
            raise UsageError(
                "this AsyncImageSearch belongs to another event loop",
                "Create one in each loop, with a client of its own.",
                code="other-event-loop",
            )
        return self._search
