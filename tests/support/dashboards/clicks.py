"""The filters that the products make of a click on a chart, written after their sources (`createFilter` of each aggregation).

OpenSearch Dashboards 2.8, 2.19 and `main`, and Kibana 8 and 9 do the same here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_LEADING_DIGITS = re.compile(r"\s*[+-]?\d+")


@dataclass(frozen=True)
class Click:
    """A bucket of a chart that can be clicked."""

    filters: tuple[dict[str, Any], ...]
    """One for each level of buckets."""
    documents: int
    """Documents of the bucket."""


def list_clicks(obj: Mapping[str, Any], response: Mapping[str, Any]) -> Iterator[Click]:
    """Yield the clicks that a classic chart offers with this response: on each of its buckets that is visible."""
    aggs = json.loads(obj["attributes"]["visState"])["aggs"]
    levels = [agg for agg in aggs if agg["schema"] != "metric"]
    yield from _list_bucket_clicks(levels, response.get("aggregations", {}), ())


def _list_bucket_clicks(levels: list[Any], aggregations: Mapping[str, Any], above: tuple[dict[str, Any], ...]) -> Iterator[Click]:
    if not levels:
        return
    agg, *below = levels
    buckets = aggregations[agg["id"]]["buckets"]
    for bucket in buckets.values() if isinstance(buckets, dict) else buckets:
        if not bucket["doc_count"]:
            continue  # a bar without height
        filters = (*above, _build_filter(agg, bucket))
        if below:
            yield from _list_bucket_clicks(below, bucket, filters)
        else:
            yield Click(filters, bucket["doc_count"])


def _build_filter(agg: Mapping[str, Any], bucket: Mapping[str, Any]) -> dict[str, Any]:
    params = agg["params"]
    field = params["field"]
    if agg["type"] == "terms":
        return {"match_phrase": {field: bucket["key"]}}
    if agg["type"] == "range":
        bounds = {"gte": bucket.get("from"), "lt": bucket.get("to")}
        return {"range": {field: {side: value for side, value in bounds.items() if value is not None}}}
    if agg["type"] == "histogram":
        start = _parse_int(str(bucket["key"]))
        return {"range": {field: {"gte": start, "lt": start + params["interval"]}}}
    if agg["type"] == "date_histogram":
        start_ms = bucket["key"]
        bounds = {"gte": _format_time(start_ms), "lt": _format_time(_add_interval(start_ms, params["interval"]))}
        return {"range": {field: {**bounds, "format": "strict_date_optional_time"}}}
    raise ValueError(f"an aggregation that this doesn't translate: {agg['type']}")


def _parse_int(text: str) -> int:
    """Do what JavaScript's `parseInt(text, 10)` does: fractions are cut."""
    match = _LEADING_DIGITS.match(text)
    if match is None:
        raise ValueError(f"parseInt gives NaN for {text!r}")
    return int(match[0])


def _add_interval(start_ms: int, interval: str) -> int:
    start = datetime.fromtimestamp(start_ms / 1000, UTC)
    if interval == "d":
        return start_ms + 24 * 3600 * 1000
    months = start.year * 12 + start.month - 1 + (1 if interval == "M" else 12)
    return round(start.replace(year=months // 12, month=months % 12 + 1).timestamp() * 1000)


def _format_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
