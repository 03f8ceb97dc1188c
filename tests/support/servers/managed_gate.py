"""What managed products refuse by their documentation, for a `RecordingProxy` in front of an ordinary node.

::

    gate = ManagedGate("opensearch-serverless")
    with RecordingProxy(node_url, gate=gate, rewrite=gate.hide_settings) as proxy:
        ...  # gate.refused

The sources are on docs/howto/managed-clusters.md. OpenSearch Serverless and domains allow a list, Elastic Serverless denies one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.servers.recording_proxy import RecordedRequest, StubResponse

_ANY = "GET|HEAD|PUT|POST|DELETE"
_INDEX = "/[^_/][^/]*"
_DOMAIN = (
    *(("GET|HEAD", "/"), (_ANY, f"{_INDEX}(/.*)?")),
    (
        _ANY,
        "/_(alias|aliases|all|analyze|bulk|count|delete_by_query|explain|field_caps|field_stats|flush|list|ltr|mapping|mget|msearch"
        "|mtermvectors|nodes|percolate|plugins|rank_eval|refresh|reindex|render|rollover|scripts|search|shard_stores|shrink"
        "|snapshot|split|stats|status|tasks|template|update_by_query|validate)(/.*)?",
    ),
    (_ANY, "/_cat(?!/nodeattrs)(/.*)?"),
    (_ANY, "/_cluster/(allocation/explain|health|pending_tasks|settings|state|stats)(/.*)?"),
    (_ANY, "/_(ingest/pipeline|resolve/index)(/.*)?"),
)
_COLLECTION = (
    ("PUT|GET|HEAD|DELETE", _INDEX),
    ("GET|PUT|POST", f"{_INDEX}/_(mappings?|settings)"),
    ("POST", f"{_INDEX}/_bulk"),
    ("GET", f"{_INDEX}/_(mget|msearch)"),
    ("GET|POST", f"{_INDEX}/_(count|search|field_caps|analyze)"),
    ("GET|POST", "/_(search|field_caps|analyze)"),
    ("POST", "/_aliases"),
    ("GET|HEAD|PUT|POST|DELETE", f"{_INDEX}/_alias/[^/]+"),
)
_ELASTIC = (
    (_ANY, "/_(nodes|cluster|snapshot)(/.*)?"),
    (_ANY, "/_cat(?!/(indices|aliases)(/|$))(/.*)?"),
    (_ANY, "(/[^/]+)?/_(close|open|stats|recovery|segments|forcemerge|shard_stores|search_shards)(/.*)?"),
    *(("GET", "/_tasks"), ("POST", "/_tasks(/[^/]+)?/_cancel"), ("GET", "/_script_language")),
)
_ELASTIC_SETTINGS = re.compile(
    r"codec|default_pipeline|final_pipeline|hidden|mode|query\.default_field|refresh_interval|blocks\.(read_only|read|write|metadata)"
    r"|mapping\.(coerce|ignore_above|ignore_malformed|source\.mode|total_fields\.limit)|(sort|time_series|similarity|analysis)\..*"
)
_SERVERLESS_ROOT = {
    "name": "serverless",
    "version": {"number": "8.11.0", "build_flavor": "serverless", "lucene_version": "10.0.0"},
    "tagline": "You Know, for Search",
}


@dataclass
class ManagedGate:
    """The gate of a product, which records what it refuses."""

    product: str
    """`domain` (with standby), `opensearch-serverless`, `elastic-hosted` or `elasticsearch-serverless`."""
    refused: list[str] = field(default_factory=list)
    """Requests that were refused."""

    def __call__(self, request: RecordedRequest) -> StubResponse | None:
        """Return the refusal of a product, or None."""
        path = urlsplit(request.target).path
        if self.product == "elastic-hosted" and request.method == "GET" and path == "/":
            root = {**_SERVERLESS_ROOT, "version": {"number": "9.5.3", "build_flavor": "default", "lucene_version": "10.0.0"}}
            return _build_response(200, root)
        if self.product == "elasticsearch-serverless" and request.method == "GET" and path == "/":
            return _build_response(200, _SERVERLESS_ROOT)
        response = self._refuse(request, path)
        if response:
            self.refused.append(f"{request.method} {request.target} {request.body[:2000].decode()}")
        return response

    def _refuse(self, request: RecordedRequest, path: str) -> StubResponse | None:
        login = request.headers.get("authorization", "")
        if self.product == "domain":
            if "/es/aws4_request" not in login or not _matches(_DOMAIN, request.method, path):
                return _build_response(401, {"Message": f"Your request: '{path}' is not allowed."})
            if path == "/_cluster/settings" and request.method == "PUT":
                return _build_response(401, {"Message": "Your request: '/_cluster/settings' payload is not allowed."})
            return _refuse_copies(request, path)
        if self.product == "opensearch-serverless":
            is_signed = "/aoss/aws4_request" in login and "x-amz-content-sha256" in request.headers
            is_scroll = "scroll" in parse_qs(urlsplit(request.target).query)
            is_allowed = is_signed and not is_scroll and _matches(_COLLECTION, request.method, path)
            return None if is_allowed else StubResponse(status=404, body=b"", headers={"server": "aoss-amazon"})
        if self.product == "elasticsearch-serverless":
            if not login.startswith("ApiKey "):
                return StubResponse(status=401)
            if _matches(_ELASTIC, request.method, path):
                reason = f"Request for uri [{request.target}] with method [{request.method}] exists but is not available when"
                return _build_error(410, "api_not_available_exception", f"{reason} running in serverless mode")
            names = [name for name, _ in _list_settings(request, path) if not _ELASTIC_SETTINGS.fullmatch(name)]
            listed = ",".join(f"index.{name}" for name in names)
            reason = f"Settings [{listed}] are not available when running in serverless mode"
            return _build_error(400, "illegal_argument_exception", reason) if names else None
        return None

    def hide_settings(self, request: RecordedRequest, response: StubResponse) -> StubResponse:
        """Leave out of a GET index response what a serverless product manages."""
        is_serverless = self.product.endswith("serverless")
        if not is_serverless or request.method != "GET" or not re.fullmatch(_INDEX, urlsplit(request.target).path):
            return response
        found = json.loads(response.body)
        for index in found.values() if response.status == 200 else ():
            settings = _flatten(index.pop("settings", {}))
            kept = {name: value for name, value in settings if _ELASTIC_SETTINGS.fullmatch(name.removeprefix("index."))}
            if kept:
                index["settings"] = kept if "flat_settings" in request.target else {"index": _nest(kept)}
        return replace(response, body=json.dumps(found).encode())


def _refuse_copies(request: RecordedRequest, path: str) -> StubResponse | None:
    """Refuse an index whose copies aren't a multiple of three, as a domain with standby does."""
    for name, value in _list_settings(request, path):
        if name == "number_of_replicas" and value is not None and (int(value) + 1) % 3:
            return _build_copies_error("expected total copies needs to be a multiple of total awareness attributes [3];")
        if name == "auto_expand_replicas" and (upper := re.fullmatch(r"\d+-(\d+)", str(value))) and (int(upper[1]) + 1) % 3:
            return _build_copies_error("expected max cap on auto expand to be a multiple of total awareness attributes [3];")
    return None


def _build_copies_error(reason: str) -> StubResponse:
    return _build_error(400, "illegal_argument_exception", f"Validation Failed: 1: {reason}")


def _list_settings(request: RecordedRequest, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the index settings that a request sends, by name."""
    if request.method != "PUT" or not re.fullmatch(f"{_INDEX}(/_settings)?", path) or not request.body:
        return
    body = json.loads(request.body)
    settings = body if path.endswith("/_settings") else body.get("settings", {})
    yield from ((name.removeprefix("index."), value) for name, value in _flatten(settings))


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("index."): value for name, value in settings.items()}


def _matches(rules: tuple[tuple[str, str], ...], method: str, path: str) -> bool:
    return any(re.fullmatch(methods, method) and re.fullmatch(pattern, path) for methods, pattern in rules)


def _build_error(status: int, type_: str, reason: str) -> StubResponse:
    cause = {"type": type_, "reason": reason}
    return _build_response(status, {"error": {"root_cause": [cause], **cause}, "status": status})


def _build_response(status: int, body: Mapping[str, Any]) -> StubResponse:
    return StubResponse(status=status, body=json.dumps(body).encode())
