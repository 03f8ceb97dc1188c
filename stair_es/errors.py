"""The exception hierarchy. Every error says what went wrong and where; `remedy` says what to do, `code` which fault it is.

::

    StairError                     exit code 1
    |- UsageError                  exit code 2
    |  |- OptionConflict
    |  |- ConfigError
    |  `- DatasetError
    |- MissingExtra
    |- PluginError
    |- ResourceError
    |- ModelError
    |  |- CheckpointError
    |  |- ModelNotFetched
    |  `- UnknownModel             exit code 2
    |- DeviceLost
    |- DeviceOutOfMemory
    |- NodeError
    |- ReadError
    |  `- RetryLater
    |- DecodeError
    |  `- DecompressionBomb
    |- QueryError
    |- SourceError
    |- IngestError
    `- ClusterError
       |- ClusterUnreachable
       |- NotASearchCluster
       |- AuthenticationFailed
       |- UnsupportedTarget
       |- MissingModule
       |- IndexNotFound
       |- IndexClosed
       `- IndexMismatch

All arguments are kept in `args`, so that errors can be pickled on the way back from a Ray worker.
"""

import re

EXIT_PARTIAL_FAILURE = 3
"""Exit code of a command that completed, but failed for some images, documents or objects. Not an error: it has a report."""


def format_code(name: str) -> str:
    """Return the code of the name of a class: `index-not-found` for `IndexNotFound`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class StairError(Exception):
    """An error to show to the user: `message` says what went wrong and where, `remedy` what to do.

    The wording of both may change. Programs and tests distinguish faults by `code`, such as `index-not-found`; by default it is
    the name of the class.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", code: str = "") -> None:
        super().__init__(message, remedy, code)
        self.message = message
        self.remedy = remedy
        self.code = code or format_code(type(self).__name__)

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class UsageError(StairError):
    """Invalid arguments of a command or function."""

    exit_code = 2


class OptionConflict(UsageError):
    """Options or settings that exclude each other."""


class ConfigError(UsageError):
    """A configuration, of commands or of a training, that can't be read, or has an invalid key or value."""


class DatasetError(UsageError):
    """Images with captions or classes, for training or evaluation, that can't be read as such."""


class MissingExtra(StairError):
    """An optional dependency that is not installed."""


class PluginError(StairError):
    """A plugin that can't be loaded, or doesn't implement its interface."""


class ResourceError(StairError):
    """A mapping, pipeline or packaged file that is missing or malformed."""


class ModelError(StairError):
    """A model that is unknown, incomplete or can't be loaded."""


class CheckpointError(ModelError):
    """A checkpoint with files that are missing, damaged or don't belong together, or with an impossible configuration."""


class UnknownModel(ModelError):
    """An unknown model name."""

    exit_code = 2


class ModelNotFetched(ModelError):
    """A model that isn't on this machine, where downloading it was not allowed."""


class DeviceLost(StairError):
    """A GPU that failed under this process: every further call fails, too, so the process has to end."""


class DeviceOutOfMemory(StairError):
    """A GPU with too little free memory for a single image or text. Larger batches are divided before."""


class NodeError(StairError):
    """An embedded node that can't be installed, started or stopped."""


class ReadError(StairError):
    """An image whose bytes can't be read."""


class RetryLater(ReadError):
    """An image whose host asks to wait before the next request."""

    def __init__(self, message: str, remedy: str = "", code: str = "", host: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, remedy, code)
        self.args = (message, remedy, code, host, wait_s)
        self.host = host
        """The host that asks to wait; after a redirect not that of the original URL."""
        self.wait_s = wait_s


class DecodeError(StairError):
    """Bytes that can't be decoded as an image."""


class DecompressionBomb(DecodeError):
    """Bytes of an image that would take too much memory once decoded."""


class QueryError(StairError):
    """A query that can't be run, for example one without a single known token."""


class SourceError(StairError):
    """A source that can't be listed completely."""


class IngestError(StairError):
    """An ingest run that failed as a whole."""


class ClusterError(StairError):
    """A request that the cluster rejected or failed."""

    status: int | None = None
    """HTTP status of the response, if there was one."""


class ClusterUnreachable(ClusterError):
    """A URL where no search cluster responds."""


class NotASearchCluster(ClusterError):
    """A server that is neither OpenSearch nor Elasticsearch."""


class AuthenticationFailed(ClusterError):
    """A response with HTTP status 401 or 403."""


class UnsupportedTarget(ClusterError):
    """A search cluster that is too old for `rank_feature` with `linear`, or lacks a requested feature."""


class MissingModule(ClusterError):
    """A cluster without the module that provides a field type or a query."""


class IndexNotFound(ClusterError):
    """An index that doesn't exist, or no longer exists."""


class IndexClosed(ClusterError):
    """A closed index: it can't be searched or written before it is opened."""


class IndexMismatch(ClusterError):
    """An existing index that was not made by stair-es, or has another mapping."""
