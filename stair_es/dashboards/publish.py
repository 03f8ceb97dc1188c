"""Import of saved objects into a product, through the API that its own pages use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.dashboards.corpus import LABELS, Product
from stair_es.dashboards.objects import SavedObject, ndjson
from stair_es.dashboards.session import Answer, Session, said
from stair_es.errors import ClusterError, UnsupportedTarget, UsageError

_OLDEST: dict[Product, int] = {"opensearch-dashboards": 2, "kibana": 8}
_NEWEST_OPENSEARCH = 6
"""The version numbers don't overlap: Kibana has been above this one since before the fork."""
_NAMES: dict[str, Product] = {"osd-name": "opensearch-dashboards", "kbn-name": "kibana"}
"""Header of every response -> product."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The product at a URL."""

    product: Product
    version: str
    """Empty if not reported."""

    @property
    def label(self) -> str:
        """Display name, like `Kibana 8.15.0`."""
        return f"{LABELS[self.product]} {self.version}".strip()


@dataclass(frozen=True, kw_only=True)
class Imported:
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


def recognise(session: Session, asked: Product | None = None) -> Found:
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
    place = session.place
    asked = asked or place.product
    answer = session.ask("GET", "/api/status")
    version = _version(answer.body)
    told = next((product for header, product in _NAMES.items() if header in answer.headers), None)
    if told is None and version:
        major = int(version.partition(".")[0])
        told = "kibana" if major > _NEWEST_OPENSEARCH else "opensearch-dashboards"
    if told is None and asked is None:
        if answer.status >= 400 or not isinstance(answer.body, dict):
            raise ClusterError(
                f"{place.safe_url} answers, but not as OpenSearch Dashboards or Kibana "
                f"(HTTP {answer.status} for /api/status): {place.redact(said(answer))}",
                "Check the URL and its base path; use --product if the server hides it.",
            )
        raise UsageError(
            f"{place.safe_url} doesn't report which product it is", "Give --product opensearch-dashboards or kibana."
        )
    if told is not None and asked is not None and told != asked:
        raise UsageError(f"{place.safe_url} is {LABELS[told]}, not {LABELS[asked]}", _for_other(place.product))
    found = Found(product=told or asked or "kibana", version=version)
    if version and int(version.partition(".")[0]) < _OLDEST[found.product]:
        raise UnsupportedTarget(
            f"{place.safe_url} is {found.label}: the dashboards are for {_OLDEST[found.product]}.0 or newer",
            "A newer product reads older clusters' indices too; see docs/dashboards.md.",
        )
    return found


def publish(session: Session, objects: Sequence[SavedObject]) -> list[Imported]:
    """Import the objects; existing objects with the same ids are overwritten.

    Args:
        session: Session with the product.
        objects: Saved objects.

    Returns:
        The result of each object, in the same order.

    Raises:
        ClusterError: If the whole import is rejected.
    """
    file = ("stair-es.ndjson", ndjson(objects).encode(), "application/ndjson")  # the products check the extension
    answer = session.ask("POST", "/api/saved_objects/_import?overwrite=true", fields={"file": file})
    if answer.status >= 400:
        raise _refused(session, answer)
    if not isinstance(answer.body, dict) or "success" not in answer.body:
        raise ClusterError(
            f"{session.place.safe_url} doesn't answer like an import API: {session.place.redact(said(answer))}",
            "Check the URL: is it OpenSearch Dashboards or Kibana?",
        )
    return _results(objects, answer.body, session)


def _results(objects: Sequence[SavedObject], body: Mapping[str, Any], session: Session) -> list[Imported]:
    done = {(each.get("type"), each.get("id")): each for each in body.get("successResults") or ()}
    failed = {(each.get("type"), each.get("id")): each for each in body.get("errors") or ()}
    whole = body["success"] is True and not failed and not done  # reported without naming each object
    made = list[Imported]()
    for each in objects:
        key = (each["type"], each["id"])
        result = done.get(key, {})
        error = "" if (whole or key in done) and key not in failed else _reason(failed.get(key), body)
        made.append(
            Imported(
                type=each["type"],
                id=each["id"],
                title=each["attributes"]["title"],
                stored_as=str(result.get("destinationId") or each["id"]),
                overwritten=bool(result.get("overwrite")),
                error=session.place.redact(error),
            )
        )
    return made


def _reason(failed: Mapping[str, Any] | None, body: Mapping[str, Any]) -> str:
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


def _refused(session: Session, answer: Answer) -> ClusterError:
    place = session.place
    told = place.redact(said(answer))
    if answer.status == 404:
        return ClusterError(
            f"{place.safe_url}{place.scope} has no import API (HTTP 404): {told}",
            "Check the base path in the URL, and whether the space or the workspace exists.",
        )
    if answer.status == 413:
        return ClusterError(
            f"{place.safe_url} rejects a file of this size (HTTP 413): {told}",
            "Increase `savedObjects.maxImportPayloadBytes` there, or the limit of the proxy.",
        )
    hint = "The objects are from another version than it knows: see docs/dashboards.md." if "more recent version" in told else ""
    return ClusterError(f"{place.safe_url} rejected the import (HTTP {answer.status}): {told}", hint)


def _version(body: object) -> str:
    found = body.get("version") if isinstance(body, dict) else None
    number = found.get("number") if isinstance(found, dict) else None
    return number if isinstance(number, str) and number.partition(".")[0].isdigit() else ""


def _for_other(by_part: Product | None) -> str:
    if by_part is None:
        return "Omit --product, or name the other one."
    return "--space is for Kibana; --workspace and --tenant are for OpenSearch Dashboards."
