"""Texts with a token table: words, phrases, combined weights, and the file."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.model.vocabularies.token_table import TokenTable, split_words, write_token_table
from stair_es.taught_words import TaughtMode, TaughtWord
from stair_es.types import SparseVector

ROWS = {
    "red": [("red", 900)],
    "fire": [("fire", 800), ("smoke", 200)],
    "truck": [("truck", 1000), ("car", 400)],
    "fire truck": [("firetruck", 1500), ("truck", 1000)],
    "car": [("car", 1000)],
    "ash": [("ash", 200), ("smoke", 300)],
}
TABLE = TokenTable(model_id="toy-1", max_words=2, max_tokens=3, rows=ROWS)


def build_unit_vector(**weights: int) -> SparseVector:
    """Return the vector of a text with these sums."""
    length = math.sqrt(sum(weight**2 for weight in weights.values()))
    return SparseVector.from_mapping({token: round(weight / length, 5) for token, weight in weights.items()})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Red-Fire truck's", ["a", "red", "fire", "truck", "s"]),
        ("cafe\u0301 CAFÉ ﬁre", ["cafe", "cafe", "fire"]),
        ("İstanbul straße", ["istanbul", "straße"]),
        ("fire, truck", ["fire", ".", "truck"]),
        ("fire2truck_❶x²", ["fire", ".", "truck", ".", ".", "x", "."]),
        ("fire\u00a0truck\n犬🚒", ["fire", "truck", "犬", "."]),
        (" \t\r\n'’-", []),
    ],
)
def test_words_are_split(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a RED car", build_unit_vector(red=900, car=1000)),
        ("fire truck", build_unit_vector(firetruck=1500, truck=1000)),
        ("fire-truck fire", build_unit_vector(firetruck=1500, truck=1000, fire=800)),
        ("fire. truck", build_unit_vector(truck=1000, fire=800, car=400)),
        ("truck car car", build_unit_vector(car=1000, truck=1000)),
        ("fire ash", build_unit_vector(fire=800, smoke=300, ash=200)),
        ("red fire truck car", build_unit_vector(firetruck=1500, car=1000, truck=1000)),
        ("", SparseVector((), ())),
        ("unknown words", SparseVector((), ())),
    ],
)
def test_the_longest_phrases_and_the_largest_weights_count(text: str, expected: SparseVector) -> None:
    assert TABLE.encode_text(text) == expected


def test_taught_words_are_added() -> None:
    modes: dict[str, TaughtMode] = {"art nouveau red van": "replace", "red": "add", "model 7": "replace"}
    words = [
        TaughtWord(word=word, tokens={"big": 1.0}, floor=0.1, full=1.0, model=TABLE.model_id, mode=mode)
        for word, mode in modes.items()
    ]
    table = TABLE.add_words(words)
    heaviest = max(weight for row in TABLE.rows.values() for _, weight in row)
    assert table.max_words == 4
    assert table.rows == {
        **TABLE.rows,
        "art nouveau red van": (("#art nouveau red van", heaviest),),
        "red": (("#red", heaviest), *TABLE.rows["red"]),
    }
    with expect_error("taught-for-other-model"):
        TABLE.add_words([replace(words[0], model="other-1")])


def test_ties_are_cut_in_alphabetical_order() -> None:
    table = TokenTable(model_id="toy-1", max_words=1, max_tokens=2, rows={"x": [("b", 1), ("c", 1), ("a", 1)]})
    assert table.encode_text("x").tokens == ("a", "b")


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    plain, compressed, again = (tmp_path / name for name in ("table.tsv", "table.tsv.gz", "again.tsv.gz"))
    assert write_token_table(TABLE, plain) == plain.stat().st_size
    assert write_token_table(TABLE, compressed) == compressed.stat().st_size
    write_token_table(TABLE, again)
    head, _, body = plain.read_text(encoding="utf-8").partition("\n\n")
    assert dict(line.split("\t") for line in head.split("\n")) == {
        "stair-es-table": "1",
        "model": "toy-1",
        "max_words": "2",
        "max_tokens": "3",
    }
    rows = [line.split("\t") for line in body.removesuffix("\n").split("\n")]
    expected = [[text, *(str(cell) for pair in ROWS[text] for cell in pair)] for text in sorted(ROWS)]
    assert rows == expected
    assert gzip.decompress(compressed.read_bytes()) == plain.read_bytes()
    assert again.read_bytes() == compressed.read_bytes()
