"""The requests that the products send to the cluster for saved objects, written after their sources.

Each panel of a dashboard becomes one `PanelRequest`. What the products add to a request without changing its figures (labels of
their own, `preference`, timeouts) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Product = Literal["opensearch-dashboards", "kibana"]
Search = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Sends a search: `(index, body) -> answer`."""

_ROWS = 500
"""`discover:sampleSize`."""
_UNITS = {"h": "1h", "d": "1d", "M": "1M", "y": "1y"}


@dataclass(frozen=True, kw_only=True)
class PanelRequest:
    """One request."""

    panel: str
    """Id of the object that asks."""
    index: str
    body: dict[str, Any]


def list_requests(
    objects: Sequence[Mapping[str, Any]], product: Product, filters: Sequence[Mapping[str, Any]] = ()
) -> Iterator[PanelRequest]:
    """Yield the requests of all objects, each with the dashboard's `filters`."""
    patterns = {obj["id"]: obj["attributes"] for obj in objects if obj["type"] == "index-pattern"}
    for obj in objects:
        if obj["type"] == "search":
            yield _build_documents_request(obj, patterns, product, filters)
        elif obj["type"] == "visualization":
            state = json.loads(obj["attributes"]["visState"])
            if state["type"] == "vega":
                yield _build_vega_request(obj["id"], state, filters)
            elif state["type"] == "input_control_vis":
                yield from _list_control_requests(obj, state, patterns)
            elif state["type"] != "markdown":
                yield _build_chart_request(obj, state, patterns, filters)
        elif obj["type"] == "dashboard" and "controlGroupInput" in obj["attributes"]:
            yield from _list_option_requests(obj, patterns, filters)


