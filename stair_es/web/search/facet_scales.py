"""The scales of facets: how the values of each field are spread over an index, and the buckets that follow from it. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stair_es.search.dsl.mapped_fields import MappedField, is_scalar
from stair_es.search.dsl.pagination import build_random_query

MAX_BUCKETS = 24
_SAMPLE_DOCUMENTS = 20_000
"""Number of random documents per shard whose values decide on the buckets; all documents decide on minimum and maximum."""
_TAILS = [2, 98]
"""Percentiles. Values beyond them don't widen the buckets: a price of 1,000,000 would leave all others in one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_DATE_MS, _MAX_DATE_MS = -62_135_596_800_000, 253_370_764_800_000
"""The years 1 to 9998."""
_DATE_STEPS_H = (1, 6, 24, 168)
_DATE_STEPS_MONTHS = (1, 3, 12, 24, 60, 120, 240, 600, 1200, 6000)
_MONDAY_H = 96
"""Hours from 1970-01-01 to a Monday."""


@dataclass(frozen=True, kw_only=True)
class FieldProfile:
    """How the values of a field are spread over an index."""

    sampled: int
    """Number of values in the sample."""
    distinct: int
    """Approximate number of different values in the sample."""
    minimum: float | None = None
    """The smallest value of all documents; dates in milliseconds. None if there is none, and for strings."""
    maximum: float | None = None
    low: float = 0.0
    """Few values of the sample are smaller."""
    high: float = 0.0
    """Few values of the sample are larger."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The buckets of a number or date field. The first and the last contain all values beyond."""

    edges: tuple[float | str, ...]
    """The edges of the buckets, ascending: one more than there are buckets."""
    minimum: float | str
    maximum: float | str


def build_profile_request(fields: Iterable[MappedField]) -> dict[str, Any]:
    """Build the request for the profiles of fields, which all have whole values."""
    aggs: dict[str, Any] = {}
    sampled: dict[str, Any] = {}
    for place, mapped in enumerate(fields):
        field = {"field": mapped.path}
        sampled[f"count{place}"] = {"value_count": field}
        sampled[f"distinct{place}"] = {"cardinality": {**field, "precision_threshold": 1000}}
        if is_scalar(mapped):
            sampled[f"tails{place}"] = {"percentiles": {**field, "percents": _TAILS, "keyed": False}}
            aggs |= {f"min{place}": {"min": field}, f"max{place}": {"max": field}}
    aggs["sample"] = {"sampler": {"shard_size": _SAMPLE_DOCUMENTS}, "aggs": sampled}
    return {"size": 0, "track_total_hits": False, "query": build_random_query({"match_all": {}}), "aggs": aggs}


def parse_profiles(fields: Iterable[MappedField], response: Mapping[str, Any]) -> dict[str, FieldProfile]:
    """Parse the response of `build_profile_request` to profiles by field name."""
    aggregations = response.get("aggregations") or {}
    sample = aggregations.get("sample") or {}
    profiles = {}
    for place, mapped in enumerate(fields):
        minimum, maximum = (_get_number(aggregations.get(f"{edge}{place}")) for edge in ("min", "max"))
        tails = [_get_number(tail) for tail in (sample.get(f"tails{place}") or {}).get("values", ())]
        low, high = [*tails, None, None][:2]
        profiles[mapped.name] = FieldProfile(
            sampled=int((sample.get(f"count{place}") or {}).get("value", 0)),
            distinct=int((sample.get(f"distinct{place}") or {}).get("value", 0)),
            minimum=minimum,
            maximum=maximum,
            low=low if low is not None else minimum or 0.0,
            high=high if high is not None else maximum or 0.0,
        )
    return profiles


def build_scale(mapped: MappedField, profile: FieldProfile) -> Scale | None:
    """Build the scale of a number or date field; None if it has no values."""
    if profile.minimum is None or profile.maximum is None:
        return None
    if mapped.kind == "date":
        return _build_date_scale(profile, profile.minimum, profile.maximum)
    step = _choose_step(profile.low, profile.high)
    step = max(1.0, step) if mapped.kind == "integer" else step
    digits = max(0, -math.floor(math.log10(step)))

    def count_steps(value: float) -> int:
        return math.floor(_clamp(value / step))

    def compute_edge(ordinal: int) -> float:
        return _shorten(round(_clamp(ordinal * step), digits))

    edges = _list_edges(profile, profile.minimum, profile.maximum, count_steps, compute_edge)
    return Scale(edges=edges, minimum=_shorten(profile.minimum), maximum=_shorten(profile.maximum))


def _list_edges(
    profile: FieldProfile,
    minimum: float,
    maximum: float,
    count_steps: Callable[[float], int],
    compute_edge: Callable[[int], float | str],
) -> tuple[float | str, ...]:
    first, last = count_steps(max(minimum, profile.low)), count_steps(min(maximum, profile.high))
    inner = range(first + 1, last + 1)
    ordinals = [count_steps(minimum), *inner, count_steps(maximum) + 1]
    return tuple(map(compute_edge, ordinals))


def _choose_step(low: float, high: float) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that there are at most `MAX_BUCKETS` buckets."""
    smallest = high / (MAX_BUCKETS - 2) - low / (MAX_BUCKETS - 2)  # high - low could be infinite
    if smallest < sys.float_info.min:
        return 1.0
    power = 10.0 ** math.floor(math.log10(smallest))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= smallest)


def _build_date_scale(profile: FieldProfile, minimum: float, maximum: float) -> Scale:
    span_h = (min(maximum, profile.high) - max(minimum, profile.low)) / 3_600_000
    hours = next((step for step in _DATE_STEPS_H if span_h <= step * (MAX_BUCKETS - 2)), 0)
    months = next((step for step in _DATE_STEPS_MONTHS if span_h <= step * 730 * (MAX_BUCKETS - 2)), _DATE_STEPS_MONTHS[-1])
    offset = _MONDAY_H if hours == _DATE_STEPS_H[-1] else 0

    def count_steps(value_ms: float) -> int:
        date = _parse_ms(value_ms)
        if hours:
            return (int((date - _EPOCH).total_seconds() // 3600) - offset) // hours
        return (date.year * 12 + date.month - 1) // months

    def compute_edge(ordinal: int) -> str:
        if hours:
            return _format_date(_EPOCH + timedelta(hours=ordinal * hours + offset))
        year, month = divmod(ordinal * months, 12)
        return _format_date(datetime(min(9999, max(1, year)), month + 1, 1, tzinfo=UTC))

    edges = _list_edges(profile, minimum, maximum, count_steps, compute_edge)
    return Scale(edges=edges, minimum=_format_date(_parse_ms(minimum)), maximum=_format_date(_parse_ms(maximum)))


def _parse_ms(value_ms: float) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(_MAX_DATE_MS, max(_MIN_DATE_MS, value_ms)))


def _format_date(date: datetime) -> str:
    """Format a date: `2020-01-31`, with a time unless it is midnight."""
    text = date.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")  # a year below 1000 isn't padded everywhere
    return text.removesuffix("T00:00:00") if text.endswith("T00:00:00") else text + "Z"


def _get_number(value: Mapping[str, Any] | None) -> float | None:
    number = (value or {}).get("value")
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None


def _clamp(number: float) -> float:
    """Return the nearest finite number: columns have the largest double as a mark for "none"."""
    return min(sys.float_info.max, max(-sys.float_info.max, number))


def _shorten(number: float) -> float:
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else number
