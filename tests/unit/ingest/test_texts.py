"""Sources of texts: parsed texts and failures; and equal texts."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from stair_es.errors import UsageError
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.state import Outcome, Pending
from stair_es.ingest.texts import EqualTexts, open_text_source
from stair_es.sources.base import ListingFailure, ReadLimits, Source, SourceItem
from stair_es.sources.io.local_file import InlineBytes
from stair_es.types import TextFormat


def read(source: Source) -> tuple[dict[str, str], dict[str, str]]:
    """Position -> text, and position -> reason."""
    texts, reasons = {}, {}
    for found in source.list_items():
        where = found.uri.rpartition("#")[2]
        if isinstance(found, ListingFailure):
            reasons[where] = found.reason
        else:
            content = found.locator.read(ReadLimits())
            assert content is not None
            texts[where] = content.data.decode()
            assert found.fields["caption"] == texts[where]
            assert found.source == source.uri
    return texts, reasons


def test_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa dog\r\n\n  zwei Löwen \n\xff\n".encode().replace("ÿ".encode(), b"\xff") + b"x" * (1 << 21))
    texts, reasons = read(open_text_source(str(path)))
    assert texts == {"line=1": "a dog", "line=3": "zwei Löwen"}
    assert reasons == {"line=4": "not UTF-8", "line=5": "the line is too long"}
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(b"one\ntwo"))
    assert read(open_text_source(str(packed)))[0] == {"line=1": "one", "line=2": "two"}
    assert read(open_text_source(str(tmp_path / "*.txt")))[0] == texts


def test_json_lines_with_one_text_or_several(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "one", "price": 3.5, "tags": ["x"], "image": "a.jpg", "source": "s", "big": 1e999}\n'.replace("1e999", "null")
        + '{"captions": ["two", "", 3, "three"], "n": 1}\n{"captions": "four"}\n{"n": 2}\nno\n{"caption": ""}\n'
    )
    source = open_text_source(str(path))
    texts, reasons = read(source)
    assert texts == {"line=1": "one", "line=2&text=1": "two", "line=2&text=2": "three", "line=3": "four"}
    assert set(reasons) == {"line=4", "line=5", "line=6"}
    assert "n" in reasons["line=4"]
    items = {item.uri.rpartition("#")[2]: item for item in SourceStream([source]) if isinstance(item, SourceItem)}
    assert items["line=1"].fields == {"caption": "one", "price": 3.5, "image": "a.jpg"}
    assert items["line=2&text=2"].fields == {"caption": "three", "n": 1}


def test_a_named_column(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("title;text;price\nred shoes;no;3\nonly one\n;x;4\n")
    texts, reasons = read(open_text_source(str(table), column="title"))
    assert texts == {"line=2": "red shoes"}
    assert reasons == {"line=3": "1 values in 3 columns", "line=4": "no text in column 'title'"}
    assert read(open_text_source(str(table)))[0] == {"line=2": "no", "line=4": "x"}
    with pytest.raises(UsageError, match="no column 'name'") as failed:
        read(open_text_source(str(table), column="name"))
    assert failed.value.remedy == "It has: title, text, price. Choose with --text-column."
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "one"}')
    with pytest.raises(UsageError, match="no column 'name'"):
        read(open_text_source(str(lines), column="name"))
    plain = tmp_path / "a.txt"
    plain.write_text("one")
    with pytest.raises(UsageError, match="no column 'name'"):
        open_text_source(str(plain), column="name")


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
    assert read(open_text_source("-", format_)) == (texts, {})


def test_a_thread_that_waits_for_standard_input_lets_the_process_end() -> None:
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
    with pytest.raises(UsageError, match="look like JSON Lines"):
        read(open_text_source("-"))


def test_an_unknown_source_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(UsageError, match="can't detect the format"):
        open_text_source(str(tmp_path / "a.pdf"))
    with pytest.raises(UsageError, match="no such file"):
        open_text_source(str(tmp_path / "gone.txt"))
    assert read(open_text_source(str(tmp_path / "a.pdf"), "txt"))[0] == {"line=1": "x"}


def make_pending(line: int, text: str) -> Pending:
    return Pending(SourceItem(f"a.txt#line={line}", "a.txt", InlineBytes(text.encode())))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("written", ("unchanged", "1", "")), ("unchanged", ("unchanged", "1", "")), ("failed", ("failed", "", "x"))],
)
def test_equal_texts_wait_for_the_first(kind: Literal["written", "unchanged", "failed"], expected: tuple[str, str, str]) -> None:
    texts = EqualTexts(lambda _: False)
    first, other, again = make_pending(1, "a dog"), make_pending(2, "a cat"), make_pending(3, "a dog")
    assert (texts.route_image(first), texts.route_image(other), texts.route_image(again)) == (first, other, None)
    assert (len(texts), texts.due_in_s) == (1, None)
    assert texts.observe_result(other, Outcome(other.item, "written", "write", id="2")) == []
    outcome = Outcome(first.item, kind, "encode", "x") if kind == "failed" else Outcome(first.item, kind, "write", id="1")
    [waited] = texts.observe_result(first, outcome)
    assert (waited.item, (waited.kind, waited.id, waited.reason)) == (again.item, expected)
    assert (len(texts), texts.route_image(first)) == (0, first)


def test_texts_of_earlier_batches_are_unchanged() -> None:
    seen: list[str] = []
    texts = EqualTexts(lambda id_: seen.append(id_) or True)  # type: ignore[func-returns-value]
    outcome = texts.route_image(make_pending(1, "a dog"))
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, [outcome.id]) == ("unchanged", seen)


def test_waiting_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.ingest.texts.MAX_WAITING_TEXTS", 2)
    texts = EqualTexts(lambda _: False)
    for line in range(3):
        assert not texts.is_full
        texts.route_image(make_pending(line, "a dog"))
    assert texts.is_full
