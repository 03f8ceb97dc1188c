"""The error tree. Every leaf says what was wrong and where; `remedy` says what to do.

::

    StairError                     exit code 1
    |- UsageError                  exit code 2
    |- MissingExtra
    |- PluginError
    |- ResourceError
    |- ModelError
    |  |- ModelNotFetched
    |  `- UnknownModel             exit code 2
    |- NodeError
    |- ReadError
    |  `- TryLater
    |- DecodeError
    |- QueryError
    |- SourceError
    |- IngestError
    `- ClusterError
       |- ClusterUnreachable
       |- NotASearchCluster
       |- AuthenticationFailed
       |- UnsupportedTarget
       |- MissingModule
       |- IndexAway
       |- IndexClosed
       `- IndexMismatch

All of them take positional arguments only, so that they survive pickling on the way back from a Ray worker.
"""

SOME_DEAD = 3
"""Exit code of a run that went through, but left some images dead. No error: it has a report."""


class StairError(Exception):
    """Something that a user can be told about: `message` says what and where, `remedy` what to do."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class UsageError(StairError):
    """The command was called wrongly."""

    exit_code = 2


class MissingExtra(StairError):
    """An optional dependency is not installed."""


class PluginError(StairError):
    """A plugin that can't be loaded, or doesn't do what its kind must."""


class ResourceError(StairError):
    """A mapping, pipeline or packaged file is missing or malformed."""


class ModelError(StairError):
    """A model is unknown, incomplete or can't be loaded."""


class UnknownModel(ModelError):
    """No model has this name."""

    exit_code = 2


class ModelNotFetched(ModelError):
    """A model that isn't on this machine, and that nobody asked to fetch."""


class NodeError(StairError):
    """The embedded node can't be provisioned, started or stopped."""


class ReadError(StairError):
    """The bytes of one image that can't be had."""


class TryLater(ReadError):
    """The bytes of one image that a host gives later: it asks to wait."""

    def __init__(self, message: str, remedy: str = "", host: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, remedy)
        self.args = (message, remedy, host, wait_s)
        self.host = host
        """The host that asks: not that of the URL where a redirect led to another one."""
        self.wait_s = wait_s


class DecodeError(StairError):
    """Bytes that can't become pixels."""


class QueryError(StairError):
    """A query that can't be asked, for example one without a single known word."""


class SourceError(StairError):
    """A source that can't be listed to its end."""


class IngestError(StairError):
    """An ingest run that failed as a whole."""


class ClusterError(StairError):
    """The cluster refused or failed a request."""

    status: int | None = None
    """HTTP status of its answer, where it gave one."""


class ClusterUnreachable(ClusterError):
    """Nothing answers at the URL."""


class NotASearchCluster(ClusterError):
    """Something answers, but it is neither OpenSearch nor Elasticsearch."""


class AuthenticationFailed(ClusterError):
    """The cluster answered 401 or 403."""


class UnsupportedTarget(ClusterError):
    """A search cluster that is too old for `rank_feature` with `linear`."""


class MissingModule(ClusterError):
    """The cluster lacks the module that brings a field type or a query."""


class IndexAway(ClusterError):
    """The index isn't there (any more)."""


class IndexClosed(ClusterError):
    """The index can't be searched or written until somebody opens it."""


class IndexMismatch(ClusterError):
    """An index exists that is not one of ours, or has another mapping."""
