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
    IndexMismatch,
    MissingExtra,
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


class IndexAway(ClusterError):
    """The index isn't there (any more)."""


def fault_of(error: StairError, connection: Connection) -> Fault:
    """The answer for an error of ours."""
    status = _status(error)
    headers = {"retry-after": str(AGAIN_S)} if status == 503 else {}
    if isinstance(error, ClusterError) and not isinstance(error, IndexAway):
        return Fault(status=status, headers=headers, **_of_cluster(error, status, connection))
    return Fault(status=status, error=error.message, remedy=error.remedy, headers=headers)


def _status(error: StairError) -> int:
    if isinstance(error, QueryError):
        return 400
    if isinstance(error, DecodeError):
        return 422
    if isinstance(error, ClusterUnreachable | IndexAway | ModelError | MissingExtra | PluginError | IndexMismatch):
        return 503
    if isinstance(error, ClusterError):
        said = getattr(error.__context__, "status_code", None)
        return {400: 400, 429: 503, 502: 503, 503: 503, 504: 503}.get(said, 502) if isinstance(said, int) else 502
    return 500


def _of_cluster(error: ClusterError, status: int, connection: Connection) -> dict[str, str]:
    """Where the cluster is and how we log in is the operator's business: stderr says it."""
    if isinstance(error, ClusterUnreachable):
        return {"error": "the search cluster doesn't answer", "remedy": "Try again in a moment."}
    if isinstance(error, AuthenticationFailed):
        return {"error": "the search cluster refuses the login of this server", "remedy": "Ask whoever runs it."}
    if status == 400 and "maxClauseCount" in error.message:
        return {"error": "the question has more words than the cluster takes", "remedy": "Ask with fewer, or a shorter filter."}
    if status == 400:
        said = error.message.partition(" answered 400: ")[2] or "no reason given"
        return {
            "error": f"the search cluster can't read the question: {_hidden(said, connection)}",
            "remedy": 'In the filter, quote what holds : / or other signs (uri:"file:///a.jpg").',
        }
    return {"error": f"the search cluster fails: {_hidden(error.message, connection)}", "remedy": error.remedy}


def _hidden(text: str, connection: Connection) -> str:
    for node in connection.nodes:
        text = text.replace(node, "it")
    return connection.redact(text)[:500]
