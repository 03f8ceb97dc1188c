"""A cluster behind the asynchronous client of a program: threads wait, the program's event loop sends.

What searches do between two requests is the same code for every client. It runs in threads, as the encoder must anyway, and each
request goes through the program's client with its pool, login, tracing and retries.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Protocol

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.errors import UsageError
from stair_es.retry import CANCEL_EVENT

_POLL_S = 0.5
_UNKNOWN_URL = "http://unknown"
_JSON = "application/json"


class AsyncClient(Protocol):
    """`AsyncOpenSearch` of opensearch-py, or `AsyncElasticsearch` of elasticsearch-py 8 and newer."""

    @property
    def transport(self) -> Any:  # noqa: ANN401  of two libraries
        """The transport of the client."""


def check_async_client(client: AsyncClient) -> None:
    """Raise UsageError if it is neither an `AsyncOpenSearch`, nor an `AsyncElasticsearch` of version 8 or newer."""
    _get_bridge(client)


def open_async_cluster(client: AsyncClient, loop: asyncio.AbstractEventLoop) -> Cluster:
    """Open the cluster of a client that sends on an event loop. Use it in other threads; closing it leaves the client open.

    Raises:
        UsageError: As for `check_async_client`.
    """
    bridge = _get_bridge(client)(client, loop)
    try:
        connection = Connection(url=bridge.describe_nodes())
    except UsageError:  # it is for messages only
        connection = Connection(url=_UNKNOWN_URL)
    return Cluster(connection, OpenSearch(connection.nodes, transport_class=lambda *_, **__: bridge))  # type: ignore[arg-type]


class _OpenSearchBridge:
    """The transport of a synchronous client, which hands each request to an asynchronous one."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ANN401  see `AsyncClient`
        self._client, self._loop = client, loop

    def perform_request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        body: Any = None,  # noqa: ANN401  as the client serializes it
    ) -> Any:  # noqa: ANN401
        """Send a request and wait for the response, unless the work of this thread is cancelled or the loop has ended."""
        cancelled, future = CANCEL_EVENT.get(), None
        while self._loop.is_running() and not (cancelled is not None and cancelled.is_set()):
            if future is None:
                sending = self._send(method, url, dict(headers or {}), dict(params or {}), body)
                future = asyncio.run_coroutine_threadsafe(sending, self._loop)
            if concurrent.futures.wait([future], _POLL_S).done:
                if future.cancelled():  # by another part of the program
                    break
                return future.result()
        if future is not None:
            future.cancel()
        raise exceptions.ConnectionError("N/A", "the search was cancelled, or its event loop has ended", None)

    def close(self) -> None:
        """Leave the client open: it belongs to the program."""

    def describe_nodes(self) -> str:
        """Return the URLs of the nodes, separated by commas."""
        return ",".join(map(_format_host, self._client.transport.hosts))

    async def _send(self, method: str, url: str, headers: dict[str, str], params: dict[str, Any], body: Any) -> Any:  # noqa: ANN401
        return await self._client.transport.perform_request(method, url, headers=headers, params=params, body=body)


class _ElasticsearchBridge(_OpenSearchBridge):
    """The same for elasticsearch-py, whose errors become those of opensearch-py."""

    def describe_nodes(self) -> str:
        """Return the URLs of the nodes, separated by commas."""
        return ",".join(node.base_url for node in self._client.transport.node_pool.all())

    async def _send(self, method: str, url: str, headers: dict[str, str], params: dict[str, Any], body: Any) -> Any:  # noqa: ANN401
        ignored: Collection[int] | int = params.pop("ignore", ())
        statuses = [ignored] if isinstance(ignored, int) else list(ignored)
        client = self._client.options(ignore_status=statuses) if statuses else self._client
        if timeout_s := params.pop("request_timeout", None):
            client = client.options(request_timeout=timeout_s)
        if isinstance(body, bytes):
            body = body.decode()
        content = {"accept": _JSON, **({"content-type": _JSON} if body is not None else {})}
        library, transport = import_module("elasticsearch"), import_module("elastic_transport")
        try:
            response = await client.perform_request(method, url, params=params, headers={**content, **headers}, body=body)
        except library.ApiError as error:
            kind = exceptions.HTTP_EXCEPTIONS.get(error.status_code, exceptions.TransportError)
            raise kind(error.status_code, error.message, error.body) from None
        except transport.ConnectionTimeout as error:
            raise exceptions.ConnectionTimeout("TIMEOUT", str(error), error) from None
        except transport.TransportError as error:
            raise exceptions.ConnectionError("N/A", str(error), error) from None
        return bool(response) if method == "HEAD" else response.body


def _get_bridge(client: object) -> type[_OpenSearchBridge]:
    """Get the bridge for a client, or for a subclass of one."""
    libraries = {each.__module__.partition(".")[0] for each in type(client).__mro__}
    if inspect.iscoroutinefunction(getattr(client, "close", None)):
        if "opensearchpy" in libraries:
            return _OpenSearchBridge
        if "elasticsearch" in libraries and hasattr(client, "options"):  # which version 7 lacks
            return _ElasticsearchBridge
    raise UsageError(
        f"can't search with a {type(client).__name__}",
        "Pass an AsyncOpenSearch, or an AsyncElasticsearch of version 8 or newer.",
        code="unsupported-client",
    )


def _format_host(host: Mapping[str, Any]) -> str:
    scheme = "https" if host.get("use_ssl") or host.get("scheme") == "https" else "http"
    name = str(host.get("host", "localhost"))
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{host.get('port', 9200)}{host.get('url_prefix', '')}"
