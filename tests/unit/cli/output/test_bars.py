"""Lines for the terminal."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from stair_es.cli.output.bars import (
    TerminalInfo,
    display_path,
    escape_control,
    format_contributions,
    format_hit,
    format_weight,
    format_weights,
    render_bar,
)
from stair_es.search.results import Hit, TokenContribution, explain_score
from stair_es.types import SparseVector

WIDE = TerminalInfo(width=100)
STRANGE_PATH = "/photos/[bold]100% #1? ü 犬.jpg"


def test_a_bar_is_proportional() -> None:
    cells = [render_bar(fraction, 40).rstrip() for fraction in (1.0, 0.5, 0.25)]
    assert [len(c) for c in cells] == [40, 20, 10]
    assert render_bar(0.5125, 40).rstrip() == "█" * 20 + "▌"
    assert all(len(render_bar(fraction / 100, 40)) == 40 for fraction in range(101))
    # The smallest one can be seen.
    assert render_bar(1e-9, 40).rstrip() == "▏"
    assert render_bar(1e-9, 40, "ascii").rstrip() == "#"


def test_bars_of_a_terminal_without_unicode_are_ascii() -> None:
    lines = format_weights([("café", 2.0), ("b", 1.0)], TerminalInfo(width=60, encoding="ascii"))
    assert [line.plain.isascii() for line in lines] == [True, True]
    assert lines[0].plain.count("#") == 2 * lines[1].plain.count("#")
    assert "caf\\xe9" in lines[0].plain


def test_every_word_has_a_line_with_the_numbers_that_make_it() -> None:
    contributions = explain_score(SparseVector.from_mapping({"car": 1.5, "red": 0.5}), {"car": 2.0, "red": 1.0, "sky": 1.0})
    first, second = (line.plain for line in format_contributions(contributions, WIDE))
    assert "car" in first
    assert re.findall(r"[\d.]+", first) == ["1.5000", "2.0000", "3.0000"]
    assert re.findall(r"[\d.]+", second) == ["0.5000", "1.0000", "0.5000"]
    assert first.count("█") == 40
    assert second.count("█") == 6


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit_the_width_and_align(width: int) -> None:
    weights = [("犬", 3.0), ("a longer word", 2.0), ("", 1.0)]
    lines = format_weights(weights, TerminalInfo(width=width))
    assert max(line.cell_len for line in lines) <= width
    assert len({line.cell_len for line in lines}) == 1
    assert '""' in lines[2].plain


def test_narrow_terminals_get_short_bars() -> None:
    assert len(format_weights([("word", 1.0)], TerminalInfo(width=5))) == 1
    assert format_weights([], WIDE) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("\udc80", r"\udc80"),
        ("Straße 犬.jpg", "Straße 犬.jpg"),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escape_control(text) == shown


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///photos/red%20car.jpg", "/photos/red car.jpg"),
        ("file://localhost/a.jpg", "/a.jpg"),
        ("file:///a%0Ab.jpg", "/a\nb.jpg"),
        ("file:///a%FFb.jpg", "/a\\xffb.jpg"),
        ("file:///shard.tar#000.jpg", "/shard.tar#000.jpg"),
        ("file:///what%3F%23.jpg", "/what?#.jpg"),
        ("s3://bucket/a%20b.jpg", "s3://bucket/a%20b.jpg"),
        ("file://server/share/a.jpg", "file://server/share/a.jpg"),
        ("http://[broken", "http://[broken"),
        ("", ""),
        (Path(STRANGE_PATH).as_uri(), STRANGE_PATH),
    ],
)
def test_readable_uris(uri: str, path: str) -> None:
    assert display_path(uri) == path


def test_a_file_name_is_not_markup_and_can_t_send_escape_codes() -> None:
    hit = build_hit("file:///%5Bbold%20red%5Dx%5B%2Fbold%20red%5D%1B%5D0;owned%07%0A:smile:.jpg")
    shown = _print_lines(format_hit(1, hit, WIDE, explain=True), color=False)
    assert r"/[bold red]x[/bold red]\x1b]0;owned\x07\n:smile:.jpg" in shown
    assert "\x1b" not in shown


def test_only_harmless_uris_become_links() -> None:
    assert "\x1b]8;" in _print_lines(format_hit(1, build_hit("file:///a%20b.jpg"), WIDE, explain=False), color=True)
    for uri in ("file:///a\x1b]0;owned\x07.jpg", "javascript:alert(1)", "file:///ü.jpg"):
        assert "\x1b]8;" not in _print_lines(format_hit(1, build_hit(uri), WIDE, explain=False), color=True)


def test_short_hits_have_words_and_full_hits_add_up() -> None:
    hit = build_hit("file:///a.jpg", words=12)
    short = [line.plain for line in format_hit(3, hit, WIDE, explain=False)]
    assert short[0].split() == ["3.", "2.9900", "/a.jpg"]
    assert short[1].strip().startswith("w00, w01, ")
    assert short[1].endswith("w07, 4 more")
    full = [line.plain for line in format_hit(3, hit, WIDE, explain=True)]
    assert len(full) == 1 + 12 + 1
    assert re.findall(r"-?[\d.]+", full[-1])[:3] == ["3.0000", "2.9900", "-0.33"]


def test_small_numbers_are_never_shown_as_0() -> None:
    expected = {1.0: "1.0000", 0.00012: "0.0001", 0.00001: "1.0e-05", 123.4: "123.4000", 0.0: "0.0000"}
    assert {weight: format_weight(weight) for weight in expected} == expected


def build_hit(uri: str, words: int = 1) -> Hit:
    part = 3.0 / words
    contributions = tuple(
        TokenContribution(token=f"w{i:02}", query_weight=1.0, document_weight=part, contribution=part) for i in range(words)
    )
    return Hit(id="00", uri=uri, score=2.99, contributions=contributions, source={})


def _print_lines(lines: list[Text], *, color: bool) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=color, color_system="standard" if color else None, width=100, soft_wrap=True)
    for line in lines:
        console.print(line)
    return buffer.getvalue()
