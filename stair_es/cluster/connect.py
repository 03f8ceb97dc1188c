"""The connection to a search cluster: how to build a client, and what is at the other end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from opensearchpy import OpenSearch, exceptions

from stair_es.config import MAX_CLAUSES
from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    NotASearchCluster,
    UnsupportedTarget,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_OLDEST = {"opensearch": (1, 1), "elasticsearch": (7, 12)}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the cluster is. Picklable: workers build their own client from it."""

    url: str
    """`http[s]://[user:password@]host[:port][/prefix]`."""
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # .port may raise
        except ValueError:
            usable = False
        if not usable:
            shown = self.url.rpartition("@")[2]
            remedy = "Write it like http://localhost:9200 or https://user:password@host:9200"
            raise UsageError(f"not a cluster URL: {shown!r}", remedy)

    @property
    def safe_url(self) -> str:
        """The URL without credentials: the only form that may be printed, logged or stored."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def client(self) -> OpenSearch:
        """A new client. It speaks plain REST, so it serves OpenSearch and Elasticsearch alike."""
        parts = urlsplit(self.url)
        options: dict[str, Any] = {}
        if parts.username is not None:
            options["http_auth"] = (unquote(parts.username), unquote(parts.password or ""))
        return OpenSearch(
            hosts=[self.safe_url],
            timeout=self.timeout_s,
            http_compress=False,
            max_retries=0,
            **options,
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a cluster can do, probed once."""

    distribution: Literal["opensearch", "elasticsearch"]
    version: tuple[int, ...]
    max_clauses: int
    """How many clauses one query may have (`indices.query.bool.max_clause_count`)."""

    @property
    def label(self) -> str:
        """For people: `OpenSearch 3.8.0`."""
        name = "OpenSearch" if self.distribution == "opensearch" else "Elasticsearch"
        return f"{name} {'.'.join(map(str, self.version))}"


@contextmanager
def translated(connection: Connection, but: Callable[[exceptions.TransportError], bool] = lambda _: False) -> Iterator[None]:
    """Client exceptions, as ours: with the URL, the cause and a remedy; those that `but` names stay as they are.

    Raises:
        ClusterError: Or its leaf for an unreachable cluster, a refused login.
    """
    try:
        yield
    except exceptions.TransportError as error:
        if but(error):
            raise
        raise _ours(error, connection) from error
    except exceptions.SerializationError as error:
        raise NotASearchCluster(f"{connection.safe_url} does not answer in JSON: {error}") from error


def _ours(error: exceptions.TransportError, connection: Connection) -> ClusterError:
    if isinstance(error, exceptions.ConnectionError):
        return ClusterUnreachable(
            f"no search cluster answers at {connection.safe_url}: {getattr(error, 'info', error)}",
            "Check --url / STAIR_ES_URL, or leave both out to use the embedded node.",
        )
    if error.status_code == 401:
        return AuthenticationFailed(
            f"{connection.safe_url} refused the login (HTTP 401)",
            "Put the credentials into STAIR_ES_URL: https://user:password@host:9200",
        )
    if error.status_code == 403:
        return AuthenticationFailed(f"{connection.safe_url} forbids this (HTTP 403): {_reason(error)}")
    return ClusterError(f"{connection.safe_url} answered {error.status_code}: {_reason(error)}")


def probe(client: OpenSearch, connection: Connection) -> Target:
    """What is at the other end.

    Raises:
        ClusterUnreachable: Nothing answers.
        AuthenticationFailed: 401 or 403.
        NotASearchCluster: Something else answers.
        UnsupportedTarget: Too old for `rank_feature` with `linear`.
    """
    hint = "Check --url / STAIR_ES_URL: it must be the HTTP port of OpenSearch or Elasticsearch."
    not_one = NotASearchCluster(f"{connection.safe_url} answers, but is neither OpenSearch nor Elasticsearch", hint)
    try:
        with translated(connection):
            answer = client.info()
    except NotASearchCluster:
        raise not_one from None
    except (AuthenticationFailed, ClusterUnreachable):
        raise
    except ClusterError as error:
        raise NotASearchCluster(f"{error.message}: is this OpenSearch or Elasticsearch?", hint) from error
    version = answer.get("version") if isinstance(answer, dict) else None
    if not isinstance(version, dict) or "number" not in version:
        raise not_one
    distribution: Literal["opensearch", "elasticsearch"] = (
        "opensearch" if version.get("distribution") == "opensearch" else "elasticsearch"
    )
    if distribution == "elasticsearch" and "lucene_version" not in version:
        raise not_one
    number = tuple(int(part) for part in str(version["number"]).partition("-")[0].split(".") if part.isdigit())
    target = Target(distribution=distribution, version=number, max_clauses=_max_clauses(client, connection))
    if number < _OLDEST[distribution]:
        oldest = ".".join(map(str, _OLDEST[distribution]))
        raise UnsupportedTarget(
            f"{connection.safe_url} is {target.label}: rank_feature queries with `linear` need {oldest} or newer"
        )
    return target


def _max_clauses(client: OpenSearch, connection: Connection) -> int:
    """The limit as set for the whole cluster or a node's start; managed clusters may hide it, then the default holds."""
    name = "indices.query.bool.max_clause_count"
    try:
        with translated(connection):
            settings = client.cluster.get_settings(params={"include_defaults": "true", "flat_settings": "true"})
    except ClusterError:
        return MAX_CLAUSES
    layers: list[Mapping[str, Any]] = [settings.get(kind, {}) for kind in ("transient", "persistent", "defaults")]
    return next((int(layer[name]) for layer in layers if name in layer), MAX_CLAUSES)


def _reason(error: exceptions.TransportError) -> str:
    info = error.info
    if isinstance(info, dict) and isinstance(info.get("error"), dict):
        return str(info["error"].get("reason", info["error"]))
    return str(error.error)
