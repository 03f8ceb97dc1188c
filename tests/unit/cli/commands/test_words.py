"""The vocabulary of a corpus in a terminal, as JSON and as CSV: values in, text out."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from rich.cells import cell_len

from stair_es.cli.commands.words import VocabularyView, build_vocabulary_rows, build_vocabulary_view, format_vocabulary, to_json
from stair_es.cli.output.bars import TerminalInfo
from stair_es.cli.output.console import emit_json
from stair_es.cli.output.csv import escape_formula, format_csv
from stair_es.inspection.token_stats import StatsAccumulator
from stair_es.inspection.vocabulary_stats import DocumentSample, ModelVocabulary, VocabularyStats
from stair_es.search.index_info import IndexInfo
from stair_es.token_policy import TokenPolicy
from stair_es.types import StatsOrder

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted", "=cmd|' /C calc'!A0")
HOSTILE = ("a,b", 'say "so"', "two\nlines", "\x1b[31mred", "[bold]not markup[/bold]", "犬", "")


def build_view(
    images: dict[str, dict[str, float]],
    *,
    match: str = "",
    min_df: int = 1,
    order: StatsOrder = "df",
    policy: TokenPolicy | None = None,
    sample: DocumentSample | None = None,
    content_type: str = "images",
) -> VocabularyView:
    accumulator = StatsAccumulator()
    for uri, words in images.items():
        accumulator.add_image(words, uri)
    stats = VocabularyStats(
        documents=accumulator.images + 1,
        without_uri=1,
        images=accumulator.images,
        empty=accumulator.empty,
        mean_tokens=accumulator.occurrences / accumulator.images if accumulator.images else 0.0,
        token_stats=accumulator.compute_stats(),
        sample=sample,
    )
    info = IndexInfo(fields={}, model="m-1", model_name="m", policy=policy, content_type=content_type)
    vocabulary = ModelVocabulary(tokens=frozenset({"cat", "dog", "dodo", "dolphin"}), source="m-1")
    return build_vocabulary_view(stats, info, vocabulary, uniformity=0.5, order=order, min_df=min_df, match=match)


PETS = {
    **{f"file:///p/{i}.jpg": {"animal": 0.5, "cat": 0.25} for i in range(15)},
    **{f"file:///p/dog-{i}.jpg": {"animal": 0.5, "dog": 0.75 if i == 3 else 0.25} for i in range(5)},
}


def format_lines(view: VocabularyView, k: int = 30, width: int = 120, encoding: str = "utf-8") -> list[str]:
    return [line.plain for line in format_vocabulary(view, k, "pets", TerminalInfo(width=width, encoding=encoding))]


def read_numbers(line: str) -> list[str]:
    return re.findall(r"(?<![\w-])\d+(?:\.\d+)?", line)


def list_tokens(view: VocabularyView) -> list[str]:
    return [row.token for row in view.rows]


def test_a_table_for_people() -> None:
    head, titles, animal, cat, dog, stop, unused = format_lines(build_view(PETS))
    assert (head.split()[0], read_numbers(head), head.endswith("(m-1)")) == ("pets:", ["20", "2.0", "3"], True)
    assert titles.split() == ["token", "images", "mean", "max", "share", "uniformity", "heaviest", "in"]
    assert animal.split()[0] == "animal"
    assert animal.split()[2:] == ["20", "100.0", "%", "0.5000", "0.5000", "64.52", "%", "1.00", "0.jpg"]
    assert cat.split()[2:] == ["15", "75.0", "%", "0.2500", "0.2500", "24.19", "%", "0.75", "0.jpg"]
    assert dog.split()[2:] == ["5", "25.0", "%", "0.3500", "0.7500", "11.29", "%", "0.19", "dog-3.jpg"]
    assert (read_numbers(stop), stop.endswith(": animal, cat")) == (["2", "0.5", "88.7"], True)
    assert (read_numbers(unused), "m-1" in unused, "--unused" in unused) == (["2", "4"], True, True)


@pytest.mark.parametrize(("content_type", "one"), [("texts", "text"), ("documents", "document")])
def test_texts_are_not_called_images(content_type: str, one: str) -> None:
    views = [
        build_view(PETS, content_type=content_type),
        build_view(PETS, content_type=content_type, match="zebra"),
        build_view({"a": {}}, content_type=content_type),
    ]
    output = "\n".join(line for view in views for line in format_lines(view))
    for counted in (f" 20 {content_type}", f" per {one},", f"1 {content_type} "):
        assert counted in output
    assert "image" not in output


@pytest.mark.parametrize("width", [1, 40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_control_characters_in_a_word_or_a_uri_are_escaped(width: int, encoding: str) -> None:
    images = {f"file:///a%0A{word}.jpg\x1b[2J": {word: 1.0} for word in (*FORMULAS, *HOSTILE)}
    lines = format_lines(build_view(images), width=width, encoding=encoding)
    assert len(lines) == 3 + len(images)
    assert not [line for line in lines if "\x1b" in line or len(line.splitlines()) != 1]
    "".join(lines).encode(encoding)


def test_columns_are_aligned_for_any_words() -> None:
    images = {f"u{number}": {"犬": 1.0, "dog": 0.5, "w" * 300: 0.1} for number in range(3)}
    lines = format_lines(build_view(images), width=60)[2:5]
    assert len({cell_len(line.rpartition(" %  ")[0]) for line in lines}) == 1
    assert all(cell_len(line) < 120 for line in lines)


def test_only_requested_rows_and_the_number_of_others() -> None:
    _, _, animal, cat, others, *_ = format_lines(build_view(PETS), k=2)
    assert (animal.split()[0], cat.split()[0], read_numbers(others)) == ("animal", "cat", ["1"])
    assert list_tokens(build_view(PETS, min_df=15)) == ["animal", "cat"]
    assert list_tokens(build_view(PETS, match="d*")) == ["dog"]
    assert list_tokens(build_view(PETS, order="max")) == ["dog", "animal", "cat"]
    assert build_view(PETS, match="dod").unused == ("dodo",)
    assert build_view(PETS, match="dod").unused_count == 2
    assert "--match" in format_lines(build_view(PETS, match="zebra"))[1]
    assert "--match" not in "\n".join(format_lines(build_view(PETS, match="d*")))
    assert [row.token for row in build_view(PETS, match="d*").stop_words] == ["animal", "cat"]


def test_samples_are_labeled_and_empty_index_is_ok() -> None:
    assert "sample" in format_lines(build_view(PETS, sample=DocumentSample(size=20)))[-1]
    head, unused = format_lines(build_view({}))
    assert (read_numbers(head), read_numbers(unused)) == (["0", "0.0", "0"], ["4", "4"])
    without_words = format_lines(build_view({"a": {}, "b": {}}))
    assert [read_numbers(line) for line in without_words] == [["2", "0.0", "0"], ["2"], ["4", "4"]]


def test_unused_words_that_a_policy_mutes_are_not_counted() -> None:
    assert build_view(PETS, policy=TokenPolicy(mute=("dodo",))).unused == ("dolphin",)


def test_json_has_all_figures_and_the_unused_words() -> None:
    values = json.loads(json.dumps(to_json(build_view(PETS, policy=TokenPolicy(name="p", mute=("x",))), 1, "pets")))
    assert values["tokens"] == [
        {
            "token": "animal",
            "images": 20,
            "image_share": 1.0,
            "mean_weight": 0.5,
            "max_weight": 0.5,
            "weight_share": pytest.approx(10 / 15.5),
            "uniformity": pytest.approx(1.0),
            "example": "file:///p/0.jpg",
        }
    ]
    assert values["unused"] == {
        "vocabulary": "m-1",
        "reason": None,
        "vocabulary_size": 4,
        "count": 2,
        "tokens": ["dodo", "dolphin"],
    }
    assert values["stop_words"] == {"threshold": 0.5, "tokens": ["animal", "cat"]}
    counts = {"documents": 21, "without_uri": 1, "images": 20, "missed_count": 0, "distinct_tokens": 3}
    assert {name: values[name] for name in counts} == counts
    assert values["policy"].startswith("p (")
    assert values["sample"] is None


def test_csv_can_be_read_back_and_has_no_formulas() -> None:
    images = {f"={word}": {word: 1.0} for word in (*FORMULAS, *HOSTILE)}
    table = format_csv(
        ["token", "images", "stop_word", "example"],
        ((r[0], r[1], r[7], r[8]) for r in build_vocabulary_rows(build_view(images), None)),
    )
    header, *rows = csv.reader(io.StringIO(table, newline=""))
    assert header[0] == "token"
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)
    assert {row[0].removeprefix("'") for row in rows} == {*FORMULAS, *HOSTILE}
    assert {(row[1], row[2]) for row in rows} == {("1", "false")}


def test_json_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"word": "\x1b[31m\x7f\x9b31m犬"})
    out = capsys.readouterr().out
    assert out == '{"word": "\\u001b[31m\\u007f\\u009b31m犬"}\n'
    assert json.loads(out) == {"word": "\x1b[31m\x7f\x9b31m犬"}


@pytest.mark.parametrize("word", [*FORMULAS, *HOSTILE, "'", "''", "dog", "##ing"])
def test_cells_without_a_quote_are_words(word: str) -> None:
    cell = escape_formula(word)
    assert (cell[1:] if cell.startswith("'") else cell) == word
