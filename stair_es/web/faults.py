"""What went wrong, as an answer: a status, a message and a remedy, and nothing that a visitor has no business to know. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    DecodeError,
    IndexAway,
    IndexClosed,
    IndexMismatch,
    MissingExtra,
    MissingModule,
    ModelError,
    PluginError,
    QueryError,
    StairError,
)

if TYPE_CHECKING:
    from stair_es.cluster.connect import Connection

AGAIN_S = 2
"""When to come again."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An answer that is none."""

    status: int
    error: str
    remedy: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, str]:
        """The body."""
        return {"error": self.error, "remedy": self.remedy}


class Refused(Exception):
    """Ends a request with a fault."""

    def __init__(self, status: int, error: str, remedy: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, error, remedy)
        self.fault = Fault(status=status, error=error, remedy=remedy, headers=headers or {})


def fault_of(error: StairError, connection: Connection) -> Fault:
    """The answer for an error of ours. Where the cluster is, how we log in and what lies where is the operator's business."""
    status = _status(error)
    headers = {"retry-after": str(AGAIN_S)} if status == 503 else {}
    said, remedy = _told(error, status)
    for node in connection.nodes:
        said, remedy = said.replace(node, "the cluster"), remedy.replace(node, "the cluster")
    return Fault(status=status, error=connection.redact(said)[:1000], remedy=connection.redact(remedy)[:1000], headers=headers)


def _status(error: StairError) -> int:
    if isinstance(error, QueryError):
        return 400
    if isinstance(error, DecodeError):
        return 422
    if isinstance(error, ClusterUnreachable | IndexAway | IndexMismatch | ModelError | MissingExtra | PluginError):
        return 503
    if isinstance(error, MissingModule | IndexClosed):
        return 502
    if isinstance(error, ClusterError):
        return {400: 400, 429: 503, 502: 503, 503: 503, 504: 503}.get(error.status or 0, 502)
    return 500


def _told(error: StairError, status: int) -> tuple[str, str]:
    """Message and remedy for a visitor."""
    if isinstance(error, ClusterUnreachable):
        return "the search cluster doesn't answer", "Try again in a moment."
    if isinstance(error, AuthenticationFailed):
        return "the search cluster refuses the login of this server", "Ask whoever runs it."
    if isinstance(error, IndexAway):
        return "the index isn't there", "Ask whoever runs this server."
    if isinstance(error, ModelError | MissingExtra | PluginError):
        return "the model of the index can't be loaded here", "Ask whoever runs this server: its log says more."
    if isinstance(error, ClusterError) and not isinstance(error, IndexMismatch):
        return _of_cluster(error, status)
    return error.message, error.remedy


def _of_cluster(error: ClusterError, status: int) -> tuple[str, str]:
    if status == 400 and "maxClauseCount" in error.message:
        return "the question has more words than the cluster takes", "Ask with fewer, or with a shorter filter."
    said = error.message.partition(" answered 400: ")[2]
    if status == 502 and said:
        return f"the search cluster can't search this index: {said}", "Ask whoever runs this server."
    if status == 400:
        said = said or "no reason given"
        return (
            f"the search cluster can't read the question: {said}",
            'In the filter, quote what holds : / or other signs (uri:"file:///a.jpg").',
        )
    return f"the search cluster fails: {error.message}", error.remedy
