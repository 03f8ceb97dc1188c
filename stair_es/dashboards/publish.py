"""Import of saved objects into a product, through the API that its own pages use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.dashboards.index_info import PRODUCT_LABELS, Product
from stair_es.dashboards.saved_objects import SavedObject, to_ndjson
from stair_es.dashboards.session import DashboardsResponse, DashboardsSession, get_error_text
from stair_es.errors import ClusterError, UnsupportedTarget, UsageError

_MIN_VERSIONS: dict[Product, int] = {"opensearch-dashboards": 2, "kibana": 8}
_MAX_OPENSEARCH_VERSION = 6
"""The version numbers don't overlap: Kibana has been above this one since before the fork."""
_PRODUCT_HEADERS: dict[str, Product] = {"osd-name": "opensearch-dashboards", "kbn-name": "kibana"}
"""Header of every response -> product."""


@dataclass(frozen=True, kw_only=True)
class DetectedProduct:
    """The product at a URL."""

    product: Product
    version: str
    """Empty if not reported."""

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


def detect_product(session: DashboardsSession, asked: Product | None = None) -> DetectedProduct:
    """Detect which product answers.

    Args:
        session: Session with the product.
        asked: Product that it must be; None for any.

    Returns:
        Product and version.

    Raises:
        UsageError: If it is another product than `asked`, or the product can't be detected.
        UnsupportedTarget: If the version is too old.
        ClusterError: If the request fails, or another server answers.
    """
    place = session.connection
    asked = asked or place.product
    answer = session.request("GET", "/api/status")
    version = _parse_version(answer.body)
    told = next((product for header, product in _PRODUCT_HEADERS.items() if header in answer.headers), None)
    if told is None and version:
        major = int(version.partition(".")[0])
        told = "kibana" if major > _MAX_OPENSEARCH_VERSION else "opensearch-dashboards"
    if told is None and asked is None:
        if answer.status >= 400 or not isinstance(answer.body, dict):
            raise ClusterError(
                f"{place.safe_url} answers, but not as OpenSearch Dashboards or Kibana "
                f"(HTTP {answer.status} for /api/status): {place.redact(get_error_text(answer))}",
                "Check the URL and its base path; use --product if the server hides it.",
            )
        raise UsageError(
            f"{place.safe_url} doesn't report which product it is", "Give --product opensearch-dashboards or kibana."
        )
    if told is not None and asked is not None and told != asked:
        raise UsageError(
            f"{place.safe_url} is {PRODUCT_LABELS[told]}, not {PRODUCT_LABELS[asked]}", _get_product_remedy(place.product)
        )
    found = DetectedProduct(product=told or asked or "kibana", version=version)
    if version and int(version.partition(".")[0]) < _MIN_VERSIONS[found.product]:
        raise UnsupportedTarget(
            f"{place.safe_url} is {found.label}: the dashboards are for {_MIN_VERSIONS[found.product]}.0 or newer",
            "A newer product reads older clusters' indices too; see docs/dashboards.md.",
        )
    return found


def import_objects(session: DashboardsSession, objects: Sequence[SavedObject]) -> list[ImportResult]:
    """Import the objects; existing objects with the same ids are overwritten.

    Args:
        session: Session with the product.
        objects: Saved objects.

    Returns:
        The result of each object, in the same order.

    Raises:
        ClusterError: If the whole import is rejected.
    """
    file = ("stair-es.ndjson", to_ndjson(objects).encode(), "application/ndjson")  # the products check the extension
    answer = session.request("POST", "/api/saved_objects/_import?overwrite=true", fields={"file": file})
    if answer.status >= 400:
        raise _build_import_error(session, answer)
    if not isinstance(answer.body, dict) or "success" not in answer.body:
        text = session.connection.redact(get_error_text(answer))
        raise ClusterError(
            f"{session.connection.safe_url} doesn't answer like an import API: {text}",
            "Check the URL: is it OpenSearch Dashboards or Kibana?",
        )
    return _parse_results(objects, answer.body, session)


def _parse_results(objects: Sequence[SavedObject], body: Mapping[str, Any], session: DashboardsSession) -> list[ImportResult]:
    done = {(each.get("type"), each.get("id")): each for each in body.get("successResults") or ()}
    failed = {(each.get("type"), each.get("id")): each for each in body.get("errors") or ()}
    whole = body["success"] is True and not failed and not done  # reported without naming each object
    made = list[ImportResult]()
    for each in objects:
        key = (each["type"], each["id"])
        result = done.get(key, {})
        error = "" if (whole or key in done) and key not in failed else _describe_error(failed.get(key), body)
        made.append(
            ImportResult(
                type=each["type"],
                id=each["id"],
                title=each["attributes"]["title"],
                stored_as=str(result.get("destinationId") or each["id"]),
                overwritten=bool(result.get("overwrite")),
                error=session.connection.redact(error),
            )
        )
    return made


def _describe_error(failed: Mapping[str, Any] | None, body: Mapping[str, Any]) -> str:
    if failed is None:
        return "not imported, since others failed" if body.get("errors") else "the response doesn't mention it"
    error = failed.get("error") or {}
    kind, message = error.get("type", "unknown"), str(error.get("message") or "")
    if kind == "missing_references":
        missing = ", ".join(f"{each.get('type')} {each.get('id')}" for each in error.get("references") or ())
        return f"it refers to missing objects: {missing}"
    if kind in ("conflict", "ambiguous_conflict"):
        return "another object has its id, and may not be overwritten"
    if kind == "unsupported_type":
        return "the product doesn't know objects of this type"
    return message or str(error.get("error") or kind)


def _build_import_error(session: DashboardsSession, answer: DashboardsResponse) -> ClusterError:
    place = session.connection
    told = place.redact(get_error_text(answer))
    if answer.status == 404:
        return ClusterError(
            f"{place.safe_url}{place.path_prefix} has no import API (HTTP 404): {told}",
            "Check the base path in the URL, and whether the space or the workspace exists.",
        )
    if answer.status == 413:
        return ClusterError(
            f"{place.safe_url} rejects a file of this size (HTTP 413): {told}",
            "Increase `savedObjects.maxImportPayloadBytes` there, or the limit of the proxy.",
        )
    hint = (
        "The objects are from a version that it doesn't support: see docs/dashboards.md." if "more recent version" in told else ""
    )
    return ClusterError(f"{place.safe_url} rejected the import (HTTP {answer.status}): {told}", hint)


def _parse_version(body: object) -> str:
    found = body.get("version") if isinstance(body, dict) else None
    number = found.get("number") if isinstance(found, dict) else None
    return number if isinstance(number, str) and number.partition(".")[0].isdigit() else ""


def _get_product_remedy(by_part: Product | None) -> str:
    if by_part is None:
        return "Omit --product, or specify the other one."
    return "--space is for Kibana; --workspace and --tenant are for OpenSearch Dashboards."
