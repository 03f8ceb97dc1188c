"""Colors and prices in a text become conditions; names, units and words in quotes stay words."""

from typing import Any

import pytest

from stair_es.search.dsl.understanding import SearchFields, understand_text

FIELDS = SearchFields(colors="colors", price="price")


def color(name: str) -> dict[str, Any]:
    return {"term": {"colors": name}}


def price(**bounds: float) -> dict[str, Any]:
    return {"range": {"price": bounds}}


@pytest.mark.parametrize(
    ("text", "rest", "clauses"),
    [
        ("red shoes", "shoes", [color("red")]),
        ("Shoes in GREY", "Shoes in", [color("gray")]),
        ("light blue shirt", "shirt", [color("blue")]),
        ("black white dress", "dress", [color("black"), color("white")]),
        ("red shoes under 40", "shoes", [price(lt=40), color("red")]),
        ("dress between $20 and 30.50 euros", "dress", [price(gte=20, lte=30.5)]),
        ("coat over 1,200", "coat", [price(gt=1200)]),
        ("coat up  to 19,90€", "coat", [price(lte=19.9)]),
        ("hat at least 5 dollars, no more than 9", "hat ,", [price(lte=9), price(gte=5)]),
        ("red under 40", "red", [price(lt=40)]),  # something must be left to rank by
        *(
            (text, text, [])
            for text in (
                *("red", "under 40", "the red", "a red panda", "black and white photo of a dog", "white and black dress"),
                *("orange", "orange juice", "a box under 40 cm", "over 9 years old", "shoes under", "redshoes", "under 40x"),
            )
        ),
    ],
)
def test_colors_and_prices(text: str, rest: str, clauses: list[dict[str, Any]]) -> None:
    understood = understand_text(text, FIELDS)
    assert (understood.text, [condition.clause for condition in understood.conditions]) == (rest, clauses)
    assert all(condition.text.lower() in text.lower() for condition in understood.conditions)
    assert understand_text(text, SearchFields()).text == text


def test_a_caption_may_say_the_color() -> None:
    [condition] = understand_text("red shoes", SearchFields(text="title", colors="colors")).conditions
    assert condition.clause["bool"]["should"] == [color("red"), {"match_phrase": {"title": "red"}}]
