"""HTTP connection to one node: errors carry the node, the request and the `Retry-After` header, and requests can be watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from stair_es.cluster.client import tls
from stair_es.cluster.client.opensearch import Urllib3HttpConnection, exceptions

_ANY_STATUS = range(100, 1000)


@dataclass
class OutgoingRequest:
    """One request to one node, for hooks."""

    method: str
    path: str
    node: str
    """Scheme, host and port, and the path prefix of the cluster's URL."""
    headers: dict[str, str] = field(default_factory=dict)
    """Additional headers to send: empty, until a hook adds some."""
    status: int | None = None
    elasticsearch: bool = False
    """Whether the response identifies Elasticsearch, which versions before 7.14 don't do."""


RequestHook: TypeAlias = Callable[[OutgoingRequest], AbstractContextManager[object]]
"""Returns a context for a request, which is entered and left in the requesting thread."""


class NodeConnection(Urllib3HttpConnection):
    """Connection whose errors have `node`, `request` (method and path), `retry_after` (the header, or None) and `location`.

    `location` is the target of a redirect; redirects aren't followed.
    """

    def __init__(
        self,
        *,
        ca_fingerprint: str | None = None,
        request_hooks: Sequence[RequestHook] = (),
        **kwargs: Any,  # noqa: ANN401  the client's own
    ) -> None:
        self._fingerprint = ca_fingerprint
        self._request_hooks = request_hooks
        self._ssl_context = kwargs.get("ssl_context")
        self._pinning = threading.Lock()
        super().__init__(**kwargs)

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401  status, headers, body
        """Send a request as the client's connection does."""
        request = OutgoingRequest(method, url, self.host + self.url_prefix)
        try:
            self._pin_certificate()
            with ExitStack() as stack:
                for hook in self._request_hooks:
                    stack.enter_context(hook(request))
                headers, params = {**(headers or {}), **request.headers}, _keep_error_field(params)
                status, received, raw = super().perform_request(method, url, params, body, timeout, _ANY_STATUS, headers)
                request.status, request.elasticsearch = status, "x-elastic-product" in received
        except exceptions.TransportError as error:
            _annotate_error(error, self.host, request, {})
            raise
        if not 200 <= status < 300 and status not in ignore:
            lowered = {name.lower(): value for name, value in received.items()}
            try:
                self._raise_error(status, raw, lowered.get("content-type"))
            except exceptions.TransportError as error:
                _annotate_error(error, self.host, request, lowered)
                raise
        return status, received, raw

    def log_request_fail(self, *args: object, **kwargs: object) -> None:
        """Log nothing: the caller gets the error and reports it, without a stack trace."""

    def _pin_certificate(self) -> None:
        if self._fingerprint is None or not self.use_ssl or self._ssl_context is None:
            return
        with self._pinning:
            if self._fingerprint is None:
                return
            host, port, timeout_s = self.hostname, self.port, float(self.timeout)
            try:
                own = tls.trust_pinned_certificate(self._ssl_context, self._fingerprint, host, port, timeout_s)
            except TimeoutError as error:
                raise exceptions.ConnectionTimeout("TIMEOUT", str(error), error) from error
            except OSError as error:
                raise exceptions.ConnectionError("N/A", str(error), error) from error
            if own and self.pool is not None:
                self.pool.assert_hostname = False  # the certificate itself is pinned, so its names don't matter
            self._fingerprint = None


def _keep_error_field(params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the parameters, with the top-level `error` added to a filter of the response.

    A filter with exclusions only (`-took`) includes it already.
    """
    if not params or "filter_path" not in params:
        return params
    filter_path = params["filter_path"]  # bytes, if the client got it as a separate argument
    paths = filter_path.decode() if isinstance(filter_path, bytes) else str(filter_path)
    if all(path.startswith("-") for path in paths.split(",")):
        return params
    return {**params, "filter_path": f"{paths},error"}


def _annotate_error(error: exceptions.TransportError, node: str, request: OutgoingRequest, headers: Mapping[str, str]) -> None:
    error.node = node  # type: ignore[attr-defined]
    error.request = f"{request.method} {request.path}"  # type: ignore[attr-defined]
    error.retry_after = headers.get("retry-after")  # type: ignore[attr-defined]
    error.location = headers.get("location")  # type: ignore[attr-defined]
