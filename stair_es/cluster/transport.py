"""One node's HTTP: the client's own, but what failed says where, and keeps the header that says when to try again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from opensearchpy import Urllib3HttpConnection, exceptions

from stair_es.cluster import tls

_ANY_STATUS = range(100, 1000)


@dataclass
class Asked:
    """One request to one node, for who watches them."""

    method: str
    path: str
    """Without parameters."""
    node: str
    """Scheme, host and port, and the path that the cluster's URL has."""
    headers: dict[str, str] = field(default_factory=dict)
    """What else is to be sent: empty, until the watcher adds something."""
    status: int | None = None
    """Of the answer, once there is one."""
    elasticsearch: bool = False
    """Whether the answer says that it comes from Elasticsearch; that older than 7.14 doesn't."""


Watch: TypeAlias = Callable[[Asked], AbstractContextManager[object]]
_watch: Watch = nullcontext


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Until the end of the `with`, every request of this process is made within `watch(request)`, in the thread that asks.

    One `watched` may lie in another: a request is made within both.
    """
    global _watch  # clients are made in many places: it is the process that is watched
    before = _watch

    @contextmanager
    def both(asked: Asked) -> Iterator[None]:
        with before(asked), watch(asked):
            yield

    _watch = both
    try:
        yield
    finally:
        _watch = before


class NodeConnection(Urllib3HttpConnection):
    """Errors carry `node`, `request` (method and path), `retry_after` (the header, or None) and `location` (of a redirect).

    Redirects aren't followed.
    """

    def __init__(self, *, ca_fingerprint: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401  the client's own
        self._wanted = ca_fingerprint
        self._tls = kwargs.get("ssl_context")
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
        """As the client has it.

        Raises:
            TransportError: Or its leaf, with the attributes named above.
        """
        asked = Asked(method, url, self.host + self.url_prefix)
        try:
            self._pin()
            with _watch(asked):
                more = {**(headers or {}), **asked.headers}
                kept = _keep_errors(params)
                status, answered, raw = super().perform_request(method, url, kept, body, timeout, _ANY_STATUS, more)
                asked.status, asked.elasticsearch = status, "x-elastic-product" in answered
        except exceptions.TransportError as error:
            _note(error, self.host, asked, {})
            raise
        if not 200 <= status < 300 and status not in ignore:
            lowered = {name.lower(): value for name, value in answered.items()}
            try:
                self._raise_error(status, raw, lowered.get("content-type"))
            except exceptions.TransportError as error:
                _note(error, self.host, asked, lowered)
                raise
        return status, answered, raw

    def log_request_fail(self, *args: object, **kwargs: object) -> None:
        """Not on the log with a stack trace: whoever called gets the error, and says it."""

    def _pin(self) -> None:
        if self._wanted is None or not self.use_ssl or self._tls is None:
            return
        with self._pinning:
            if self._wanted is None:
                return
            try:
                own = tls.pinned(self._tls, self._wanted, self.hostname, self.port, float(self.timeout))
            except TimeoutError as error:
                raise exceptions.ConnectionTimeout("TIMEOUT", str(error), error) from error
            except OSError as error:
                raise exceptions.ConnectionError("N/A", str(error), error) from error
            if own and self.pool is not None:
                self.pool.assert_hostname = False  # it is this very certificate, whatever the server is called
            self._wanted = None


def _keep_errors(params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the parameters, with a filter of answers that lets the top-level `error` through.

    A filter that only leaves out (`-took`) lets it through as it is.
    """
    if not params or "filter_path" not in params:
        return params
    given = params["filter_path"]  # bytes, where the client got it as an argument of its own
    paths = given.decode() if isinstance(given, bytes) else str(given)
    if all(path.startswith("-") for path in paths.split(",")):
        return params
    return {**params, "filter_path": f"{paths},error"}


def _note(error: exceptions.TransportError, node: str, asked: Asked, headers: Mapping[str, str]) -> None:
    error.node = node  # type: ignore[attr-defined]
    error.request = f"{asked.method} {asked.path}"  # type: ignore[attr-defined]
    error.retry_after = headers.get("retry-after")  # type: ignore[attr-defined]
    error.location = headers.get("location")  # type: ignore[attr-defined]
