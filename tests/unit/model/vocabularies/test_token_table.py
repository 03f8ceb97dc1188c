"""Texts are looked up in a table: what counts as a word, which phrase wins, how weights are combined, and the file."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from stair_es.model.vocabularies.token_table import TokenTable, split_words, write_token_table
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


def scale(**weights: int) -> SparseVector:
    """Return what a text with these sums must give."""
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
        ("a RED car", scale(red=900, car=1000)),
        ("fire truck", scale(firetruck=1500, truck=1000)),
        ("fire-truck fire", scale(firetruck=1500, truck=1000, fire=800)),
        ("fire. truck", scale(truck=1000, fire=800, car=400)),
        ("truck car car", scale(car=1000, truck=1000)),
        ("fire ash", scale(fire=800, smoke=300, ash=200)),
        ("red fire truck car", scale(firetruck=1500, car=1000, truck=1000)),
        ("", SparseVector((), ())),
        ("nothing that is known", SparseVector((), ())),
    ],
)
def test_the_longest_phrases_and_the_largest_weights_count(text: str, expected: SparseVector) -> None:
    assert TABLE.encode_text(text) == expected


def test_ties_are_cut_in_alphabetical_order() -> None:
    table = TokenTable(model_id="toy-1", max_words=1, max_tokens=2, rows={"x": [("b", 1), ("c", 1), ("a", 1)]})
    assert table.encode_text("x").tokens == ("a", "b")


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    plain, compressed, again = (tmp_path / name for name in ("table.tsv", "table.tsv.gz", "again.tsv.gz"))
    assert write_token_table(TABLE, plain) == plain.stat().st_size
    assert write_token_table(TABLE, compressed) == compressed.stat().st_size
    write_token_table(TABLE, again)
    assert plain.read_text(encoding="utf-8").split("\n") == [
        *("stair-es-table\t1", "model\ttoy-1", "max_words\t2", "max_tokens\t3", ""),
        *("ash\tash\t200\tsmoke\t300", "car\tcar\t1000", "fire\tfire\t800\tsmoke\t200"),
        *("fire truck\tfiretruck\t1500\ttruck\t1000", "red\tred\t900", "truck\ttruck\t1000\tcar\t400", ""),
    ]
    assert gzip.decompress(compressed.read_bytes()) == plain.read_bytes()
    assert again.read_bytes() == compressed.read_bytes()
