"""Logs of searches, and which words their index lacks, with answers that are given."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.eval import search_log
from stair_es.eval.coverage import AnswerKind, SearchAnswer, SearchCoverage, build_coverage_report, compute_coverage
from stair_es.eval.search_log import SearchLog, read_search_log
from stair_es.model.vocabularies.unknown_words import UnknownWord
from stair_es.web.coverage import read_coverage_report

MIN_WEIGHT = 0.25
WEIGHTS = {"cat": 0.8, "red": 0.3, "windmill": 0.1, "castle": 0.0, "hat": 0.5}
UNKNOWN = {
    word: UnknownWord(word=word, suggestions=("acne",), searched_for=other) for word, other in {"acme": "", "gato": "cat"}.items()
}


@pytest.mark.parametrize(
    ("lines", "searches"),
    [
        pytest.param(["red dress", "hat", "red  dress "], {"red dress": 2, "hat": 1}, id="a search a line"),
        pytest.param(["Hat", "hat"], {"Hat": 1, "hat": 1}, id="as typed"),
        pytest.param(["3\tred dress", "hat\t 12", "hat", "0\tshoe"], {"hat": 13, "red dress": 3}, id="tabs"),
        pytest.param(["501\t7"], {"7": 501}, id="two numbers"),
        pytest.param(["red\tdress"], {"red dress": 1}, id="a tab without a number"),
        pytest.param(["      2 hat", "     12 501 jeans", "      9"], {"501 jeans": 12, "hat": 2}, id="uniq -c"),
        pytest.param(["1234 hat", " 999 red dress"], {"hat": 1234, "red dress": 999}, id="uniq -c with narrow numbers"),
        pytest.param(["501 jeans", "hat"], {"501 jeans": 1, "hat": 1}, id="a number that is searched"),
        pytest.param(
            [" 501 jeans", "hat", "7 dwarfs", "shoe"], dict.fromkeys(("501 jeans", "hat", "7 dwarfs", "shoe"), 1), id="few"
        ),
    ],
)
def test_lines_become_searches(lines: list[str], searches: Mapping[str, int], tmp_path: Path) -> None:
    for path, text in ((tmp_path / "a.log", "\n".join(lines).encode()), (tmp_path / "a.log.gz", "\r\n\n".join(lines).encode())):
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        assert list(read_search_log(str(path)).searches.items()) == list(searches.items())


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_log, "MAX_LOG_LINES", 2)
    path = tmp_path / "a.log"
    path.write_bytes(b"hat\n\xff\ncap\nshoe\nhat\nbag\n" + b"x" * 2049 + b"\n \n" + b"\xff" * 9)
    log = read_search_log(str(path))
    assert (log.searches, log.left_out, sorted(log.skipped.values())) == ({"hat": 2, "cap": 1}, 2, [1, 2])


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\n", b"0\that\n"])
def test_a_log_without_searches_is_rejected(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    with expect_error("no-searches", UsageError):
        read_search_log(str(path))


def cover_log(*searches: tuple[str, int, AnswerKind]) -> SearchCoverage:
    """Return the coverage of queries, of which each word is in `WEIGHTS` or `UNKNOWN`."""
    answers = {}
    for query, _, kind in searches:
        words = query.split()
        unknown = [UNKNOWN[word] for word in words if word in UNKNOWN]
        known = {word: (word,) for word in words if word in WEIGHTS}
        answers[query] = SearchAnswer(kind=kind, code="a-code" * (kind == "error"), unknown_words=unknown, words=known)
    log = SearchLog(searches={query: count for query, count, _ in searches}, skipped={"not UTF-8": 2}, left_out=3)
    return compute_coverage(log, answers, WEIGHTS, min_weight=MIN_WEIGHT)


@pytest.mark.parametrize(
    ("searches", "gaps"),
    [
        pytest.param([("red cat", 5, "match")], {}, id="no gap"),
        pytest.param([("cat acme", 5, "match"), ("acme", 3, "nothing")], {"unknown": [("acme", 8, 5, "acme")]}, id="unknown"),
        pytest.param([("gato", 5, "match")], {"unknown": [("gato", 5, 5, "gato")]}, id="translated"),
        pytest.param(
            [("windmill", 5, "only_weak"), ("castle", 5, "match"), ("red windmill", 1, "only_weak")],
            {"not_carried": [("windmill", 6, 0, "windmill"), ("castle", 5, 5, "castle")]},
            id="not carried",
        ),
        pytest.param(
            [("hat", 5, "only_weak"), ("red hat", 3, "nothing"), ("red", 1, "match")],
            {"only_weak": [("hat", 8, 0, "hat")]},
            id="only weak",
        ),
        pytest.param(
            [("hat acme", 5, "only_weak"), ("cat windmill", 3, "only_weak"), ("red", 1, "error")],
            {"unknown": [("acme", 5, 0, "hat acme")], "not_carried": [("windmill", 3, 0, "cat windmill")]},
            id="another word explains it",
        ),
        pytest.param(
            [("hat gato", 5, "only_weak")],
            {"unknown": [("gato", 5, 0, "hat gato")], "only_weak": [("hat", 5, 0, "hat gato")]},
            id="a translated word explains nothing",
        ),
    ],
)
def test_words_have_one_gap(searches: list[tuple[str, int, AnswerKind]], gaps: Mapping[str, Any]) -> None:
    found = {
        gap: [(each.word, each.searches, each.matched, each.example) for each in words]
        for gap, words in cover_log(*searches).words.items()
        if words
    }
    assert found == gaps


@pytest.mark.parametrize(("min_weight", "missing"), [(0.0, ["castle"]), (0.25, ["castle", "windmill"])])
def test_words_are_carried_from_the_weight_of_the_model(min_weight: float, missing: list[str]) -> None:
    weights = {**WEIGHTS, "##ish": None}
    log = SearchLog(searches={"all": 1}, skipped={}, left_out=0)
    answers = {"all": SearchAnswer(kind="match", words={word: (word,) for word in weights})}
    words = compute_coverage(log, answers, weights, min_weight=min_weight).words
    assert [each.word for each in words["not_carried"]] == missing


def test_the_report_has_shares_of_all_searches(tmp_path: Path) -> None:
    coverage = cover_log(("cat", 6, "match"), ("acme", 2, "no_known_word"), ("gato +", 1, "error"), ("hat", 1, "only_weak"))
    report = build_coverage_report(coverage, index="shop", model_id="m@1", top=1, has_weak=False, seconds=1.0)
    values = report.to_dict()
    assert {name: values[name] for name in ("index", "model", "searches", "queries", "left_out", "skipped", "errors")} == {
        **{"index": "shop", "model": "m@1", "searches": 10, "queries": 4},
        **{"left_out": 3, "skipped": {"not UTF-8": 2}, "errors": {"a-code": 1}},
    }
    assert {kind: (each["share"], each["queries"]) for kind, each in values["answers"].items()} == {
        **{"match": (0.6, 1), "only_weak": (0.1, 1), "nothing": (0.0, 0)},
        **{"no_known_word": (0.2, 1), "error": (0.1, 1)},
    }
    assert [(each["query"], each["answer"]) for each in values["without_match"]] == [
        ("acme", "no_known_word"),
        ("gato +", "error"),
        ("hat", "only_weak"),
    ]
    [acme, gato] = values["words"]["unknown"]
    assert (acme["word"], acme["share"], acme["suggestions"], acme["searched_for"]) == ("acme", 0.2, ["acne"], None)
    assert (gato["word"], gato["largest_weight"], gato["searched_for"]) == ("gato", None, "cat")
    assert values["words"]["only_weak"][0]["largest_weight"] == 0.5
    assert len(values["remarks"]) == 4
    (tmp_path / "coverage.json").write_text(json.dumps(values))
    shown = msgspec.to_builtins(read_coverage_report(tmp_path / "coverage.json"))
    assert shown == {name: values[name] for name in shown}
    [answers, unknown, weak] = report.tables
    assert answers.rows[0][1:] == ("60.0", "6", "1")
    assert [row[:4] for row in unknown.rows] == [("acme", "20.0", "2", "0")]
    assert [row[:5] for row in weak.rows] == [("hat", "10.0", "1", "0", "0.50")]
