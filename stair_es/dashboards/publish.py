"""Import of saved objects into a product, through the API that its own pages use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from stair_es.dashboards.bundle import SavedObject, to_ndjson
from stair_es.dashboards.index_info import PRODUCT_LABELS, Product
from stair_es.dashboards.session import DashboardsResponse, DashboardsSession
from stair_es.errors import AuthenticationFailed, ClusterError, UnsupportedTarget, UsageError

_MIN_VERSIONS: dict[Product, int] = {"opensearch-dashboards": 2, "kibana": 8}
_MAX_OPENSEARCH_VERSION = 6
"""The version numbers don't overlap: Kibana has been above this one since before the fork."""
_PRODUCT_HEADERS: dict[str, Product] = {"osd-name": "opensearch-dashboards", "kbn-name": "kibana"}
_SECURITY_PLUGIN = "plugin:securityDashboards"


@dataclass(frozen=True, kw_only=True)
class DetectedProduct:
    """The product at a URL."""

    product: Product
    version: str
    """Empty if not reported."""
    has_tenants: bool | None = None
    """Whether it has the security plugin of OpenSearch, and so tenants; None if it doesn't list its plugins."""

    @property
    def label(self) -> str:
        """Display name, like `Kibana 8.15.0`."""
        return f"{PRODUCT_LABELS[self.product]} {self.version}".strip()


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """Result of importing one object."""

    type: str
    id: str
    """Id in the file."""
    title: str
    stored_as: str
    """Id in the product; another one if `id` is taken in another space."""
    overwritten: bool = False
    error: str = ""
    """Reason why the import failed; empty if it succeeded."""


def detect_product(session: DashboardsSession, requested: Product | None = None) -> DetectedProduct:
    """Detect which product answers.

    Raises:
        UsageError: If it is another product than `requested`, or the product can't be detected.
        UnsupportedTarget: If the version is too old.
        ClusterError: If the request fails, or another server answers.
    """
    connection = session.connection
    requested = requested or connection.product
    response = session.request("GET", "/api/status")
    version = _parse_version(response.body)
    detected = next((product for header, product in _PRODUCT_HEADERS.items() if header in response.headers), None)
    if detected is None and version:
        major = int(version.partition(".")[0])
        detected = "kibana" if major > _MAX_OPENSEARCH_VERSION else "opensearch-dashboards"
    if detected is None and requested is None:
        if response.status >= 400 or not isinstance(response.body, dict):
            raise ClusterError(
                f"{connection.safe_url} answers, but not as OpenSearch Dashboards or Kibana "
                f"(HTTP {response.status} for /api/status): {session.get_error_text(response)}",
                "Check the URL and its base path; use --product if the server hides it.",
                code="not-dashboards",
            )
        raise UsageError(
            f"{connection.safe_url} doesn't report which product it is",
            "Give --product opensearch-dashboards or kibana.",
            code="product-not-reported",
        )
    if detected is not None and requested is not None and detected != requested:
        raise UsageError(
            f"{connection.safe_url} is {PRODUCT_LABELS[detected]}, not {PRODUCT_LABELS[requested]}",
            _get_product_remedy(connection.product),
            code="other-product",
        )
    product = DetectedProduct(
        product=detected or requested or "kibana", version=version, has_tenants=_find_security_plugin(response.body)
    )
    if version and int(version.partition(".")[0]) < _MIN_VERSIONS[product.product]:
        raise UnsupportedTarget(
            f"{connection.safe_url} is {product.label}: the dashboards are for {_MIN_VERSIONS[product.product]}.0 or newer",
            "A newer product reads older clusters' indices too; see docs/dashboards.md.",
            code="product-too-old",
        )
    return product


def check_space(session: DashboardsSession) -> str | None:
    """Check that the space exists, since the import accepts any id. Return a remark if the user may not ask.

    Raises:
        ClusterError: If there is no such space, or the request fails.
    """
    space = session.connection.space
    if space is None:
        return None
    try:
        response = session.request("GET", f"/api/spaces/space/{quote(space, safe='')}", in_space=False)
    except AuthenticationFailed as error:
        if error.code != "dashboards-forbidden":
            raise
        return f"the user may not ask whether there is a space {space!r}; Kibana imports into any"
    if response.status == 404:
        raise ClusterError(
            f"{session.connection.safe_url} has no space {space!r} (HTTP 404)",
            "Check --space: it is the id in the address (/s/ID), not the name. And check the base path in the URL.",
            code="space-not-found",
        )
    if response.status >= 400:
        raise ClusterError(
            f"{session.connection.safe_url} doesn't tell whether there is a space {space!r} (HTTP {response.status}): "
            f"{session.get_error_text(response)}",
            "Check the base path in the URL, or omit --space for the default space.",
            code="space-unknown",
        )
    return None


