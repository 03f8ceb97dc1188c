"""Translate exceptions of the client into ours: what went wrong and where, what to do about it, and never a secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.exceptions import ProtocolError

from stair_es.cluster.client import tls
from stair_es.cluster.client.opensearch import exceptions
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable, IndexClosed, MissingModule, NotASearchCluster
from stair_es.retry import BUSY_STATUSES

if TYPE_CHECKING:
    from stair_es.cluster.client.connection import Connection

_MAX_REQUEST_CHARS = 300
_GRANT = "Grant it to the user: docs/howto/secure.md#roles has the roles for search, ingest, policies, templates and the doctor."
_GRANT_ON_AWS = "Allow it in the domain's access policy, or the collection's data access policy."

# How a reason begins, and the error with its remedy. Reasons may repeat user input, but not at their beginning.
_NO_TYPE = r"(Failed to parse mapping.*?: )?(No handler for|The mapper) type \[%s\] declared on field "
_TEMPLATE_REMEDY = (
    "An index template of the cluster makes this name a data stream, or an index for logs or metrics. Choose another --index, or "
    "add an index template for the name with a higher `priority`. Delete an index that already has these settings."
)
_COPIES = re.compile(
    r"expected (?:total copies needs|max cap on auto expand) to be a multiple of total awareness attributes \[(\d+)\]"
)
_NOT_ALLOWED = re.compile(r"Your request: '.*' (payload )?is not allowed\.")
"""How Amazon OpenSearch Service refuses what it doesn't support: with the status of a refused login."""
_COPIES_REMEDY = (
    "The cluster requires a copy of each document in every zone. In the file of --mapping set `number_of_replicas` to the number "
    "of zones minus 1, such as 2, or `auto_expand_replicas` to 0-2; without --mapping stair-es chooses it. Leave out "
    "--no-replicas-while-building."
)
_KNOWN_REASONS: tuple[tuple[str, type[ClusterError], str], ...] = (
    (r"cannot create index with name .*matches with template .*data streams only", ClusterError, _TEMPLATE_REMEDY),
    (
        r"(\[\d+:\d+\] )?(failed to parse: )?data stream timestamp field \[@timestamp\] is missing$",
        ClusterError,
        _TEMPLATE_REMEDY,
    ),
    (r"All fields that match routing_path must be", ClusterError, _TEMPLATE_REMEDY),
    (
        r"unknown query \[sparse_vector\]",
        MissingModule,
        "The cluster lacks the module that provides this query. The default distribution of Elasticsearch 8.15 or newer "
        "includes it. An index ingested with --vector rank_features doesn't need it.",
    ),
    (
        _NO_TYPE % "rank_features",
        MissingModule,
        "The cluster lacks the module mapper-extras, which the default distributions include. "
        "Elasticsearch 8.15 or newer also supports --vector sparse_vector.",
    ),
    (
        r"script_lang not supported \[painless\]|cannot execute (\[inline\] scripts|scripts using \[update\] context)",
        MissingModule,
        "The cluster changes no documents by inline painless scripts. Ask its administrator for the module lang-painless and for "
        "`script.allowed_types`. Or build a new index: stair-es ingest --index NEW.",
    ),
    (
        _NO_TYPE % "sparse_vector",
        MissingModule,
        "This field type requires Elasticsearch, or OpenSearch 3.3 or newer with the plugin neural-search. "
        "Every cluster supports the default: --vector rank_features.",
    ),
)


def is_clause_limit_error(error: ClusterError) -> bool:
    """Return whether a query exceeds the clause limit of the cluster. Engines answer 400 or, for the total, 500."""
    return "maxClauseCount" in error.message


def describe_rejection(error: ClusterError) -> tuple[str, str]:
    """Describe why an engine rejects a query: message and remedy."""
    if is_clause_limit_error(error):
        return (
            "the query exceeds the clause limit of the cluster",
            "Shorten the filter or the caption, or use fewer words (on the command line also --weight-mass).",
        )
    reason = get_rejection_reason(error) or "no reason given"
    return (
        f"the search cluster can't parse the query: {reason}",
        'In the filter, quote values with : / or other operators (uri:"file:///a.jpg"); commands also take a JSON clause.',
    )


def get_rejection_reason(error: ClusterError) -> str:
    """Return the first line of the reason that the engine gives, since a parser lists what it expected below; "" for none."""
    return error.message.partition(" answered 400: ")[2].partition("\n")[0].removeprefix("all shards failed: ")


