"""One node's HTTP: the client's own, but what failed says where, and keeps the header that says when to try again."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

from opensearchpy import Urllib3HttpConnection, exceptions

from stair_es.cluster import tls

_ANY_STATUS = range(100, 1000)


class NodeConnection(Urllib3HttpConnection):
    """Errors carry `retry_after` (the header, or None), `location` (of a redirect, which isn't followed) and `node`."""

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
        try:
            self._pin()
            status, answered, raw = super().perform_request(method, url, params, body, timeout, _ANY_STATUS, headers)
        except exceptions.TransportError as error:
            _note(error, self.host, {})
            raise
        if not 200 <= status < 300 and status not in ignore:
            lowered = {name.lower(): value for name, value in answered.items()}
            try:
                self._raise_error(status, raw, lowered.get("content-type"))
            except exceptions.TransportError as error:
                _note(error, self.host, lowered)
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


def _note(error: exceptions.TransportError, node: str, headers: Mapping[str, str]) -> None:
    error.node = node  # type: ignore[attr-defined]
    error.retry_after = headers.get("retry-after")  # type: ignore[attr-defined]
    error.location = headers.get("location")  # type: ignore[attr-defined]