def import_objects(session: DashboardsSession, objects: Sequence[SavedObject]) -> list[ImportResult]:
    """Import the objects, and return their results in the same order; existing objects with the same ids are overwritten.

    Raises:
        ClusterError: If the whole import is rejected.
    """
    file = ("stair-es.ndjson", to_ndjson(objects).encode(), "application/ndjson")  # the products check the extension
    response = session.request("POST", "/api/saved_objects/_import?overwrite=true", fields={"file": file})
    if response.status >= 400:
        raise _build_import_error(session, response)
    if not isinstance(response.body, dict) or "success" not in response.body:
        text = session.get_error_text(response)
        raise ClusterError(
            f"{session.connection.safe_url} doesn't answer like an import API: {text}",
            "Check the URL: is it OpenSearch Dashboards or Kibana?",
            code="not-an-import-api",
        )
    return _parse_results(objects, response.body, session)


def _parse_results(objects: Sequence[SavedObject], body: Mapping[str, Any], session: DashboardsSession) -> list[ImportResult]:
    succeeded = {(result.get("type"), result.get("id")): result for result in body.get("successResults") or ()}
    failed = {(result.get("type"), result.get("id")): result for result in body.get("errors") or ()}
    all_succeeded = body["success"] is True and not failed and not succeeded  # reported without naming each object
    results = list[ImportResult]()
    for saved_object in objects:
        key = (saved_object["type"], saved_object["id"])
        result = succeeded.get(key, {})
        error = "" if (all_succeeded or key in succeeded) and key not in failed else _describe_error(failed.get(key), body)
        results.append(
            ImportResult(
                type=saved_object["type"],
                id=saved_object["id"],
                title=saved_object["attributes"]["title"],
                stored_as=str(result.get("destinationId") or saved_object["id"]),
                overwritten=bool(result.get("overwrite")),
                error=session.connection.redact(error),
            )
        )
    return results


def _describe_error(failed: Mapping[str, Any] | None, body: Mapping[str, Any]) -> str:
    if failed is None:
        return "not imported, since others failed" if body.get("errors") else "the response doesn't mention it"
    error = failed.get("error") or {}
    kind, message = error.get("type", "unknown"), str(error.get("message") or "")
    if kind == "missing_references":
        missing = ", ".join(f"{reference.get('type')} {reference.get('id')}" for reference in error.get("references") or ())
        return f"it refers to missing objects: {missing}"
    if kind in ("conflict", "ambiguous_conflict"):
        return "another object has its id, and may not be overwritten"
    if kind == "unsupported_type":
        return "the product doesn't know objects of this type"
    return message or str(error.get("error") or kind)


def _build_import_error(session: DashboardsSession, response: DashboardsResponse) -> ClusterError:
    connection = session.connection
    message = session.get_error_text(response)
    if response.status == 404:
        return ClusterError(
            f"{connection.safe_url}{connection.path_prefix} has no import API (HTTP 404): {message}",
            "Check the base path in the URL, and whether the workspace exists.",
            code="no-import-api",
        )
    if response.status == 413:
        return ClusterError(
            f"{connection.safe_url} rejects a file of this size (HTTP 413): {message}",
            "Increase `savedObjects.maxImportPayloadBytes` there, or the limit of the proxy.",
            code="import-too-large",
        )
    hint = (
        "The objects are from a version that it doesn't support: see docs/dashboards.md."
        if "more recent version" in message
        else ""
    )
    return ClusterError(
        f"{connection.safe_url} rejected the import (HTTP {response.status}): {message}", hint, code="import-rejected"
    )


def _parse_version(body: object) -> str:
    version = body.get("version") if isinstance(body, dict) else None
    number = version.get("number") if isinstance(version, dict) else None
    return number if isinstance(number, str) and number.partition(".")[0].isdigit() else ""


def _find_security_plugin(body: object) -> bool | None:
    """Return whether the plugins in a status include the security plugin; None if it lists none, as for anonymous users."""
    status = body.get("status") if isinstance(body, dict) else None
    statuses = status.get("statuses") if isinstance(status, dict) else None
    listed = [str(each.get("id")) for each in statuses if isinstance(each, dict)] if isinstance(statuses, list) else []
    plugins = [id_ for id_ in listed if id_.startswith("plugin:")]
    return any(id_.startswith(_SECURITY_PLUGIN) for id_ in plugins) if plugins else None


def _get_product_remedy(implied: Product | None) -> str:
    if implied is None:
        return "Omit --product, or specify the other one."
    return "--space is for Kibana; --workspace and --tenant are for OpenSearch Dashboards."