@contextmanager
def translate_errors(
    connection: Connection, passthrough: Callable[[exceptions.TransportError], bool] = lambda _: False
) -> Iterator[None]:
    """Translate exceptions of the client into ours, with the URL, the cause and a remedy.

    Exceptions for which `passthrough` returns True stay unchanged.
    """
    try:
        yield
    except exceptions.TransportError as error:
        if passthrough(error):
            raise
        translated = _translate_error(error, connection)
        translated.status = error.status_code if isinstance(error.status_code, int) else None
        raise translated from None  # the client's exception may contain our headers, repeated by the server
    except exceptions.SerializationError:
        raise NotASearchCluster(
            f"{connection.safe_url} does not answer in JSON",
            "Is this the HTTP port of OpenSearch or Elasticsearch?",
            code="response-not-json",
        ) from None


def _translate_error(error: exceptions.TransportError, connection: Connection) -> ClusterError:
    where = getattr(error, "node", None) or connection.safe_url
    if isinstance(error, exceptions.ConnectionError):
        return _build_unreachable_error(error, where, connection)
    if error.status_code == 401:
        message = error.info.get("Message") if isinstance(error.info, dict) else None
        if isinstance(message, str) and _NOT_ALLOWED.fullmatch(message):
            return ClusterError(
                f"{where} doesn't support {_get_request(error, connection)} (HTTP 401): {connection.redact(message)}",
                "Amazon OpenSearch Service allows a part of the API only: docs/howto/managed-clusters.md",
                code="request-unsupported",
            )
        return AuthenticationFailed(
            f"{where} refused the login (HTTP 401)",
            connection.security.variables.get_login_remedy(connection.security.method),
            code="login-refused",
        )
    if error.status_code == 403 and error.error in ("cluster_block_exception", "index_create_block_exception"):
        return ClusterError(
            f"{where}: {get_error_reason(error, connection)}",
            "`stair-es doctor --index NAME` prints how to remove the block.",
            code="index-blocked",
        )
    if error.status_code == 403:
        return _build_forbidden_error(error, where, connection)
    if isinstance(error.status_code, int) and 300 <= error.status_code < 400:
        return ClusterError(
            f"{where} redirects (HTTP {error.status_code}){_describe_redirect_target(error)}",
            "Redirects are not followed, to protect the credentials: use the target URL.",
            code="cluster-redirects",
        )
    if error.status_code == 400 and not isinstance(error.info, dict) and _is_tls_expected(where):
        return _build_plain_http_error(where)
    return _translate_response(error, f"{where} answered {error.status_code}: {get_error_reason(error, connection)}")


def _build_forbidden_error(error: exceptions.TransportError, where: str, connection: Connection) -> AuthenticationFailed:
    request = _get_request(error, connection)
    reason = _describe_head_right(request) if request.startswith("HEAD ") else get_error_reason(error, connection)
    return AuthenticationFailed(
        f"{where} forbids {request} (HTTP 403): {reason}", choose_grant_remedy(connection), code="request-forbidden"
    )


def _get_request(error: exceptions.TransportError, connection: Connection) -> str:
    return connection.redact(getattr(error, "request", "this"))[:_MAX_REQUEST_CHARS]


def get_copies_multiple(response: object) -> int:
    """Return the number of zones of which the copies of an index must be a multiple, from an error response; 0 for another."""
    error = response.get("error") if isinstance(response, dict) else None
    found = next(filter(None, map(_COPIES.search, _list_reasons(error))), None)
    return int(found[1]) if found else 0


def choose_grant_remedy(connection: Connection) -> str:
    """Choose the remedy for a missing permission."""
    return _GRANT_ON_AWS if connection.security.method == "aws" else _GRANT


def _describe_head_right(request: str) -> str:
    """Return the permission that a HEAD request needs: its response has no body that could name it."""
    right = "indices:admin/aliases/get" if "/_alias/" in request else "indices:admin/get"
    return f"it requires {right} (Elasticsearch: view_index_metadata)"


def _translate_response(error: exceptions.TransportError, message: str) -> ClusterError:
    if error.error == "index_closed_exception":
        return IndexClosed(
            message, "Open the index: POST /INDEX/_open. `stair-es doctor --index NAME` reports which one is closed."
        )
    if error.status_code in BUSY_STATUSES:
        return ClusterError(
            message,
            "It may be starting, too busy or missing nodes: run it again later. `stair-es doctor` reports what is wrong.",
            code="cluster-unavailable",
        )
    if get_copies_multiple(error.info):
        return ClusterError(message, _COPIES_REMEDY, code="copies-required")
    kind, remedy = explain_reason(error.info.get("error") if isinstance(error.info, dict) else None)
    return kind(message, remedy)