def build_query(query: str, filters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Build the query of a panel from its own (in the small part of KQL used here) and the dashboard's filters."""
    clauses = _parse_kql(query)
    must_not = [clauses["must_not"]] if "must_not" in clauses else []
    return {
        "bool": {
            "must": [],
            "filter": [clauses.get("filter", {"match_all": {}}), *filters],
            "should": [],
            "must_not": must_not,
        }
    }


def build_phrase_filter(field: str, values: Sequence[str]) -> dict[str, Any]:
    """Build the filter of a control with these values."""
    if len(values) == 1:
        return {"match_phrase": {field: values[0]}}
    return {"bool": {"should": [{"match_phrase": {field: value}} for value in values], "minimum_should_match": 1}}


def inline_response(spec: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Vega spec with the response in place of its request, as products pass it to Vega."""
    return {**spec, "data": {"values": answer, "format": spec["data"]["format"]}}


def _parse_kql(query: str) -> dict[str, Any]:
    if not query:
        return {}
    if query.startswith("NOT ") and query.endswith(":*"):
        exists = {"exists": {"field": query[4:-2]}}
        return {"must_not": {"bool": {"should": [exists], "minimum_should_match": 1}}}
    field, _, value = query.partition(":")
    if not field.isidentifier() or not value.isalnum():
        raise ValueError(f"more KQL than this translates: {query!r}")
    return {"filter": {"bool": {"should": [{"match": {field: value}}], "minimum_should_match": 1}}}


def _parse_search_source(obj: Mapping[str, Any]) -> tuple[str, str]:
    """The query of an object, and the id of its index pattern."""
    source = json.loads(obj["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    [pattern] = [each["id"] for each in obj["references"] if each["name"] == source["indexRefName"]]
    return source["query"]["query"], pattern


def _build_documents_request(
    obj: Mapping[str, Any], patterns: Mapping[str, Any], product: Product, filters: Sequence[Mapping[str, Any]]
) -> PanelRequest:
    query, pattern = _parse_search_source(obj)
    hidden = [each["value"] for each in json.loads(patterns[pattern]["sourceFilters"])]
    body: dict[str, Any] = {
        "version": True,
        "size": _ROWS,
        "sort": [{field: {"order": order, "unmapped_type": "boolean"}} for field, order in obj["attributes"]["sort"]],
        "query": build_query(query, filters),
        "highlight": {"pre_tags": ["@"], "post_tags": ["@"], "fields": {"*": {}}, "fragment_size": 2147483647},
        "_source": {"excludes": hidden},
    }
    if product == "kibana":
        body |= {"fields": [{"field": "*"}], "script_fields": {}, "stored_fields": ["*"]}
    return PanelRequest(panel=obj["id"], index=patterns[pattern]["title"], body=body)


def _build_vega_request(id_: str, state: Mapping[str, Any], filters: Sequence[Mapping[str, Any]]) -> PanelRequest:
    url = json.loads(state["params"]["spec"])["data"]["url"]
    body = dict(url["body"])
    if url.get("%context%"):
        if "query" in body:
            raise ValueError("%context% together with body.query: the products refuse it")
        body["query"] = build_query("", filters)
    return PanelRequest(panel=id_, index=url["index"], body=body)


def _list_control_requests(
    obj: Mapping[str, Any], state: Mapping[str, Any], patterns: Mapping[str, Any]
) -> Iterator[PanelRequest]:
    targets = {each["name"]: each["id"] for each in obj["references"]}
    for control in state["params"]["controls"]:
        terms: dict[str, Any] = {"order": {"_count": "desc"}, "field": control["fieldName"]}
        if not control["options"]["dynamicOptions"]:
            terms["size"] = control["options"]["size"]
        body = {"size": 0, "terminate_after": 100_000, "query": build_query("", []), "aggs": {"termsAgg": {"terms": terms}}}
        index = patterns[targets[control["indexPatternRefName"]]]["title"]
        yield PanelRequest(panel=f"{obj['id']}/{control['fieldName']}", index=index, body=body)


def _list_option_requests(
    obj: Mapping[str, Any], patterns: Mapping[str, Any], filters: Sequence[Mapping[str, Any]]
) -> Iterator[PanelRequest]:
    targets = {each["name"]: each["id"] for each in obj["references"]}
    for id_, panel in json.loads(obj["attributes"]["controlGroupInput"]["panelsJSON"]).items():
        field = panel["explicitInput"]["fieldName"]
        aggs = {
            "suggestions": {"terms": {"size": 10, "shard_size": 10, "field": field, "order": {"_count": "desc"}}},
            "unique_terms": {"cardinality": {"field": field}},
        }
        body = {"size": 0, "terminate_after": 100_000, "query": build_query("", filters), "aggs": aggs}
        index = patterns[targets[f"controlGroup_{id_}:optionsListDataView"]]["title"]
        yield PanelRequest(panel=f"{obj['id']}/{field}", index=index, body=body)


def _build_chart_request(
    obj: Mapping[str, Any],
    state: Mapping[str, Any],
    patterns: Mapping[str, Any],
    filters: Sequence[Mapping[str, Any]],
) -> PanelRequest:
    query, pattern = _parse_search_source(obj)
    index = patterns[pattern]["title"]
    bool_query = build_query(query, filters)
    metrics = [agg for agg in state["aggs"] if agg["schema"] == "metric"]
    buckets = [agg for agg in state["aggs"] if agg["schema"] != "metric"]
    aggs = {agg["id"]: _build_metric(agg) for agg in metrics if agg["type"] != "count"}
    for agg in reversed(buckets):
        level: dict[str, Any] = _build_bucket(agg, metrics)
        ordering = level.pop("ordering", {})
        below = {**ordering, **aggs}
        aggs = {agg["id"]: {**level, **({"aggs": below} if below else {})}}
    body = {"size": 0, "query": bool_query, "aggs": aggs, "stored_fields": ["*"], "script_fields": {}}
    return PanelRequest(panel=obj["id"], index=index, body=body)


def _build_metric(agg: Mapping[str, Any]) -> dict[str, Any]:
    return {agg["type"]: {"field": agg["params"]["field"]}}


def _build_bucket(agg: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    params = agg["params"]
    field = params["field"]
    if agg["type"] == "terms":
        [metric] = [each for each in metrics if each["id"] == params["orderBy"]]
        is_count = metric["type"] == "count"
        order = {"_count" if is_count else metric["id"]: params["order"]}
        exclude = {"exclude": params["exclude"]} if params.get("exclude") else {}
        level: dict[str, Any] = {"terms": {"field": field, "size": params["size"], "order": order, **exclude}}
        return level if is_count else {**level, "ordering": {metric["id"]: _build_metric(metric)}}
    if agg["type"] == "date_histogram":
        options = {"calendar_interval": _UNITS[params["interval"]], "time_zone": "UTC", "min_doc_count": params["min_doc_count"]}
        return {"date_histogram": {"field": field, **options}}
    if agg["type"] == "histogram":  # "auto" would make clicks filter for nothing: see `clicks`
        return {"histogram": {"field": field, "interval": params["interval"], "min_doc_count": int(not params["min_doc_count"])}}
    if agg["type"] == "range":
        ranges = [{side: value for side, value in each.items() if side in ("from", "to")} for each in params["ranges"]]
        return {"range": {"field": field, "ranges": ranges, "keyed": True}}
    raise ValueError(f"an aggregation that this doesn't translate: {agg['type']}")
