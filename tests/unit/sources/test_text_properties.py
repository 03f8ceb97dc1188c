"""Globs, lines and rows of any text, compared with other readers of them."""

from __future__ import annotations

import csv
import io
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.strategies import TOKENS, limit_examples

from stair_es.cli.output.csv import format_csv
from stair_es.sources.base import SourceItem, SourceOptions
from stair_es.sources.io.glob import GlobPattern
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.kinds.csv import KIND

MAX_LINE_BYTES = 12
_NAMES = st.text(".abA1-", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
_GLOB_PIECES = st.sampled_from(("*", "?", "[a-b]", "[!a]", "[", ".", "a", "b"))
_GLOB_PARTS = st.sampled_from(("**", "*", ".*")) | st.lists(_GLOB_PIECES, min_size=1, max_size=4).map("".join)


def match_glob(parts: list[str], names: list[str], *, hidden: bool) -> bool:
    """Match a path with a glob by trying each number of folders for `**`."""
    if not parts or not names:
        return not names and all(part == "**" for part in parts)
    [part, *rest], [name, *below] = parts, names
    is_hidden = name.startswith(".") and not hidden
    if part == "**":
        return match_glob(rest, names, hidden=hidden) or (not is_hidden and match_glob(parts, below, hidden=hidden))
    return fnmatchcase(name, part) and (not is_hidden or part.startswith(".")) and match_glob(rest, below, hidden=hidden)


@limit_examples(2)
@example(parts=[".*"], names=[".a"], hidden=False)
@example(parts=["*"], names=[".a"], hidden=False)
@given(parts=st.lists(_GLOB_PARTS, min_size=1, max_size=4), names=st.lists(_NAMES, min_size=1, max_size=4), hidden=st.booleans())
def test_globs_match_name_by_name_as_whole_paths(parts: list[str], names: list[str], hidden: bool) -> None:
    pattern = GlobPattern(parts, hidden=hidden)
    states = pattern.start_states
    for name in names:
        states = pattern.match_name(states, name)
    assert pattern.is_complete(states) == match_glob(parts, names, hidden=hidden)


_LINES = st.tuples(st.text("ab #\t", max_size=MAX_LINE_BYTES + 5), st.sampled_from(("\n", "\r\n")))


@given(lines=st.lists(_LINES), has_end=st.booleans(), mark=st.sampled_from((b"", b"\xef\xbb\xbf")))
def test_lines_are_those_of_the_file_without_blank_ones(lines: list[tuple[str, str]], has_end: bool, mark: bytes) -> None:
    assume(not mark or not lines or len(lines[0][0]) <= MAX_LINE_BYTES - len(mark))
    data = mark + "".join(map("".join, lines)).encode()
    contents = [(number, content.encode()) for number, (content, _) in enumerate(lines, 1)]
    expected = [
        (number, content if len(content) <= MAX_LINE_BYTES else None)
        for number, content in contents
        if len(content) > MAX_LINE_BYTES or (content.strip() and not content.lstrip().startswith(b"#"))
    ]
    file = io.BytesIO(data if has_end else data.removesuffix(b"\n").removesuffix(b"\r"))
    assert [*read_numbered_lines(file, MAX_LINE_BYTES, b"#")] == expected


_VALUES = TOKENS.filter(lambda text: "\0" not in text)


@limit_examples(0.5)
@given(rows=st.lists(st.tuples(_VALUES, _VALUES)), delimiter=st.sampled_from(",;\t|"))
def test_rows_of_csv_files_keep_their_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    """Values may contain quotes, line ends and delimiters."""
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    table = [("file", "a", "b"), *(("x.jpg", *row) for row in rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(table)
    options = SourceOptions(columns={"a": "a", "b": "b"})
    items = [item for item in KIND.open(str(path), options).list_items() if isinstance(item, SourceItem)]
    assert [(item.fields.get("a") or "", item.fields.get("b") or "") for item in items] == rows


_MARKS = ("'", "=", "+", "-", "@", "\t", "\r", "\n")
_TEXTS = TOKENS | st.tuples(st.sampled_from(_MARKS), TOKENS).map("".join)
_CELLS = _TEXTS | st.integers() | st.booleans() | st.none() | st.floats()


@given(rows=st.lists(st.lists(_CELLS, min_size=2, max_size=2)))
def test_cells_survive_their_output_as_csv(rows: list[list[str | int | float | bool | None]]) -> None:
    """A text that a spreadsheet would run, or that has a quote mark in front, gets one."""
    table = format_csv(("a", "b"), rows)
    header, *read = csv.reader(io.StringIO(table, newline=""), strict=True)
    assert header == ["a", "b"]
    for row, cells in zip(rows, read, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, str):
                assert cell == (f"'{value}" if value.startswith(_MARKS) else value)
            elif isinstance(value, bool):
                assert cell == str(value).lower()
            else:
                assert cell == ("" if value is None else str(value))