def explain_reason(error: object) -> tuple[type[ClusterError], str]:
    """Return the kind of an error of the cluster and its remedy, which is empty if the reason is not a known one."""
    reasons = [*_list_reasons(error)]
    for pattern, kind, remedy in _KNOWN_REASONS:
        if any(re.match(pattern, reason) for reason in reasons):
            return kind, remedy
    return ClusterError, ""


def _build_unreachable_error(error: exceptions.ConnectionError, where: str, connection: Connection) -> ClusterError:
    ssl_error = tls.find_ssl_error(error)
    if ssl_error is not None:
        remedy = tls.get_tls_remedy(ssl_error, connection.security.variables)
        return ClusterUnreachable(
            f"no TLS connection to {where}: {tls.describe_ssl_error(ssl_error)}", remedy, code="no-tls-connection"
        )
    if _is_tls_expected(where):
        return _build_plain_http_error(where)
    reason = connection.redact(f"{getattr(error, 'info', error)}")
    remedy = "Check --url / STAIR_ES_URL, or leave both out to use the embedded node."
    if where.startswith("https:") and isinstance(getattr(error, "info", None), ProtocolError):
        # a server that wants another certificate says so after the handshake: who writes by then only sees it hang up
        option = connection.security.variables.get_option
        remedy += f" If the cluster requires a client certificate: {option('client_cert')} and {option('client_key')}."
    return ClusterUnreachable(f"no search cluster answers at {where}: {reason}", remedy)


def _build_plain_http_error(where: str) -> ClusterError:
    secure = where.replace("http:", "https:", 1)
    return ClusterUnreachable(f"{where} speaks TLS, but the URL says http", f"Use {secure}", code="tls-expected")


def _is_tls_expected(where: str) -> bool:
    parts = urlsplit(where)
    return parts.scheme == "http" and parts.hostname is not None and tls.is_tls_port(parts.hostname, parts.port or 80)


def _describe_redirect_target(error: exceptions.TransportError) -> str:
    """Return the target of a redirect, without what may be secret in it."""
    try:
        parts = urlsplit(str(getattr(error, "location", None) or ""))
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    return f", to {parts.scheme or 'http'}://{host}{f':{port}' if port else ''}" if host else ""


def get_error_reason(error: exceptions.TransportError, connection: Connection) -> str:
    """Return the reason that the server gives."""
    info = error.info
    if isinstance(info, dict) and isinstance(info.get("error"), dict):
        return connection.redact(_join_error_reasons(info["error"]))
    return connection.redact(str(error.error)[:500])


def _join_error_reasons(error: Mapping[str, Any]) -> str:
    """Join the error's own reason and those of its first cause: "all shards failed" alone doesn't help."""
    causes = [cause for cause in error.get("root_cause") or () if isinstance(cause, dict)]
    shards = [shard for shard in error.get("failed_shards") or () if isinstance(shard, dict)]
    failed = shards[0].get("reason") if shards else None
    root_reason = _find_root_reason(failed if isinstance(failed, dict) else error)
    reasons: list[str] = []
    for part in (error.get("reason", error), *(cause.get("reason") for cause in causes[:1]), root_reason):
        if part and not any(str(part) in reason for reason in reasons):
            reasons.append(str(part))
    return ": ".join(reasons)


def _list_reasons(error: object) -> Iterator[str]:
    """Yield the reasons of an error, of its causes and of the first shard that failed."""
    while isinstance(error, dict):
        yield str(error.get("reason") or "")
        shards = error.get("failed_shards")
        if isinstance(shards, list) and shards and isinstance(shards[0], dict):
            yield from _list_reasons(shards[0].get("reason"))
        error = error.get("caused_by")


def _find_root_reason(error: Mapping[str, Any]) -> object:
    """Return the last reason of the chain of causes, except one that is less specific than its effect: "unknown field"."""
    reason = error.get("reason")
    cause = error.get("caused_by")
    while isinstance(cause, dict) and cause.get("type") != "named_object_not_found_exception":
        reason = cause.get("reason") or reason
        cause = cause.get("caused_by")
    return reason
