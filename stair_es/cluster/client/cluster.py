"""A search cluster to send requests to: its connection, a client, and retries."""

from __future__ import annotations

import atexit
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.client.products import AWS_PRODUCTS, RecentWrites
from stair_es.cluster.client.retry import retry_call
from stair_es.retry import RetryPolicy, sleep_unless_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from stair_es.cluster.client.connection import Connection
    from stair_es.cluster.client.opensearch import OpenSearch
    from stair_es.cluster.client.products import ManagedProduct

_T = TypeVar("_T")


class Cluster:
    """A cluster to send requests to; a context manager that closes its client.

    It belongs to one process: pickled, it is its connection, and becomes the shared cluster of the process that unpickles it.
    """

    def __init__(
        self, connection: Connection, client: OpenSearch | None = None, *, sleep: Callable[[float], None] = sleep_unless_cancelled
    ) -> None:
        """Use the client, or one of the connection, which is opened when it is first used."""
        self.connection = connection
        self._client = client
        self._lock = threading.Lock()
        self._sleep = sleep
        self.product: ManagedProduct | None = AWS_PRODUCTS.get(connection.security.aws_service)
        """The managed product; None until `capabilities.get_product` has asked for it."""
        self.recent_writes = RecentWrites()

    @property
    def client(self) -> OpenSearch:
        """Return the client."""
        with self._lock:
            if self._client is None:
                self._client = self.connection.client()
            return self._client

    def __reduce__(self) -> tuple[Callable[[Connection], Cluster], tuple[Connection]]:
        return open_shared_cluster, (self.connection,)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def call(self, function: Callable[..., _T], *args: Any, retry: RetryPolicy | None = None, **kwargs: Any) -> _T:  # noqa: ANN401
        """Call a function with retries on temporary errors, and return its result.

        Args:
            function: A method of the client, or a function that sends requests by it; it may be called several times.
            *args: Its arguments.
            retry: Retry policy; None for the default, about a minute.
            **kwargs: Its keyword arguments.

        Raises:
            ClusterError: If the last attempt fails, or the error isn't temporary.
        """
        with translate_errors(self.connection):
            return retry_call(partial(function, *args, **kwargs), self.connection, retry or RetryPolicy(), self._sleep)

    def search(self, index: str, body: Mapping[str, Any], *, retry: RetryPolicy | None = None, **params: str) -> dict[str, Any]:
        """Search all shards of an index; `params` are more parameters of the request, such as `search_pipeline`.

        Raises:
            ClusterError: If the request fails, or shards of the index are unavailable.
        """
        params = {"allow_partial_search_results": "false", **params}
        return self.call(self.client.search, index=index, body=dict(body), params=params, retry=retry)

    def refresh(self, index: str) -> None:
        """Refresh an index, so that everything written is searchable; `index` may be several names, separated by commas.

        OpenSearch Serverless has no such request. There, wait until searches find what this process wrote last.
        """
        if self.product == "opensearch-serverless":
            for name in index.split(","):
                self.recent_writes.wait_until_visible(name, partial(self.search, name), self._sleep)
        else:
            self.call(self.client.indices.refresh, index=index)


@lru_cache(maxsize=4)
def open_shared_cluster(connection: Connection) -> Cluster:
    """Open the cluster that all users of a connection share in this process; it is closed at the exit."""
    cluster = Cluster(connection)
    atexit.register(cluster.close)
    return cluster
