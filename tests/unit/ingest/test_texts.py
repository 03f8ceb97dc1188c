"""Sources of texts: parsed texts and failures; and equal texts."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.state import Outcome, Pending
from stair_es.ingest.texts import EqualTexts, open_text_source
from stair_es.sources.base import ListingFailure, ReadLimits, Source, SourceItem
from stair_es.sources.io.local_file import InlineBytes
from stair_es.types import TextFormat


def read_texts(source: Source) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts and the reasons of failures, by position."""
    texts, reasons = {}, {}
    for found in source.list_items():
        position = found.uri.rpartition("#")[2]
        if isinstance(found, ListingFailure):
            reasons[position] = found.reason
        else:
            content = found.locator.read(ReadLimits())
            assert content is not None
            texts[position] = content.data.decode()
            assert (found.fields["caption"], found.source) == (texts[position], source.uri)
    return texts, reasons


def test_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa dog\r\n\n  zwei Löwen \n\xff\n".encode().replace("ÿ".encode(), b"\xff") + b"x" * (1 << 21))
    texts, reasons = read_texts(open_text_source(str(path)))
    assert texts == {"line=1": "a dog", "line=3": "zwei Löwen"}
    assert list(reasons) == ["line=4", "line=5"]
    assert "UTF-8" in reasons["line=4"]
    assert "long" in reasons["line=5"]
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(b"one\ntwo"))
    assert read_texts(open_text_source(str(packed)))[0] == {"line=1": "one", "line=2": "two"}
    assert read_texts(open_text_source(str(tmp_path / "*.txt")))[0] == texts


def test_json_lines_with_one_text_or_several(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "one", "price": 3.5, "tags": ["x"], "image": "a.jpg", "source": "s", "big": 1e999}\n'.replace("1e999", "null")
        + '{"captions": ["two", "", 3, "three"], "n": 1}\n{"captions": "four"}\n{"n": 2}\nno\n{"caption": ""}\n'
    )
    source = open_text_source(str(path))
    texts, reasons = read_texts(source)
    assert texts == {"line=1": "one", "line=2&text=1": "two", "line=2&text=2": "three", "line=3": "four"}
    assert set(reasons) == {"line=4", "line=5", "line=6"}
    assert "n" in reasons["line=4"]
    items = {item.uri.rpartition("#")[2]: item for item in SourceStream([source]) if isinstance(item, SourceItem)}
    assert items["line=1"].fields == {"caption": "one", "price": 3.5, "image": "a.jpg"}
    assert items["line=2&text=2"].fields == {"caption": "three", "n": 1}


def test_a_column_is_chosen_by_name(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("title;text;price\nred shoes;no;3\nonly one\n;x;4\n")
    texts, reasons = read_texts(open_text_source(str(table), column="title"))
    assert texts == {"line=2": "red shoes"}
    assert list(reasons) == ["line=3", "line=4"]
    assert re.findall(r"\d+", reasons["line=3"]) == ["1", "3"]  # values, columns
    assert "title" in reasons["line=4"]
    assert read_texts(open_text_source(str(table)))[0] == {"line=2": "no", "line=4": "x"}


@pytest.mark.parametrize(
    ("name", "content", "code", "in_remedy"),
    [
        ("a.csv", "title;text;price\nred shoes;no;3\n", "no-such-column", ("title, text, price", "--text-column")),
        ("a.jsonl", '{"text": "one"}', "no-such-column", ("text", "--text-column")),
        ("a.txt", "one", "lines-have-no-columns", ("--format jsonl",)),
    ],
)
def test_unknown_columns_are_rejected(tmp_path: Path, name: str, content: str, code: str, in_remedy: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content)
    with expect_error(code, UsageError) as caught:
        read_texts(open_text_source(str(tmp_path / name), column="name"))
    assert "'name'" in caught.value.message
    assert all(fact in caught.value.remedy for fact in in_remedy)


@pytest.mark.parametrize(
    ("format_", "text", "texts"),
    [
        (None, "a dog\na cat", {"line=1": "a dog", "line=2": "a cat"}),
        ("jsonl", '{"text": "a dog"}', {"line=1": "a dog"}),
        ("csv", "text\na dog", {"line=2": "a dog"}),
    ],
)
def test_standard_input(set_stdin: Callable[[str], None], format_: TextFormat | None, text: str, texts: dict[str, str]) -> None:
    set_stdin(text)
    assert read_texts(open_text_source("-", format_)) == (texts, {})


def test_reading_standard_input_lets_the_process_end() -> None:
    code = (
        "import sys, threading\nfrom stair_es.ingest.texts import open_text_source\nseen = threading.Event()\n"
        "def read():\n    for _ in open_text_source('-').list_items():\n        seen.set()\n"
        "threading.Thread(target=read, daemon=True).start()\nseen.wait(60)\nsys.exit(3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"a dog\n" * 10_000)
        process.stdin.flush()
        assert process.wait(120) == 3


def test_json_on_stdin_is_not_text(set_stdin: Callable[[str], None]) -> None:
    set_stdin('{"text": "a dog"}')
    with expect_error("texts-look-like-other-format"):
        read_texts(open_text_source("-"))


def test_an_unknown_source_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"x")
    with expect_error("unknown-text-format"):
        open_text_source(str(tmp_path / "a.pdf"))
    with expect_error("no-such-file"):
        open_text_source(str(tmp_path / "gone.txt"))
    assert read_texts(open_text_source(str(tmp_path / "a.pdf"), "txt"))[0] == {"line=1": "x"}


def build_pending(line: int, text: str) -> Pending:
    return Pending(SourceItem(f"a.txt#line={line}", "a.txt", InlineBytes(text.encode())))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("written", ("unchanged", "1", "")), ("unchanged", ("unchanged", "1", "")), ("failed", ("failed", "", "x"))],
)
def test_equal_texts_wait_for_the_first(kind: Literal["written", "unchanged", "failed"], expected: tuple[str, str, str]) -> None:
    texts = EqualTexts(lambda _: False)
    first, other, again = build_pending(1, "a dog"), build_pending(2, "a cat"), build_pending(3, "a dog")
    assert (texts.route_image(first), texts.route_image(other), texts.route_image(again)) == (first, other, None)
    assert (len(texts), texts.due_in_s) == (1, None)
    assert texts.observe_result(other, Outcome(other.item, "written", "write", id="2")) == []
    outcome = Outcome(first.item, kind, "encode", "x") if kind == "failed" else Outcome(first.item, kind, "write", id="1")
    [waited] = texts.observe_result(first, outcome)
    assert (waited.item, (waited.kind, waited.id, waited.reason)) == (again.item, expected)
    assert (len(texts), texts.route_image(first)) == (0, first)


def test_texts_of_earlier_batches_are_unchanged() -> None:
    checked_ids: list[str] = []
    texts = EqualTexts(lambda id_: checked_ids.append(id_) or True)  # type: ignore[func-returns-value]
    outcome = texts.route_image(build_pending(1, "a dog"))
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, [outcome.id]) == ("unchanged", checked_ids)


def test_waiting_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.ingest.texts.MAX_WAITING_TEXTS", 2)
    texts = EqualTexts(lambda _: False)
    for line in range(3):
        assert not texts.is_full
        texts.route_image(build_pending(line, "a dog"))
    assert texts.is_full
