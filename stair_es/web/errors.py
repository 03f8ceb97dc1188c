"""HTTP error responses: a status, a code, a message and a remedy, without internal details. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import Response

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import describe_rejection, get_rejection_reason, is_clause_limit_error
from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    DecodeError,
    IndexClosed,
    IndexMismatch,
    IndexNotFound,
    MissingExtra,
    MissingModule,
    ModelError,
    PluginError,
    QueryError,
    StairError,
    format_code,
)
from stair_es.web.search.serializers import encode_json

_HIDDEN = (AuthenticationFailed, ClusterUnreachable, IndexNotFound, MissingExtra, ModelError, PluginError)
"""Errors whose details are for the administrator."""
_RETRY_AFTER_S = 2
_RETRY_STATUSES = (429, 503)
_ERROR_TYPES = {
    400: "Validation",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}
"""Status -> `error_type`, as text-embeddings-inference has them; others are `Backend`."""


@dataclass(frozen=True)
class ErrorResponse:
    """An HTTP error response."""

    status: int
    error: str
    remedy: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error_type: str = ""
    """The kind of error, as text-embeddings-inference has them; by default that of most errors with the status."""
    code: str = ""
    """The fault, see `StairError`; by default the kind of error."""

    def build_response(self) -> Response:
        """Build the response, with `Retry-After` if the request is worth repeating."""
        retry = {"retry-after": str(_RETRY_AFTER_S)} if self.status in _RETRY_STATUSES else {}
        body, headers = encode_json(self.to_json()), {**retry, **self.headers}
        return Response(body, status_code=self.status, headers=headers, media_type="application/json")

    def to_json(self) -> dict[str, str]:
        """Return the body."""
        error_type = self.error_type or _ERROR_TYPES.get(self.status, "Backend")
        return {
            "error": self.error,
            "error_type": error_type,
            "code": self.code or format_code(error_type),
            "remedy": self.remedy,
        }


class RequestRejected(Exception):
    """Ends a request with an error response."""

    def __init__(self, status: int, error: str, remedy: str = "", error_type: str = "", code: str = "") -> None:
        super().__init__(status, error, remedy)
        self.response = ErrorResponse(status, error, remedy, error_type=error_type, code=code)


def build_not_found(id_: str) -> RequestRejected:
    """Build the rejection for an unknown image."""
    message = f"there is no image {id_[:200]!r} in this index"
    return RequestRejected(404, message, "It may have been removed.", code="no-such-image")


def build_error_response(error: StairError, connection: Connection | None) -> ErrorResponse:
    """Build the response for an error, without the address, credentials or paths of the cluster that the server has, if any."""
    status = _get_status(error)
    message, remedy = _describe_error(error, status)
    if connection is not None:
        for node in connection.nodes:
            message, remedy = message.replace(node, "the cluster"), remedy.replace(node, "the cluster")
        message, remedy = connection.redact(message), connection.redact(remedy)
    return ErrorResponse(status, message[:1000], remedy[:1000], code=_choose_code(error, status))


def _choose_code(error: StairError, status: int) -> str:
    """Choose the code: that of the class where `_describe_error` hides what happened."""
    if isinstance(error, _HIDDEN):
        return format_code(type(error).__name__)
    return "query-rejected" if isinstance(error, ClusterError) and status == 400 else error.code


def get_error_type(error: Exception) -> str:
    """Return the `error_type` of the response to an error."""
    if isinstance(error, RequestRejected):
        return error.response.to_json()["error_type"]
    return _ERROR_TYPES.get(_get_status(error) if isinstance(error, StairError) else 500, "Backend")


def _get_status(error: StairError) -> int:
    if isinstance(error, QueryError):
        return 400
    if isinstance(error, DecodeError):
        return 422
    if isinstance(error, ClusterUnreachable | IndexNotFound | IndexMismatch | ModelError | MissingExtra | PluginError):
        return 503
    if isinstance(error, MissingModule | IndexClosed):
        return 502
    if isinstance(error, ClusterError):
        if is_clause_limit_error(error):
            return 400
        return {400: 400, 429: 503, 502: 503, 503: 503, 504: 503}.get(error.status or 0, 502)
    return 500


def _describe_error(error: StairError, status: int) -> tuple[str, str]:
    if isinstance(error, ClusterUnreachable):
        return "the search cluster doesn't answer", "Try again in a moment."
    if isinstance(error, AuthenticationFailed):
        return "the search cluster rejects the credentials of this server", "Contact the administrator."
    if isinstance(error, IndexNotFound):
        return "the index doesn't exist", "Contact the administrator."
    if isinstance(error, ModelError | MissingExtra | PluginError):
        return "the model can't be loaded here", "Contact the administrator: the log has details."
    if isinstance(error, ClusterError) and not isinstance(error, IndexMismatch):
        return _describe_cluster_error(error, status)
    return error.message, error.remedy


def _describe_cluster_error(error: ClusterError, status: int) -> tuple[str, str]:
    if status == 400:
        return describe_rejection(error)
    reason = get_rejection_reason(error)
    if status == 502 and reason:
        return f"the search cluster can't search this index: {reason}", "Contact the administrator."
    return f"the search cluster failed: {error.message}", error.remedy
