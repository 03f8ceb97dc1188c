"""One image in a terminal, as JSON and as CSV, and its thumbnail in half blocks: values in, text out."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from stair_es.cli.commands.inspect import (
    _list_names,
    build_inspection_rows,
    can_show_thumbnails,
    format_inspection,
    render_terminal_thumbnail,
    to_json,
)
from stair_es.cli.output.bars import TerminalInfo
from stair_es.inspection.diff import CurrentVector, PolicyEffect, VectorComparison, WeightDifference
from stair_es.inspection.inspector import EncodedFile, InspectionResult
from stair_es.inspection.stored_document import StoredImage
from stair_es.sources.io.uris import find_file
from stair_es.types import SparseVector

WIDE = TerminalInfo(width=100)
WORDS = SparseVector.from_mapping({"cat": 0.5, "a.b": 0.25, "=1+1": 0.125, "犬": 0.125})
SOURCE = {"model": "m-1", "width": 4, "top_tokens": ["cat"], "caption": "a cat", "uri": "file:///p/a%20b.jpg", "policy": "ab"}


def build_image(vector: SparseVector = WORDS, **source: object) -> StoredImage:
    return StoredImage(id="1", index="i-1", uri="file:///p/a%20b.jpg", vector=vector, source={**SOURCE, **source})


def encode_file(vector: SparseVector = WORDS) -> EncodedFile:
    now = CurrentVector(sha256="aa", model="m-1", vector=vector)
    return EncodedFile(uri="file:///p/new.jpg", current=now, facts={"width": 3, "format": "PNG"}, thumbnail=None)


def inspect_image(
    stored: StoredImage | None = None,
    file: EncodedFile | None = None,
    comparison: VectorComparison | None = None,
    policy_effect: PolicyEffect | None = None,
) -> InspectionResult:
    return InspectionResult(
        image=stored, encoded_file=file, comparison=comparison, policy_effect=policy_effect, file_changed=False
    )


def format_lines(found: InspectionResult, k: int | None = None, terminal: TerminalInfo = WIDE) -> list[str]:
    return [line.plain for line in format_inspection(found, k, terminal)]


def test_words_have_weight_share_and_cumulative_share() -> None:
    cat, dotted, formula, dog, summary, *facts = format_lines(inspect_image(build_image()))
    assert cat.split() == ["cat", "█" * 40, "0.5000", "50.0", "%", "50.0", "%"]
    assert dotted.split() == ["a.b", "█" * 20, "0.2500", "25.0", "%", "75.0", "%"]
    assert formula.split()[0] == "=1+1"
    assert dog.split()[-2:] == ["100.0", "%"]
    assert re.findall(r"[\d.]+", summary) == ["4", "1.0000"]
    assert [fact.split(maxsplit=1) for fact in facts] == [
        ["id", "1"],
        ["index", "i-1"],
        ["uri", "file:///p/a%20b.jpg"],
        ["caption", "a cat"],
        ["policy", "ab"],
        ["model", "m-1"],
        ["width", "4"],
    ]


def test_tokens_that_are_left_out_are_reported() -> None:
    _, others, *_ = format_lines(inspect_image(build_image()), k=1)
    assert (re.findall(r"[\d.]+", others), "--all" in others) == (["3", "50.0"], True)
    empty = format_lines(inspect_image(build_image(SparseVector((), ()))))
    assert len(empty) == len(format_lines(inspect_image(build_image()))) - len(WORDS), "one line instead of words and their sum"


def test_hostile_fields_are_one_line_each_and_drive_no_terminal() -> None:
    hostile = {
        "caption": "\x1b]0;title\x07\nnext",
        "na\nme": "[bold]x[/bold]",
        "long": "x" * 9000,
        "list": ["a", {"b": 1}],
        "none": None,
    }
    vector = SparseVector.from_mapping({"\x1b[2J\n": 1.0})
    lines = format_lines(inspect_image(build_image(vector, **hostile)))
    assert not any("\x1b" in line or "\n" in line or "\x07" in line for line in lines)
    assert max(map(len, lines)) < 240
    assert any(line.split() == ["list", '["a",', '{"b":', "1}]"] for line in lines)


def test_comparison_reports_reasons_and_words() -> None:
    different = VectorComparison(
        differences=tuple(WeightDifference(token=f"w{i}", stored=0.5, current=0.0) for i in range(14)),
        reasons=("the file has changed",),
    )
    lines = format_lines(inspect_image(build_image(), encode_file(), different))
    reason = next(number for number, line in enumerate(lines) if line.strip() == different.reasons[0])
    assert (lines[reason - 1].split()[0], "m-1" in lines[reason - 1]) == ("14", True)
    assert lines[reason + 1].split() == ["w0", "stored", "0.5000,", "now", "-"]
    assert len(lines) == reason + 1 + 12 + 1
    assert (lines[-1].split()[0], "--json" in lines[-1]) == ("2", True)
    same = format_lines(inspect_image(build_image(), encode_file(), VectorComparison(differences=(), reasons=())))
    assert len(same) == len(format_lines(inspect_image(build_image(), encode_file()))) + 1
    assert "m-1" in same[-1]
    unknown = format_lines(
        inspect_image(build_image(), encode_file(), VectorComparison(differences=different.differences[:1], reasons=()))
    )
    assert len(unknown) == len(same) + 2, "how many differ, that the reason is unknown, and the word"


def test_the_effect_of_a_policy_is_shown() -> None:
    effect = PolicyEffect(rules=("cap cat",), tokens=(WeightDifference(token="cat", stored=0.5, current=0.9),))
    rules, cat = format_lines(inspect_image(build_image(), policy_effect=effect))[-2:]
    assert (" ab " in rules, rules.endswith(": cap cat")) == (True, True)
    assert (cat.split()[0], re.findall(r"[\d.]+", cat)) == ("cat", ["0.9000", "0.5000"])


def test_json_of_a_document_and_of_a_file() -> None:
    values = json.loads(json.dumps(to_json("ref", inspect_image(build_image()), 1)))
    assert values["tokens"] == [{"token": "cat", "weight": 0.5, "share": 0.5, "cumulative": 0.5}]
    assert (values["token_count"], values["sum"], values["origin"], values["id"], values["index"]) == (
        4,
        1.0,
        "index",
        "1",
        "i-1",
    )
    assert values["fields"]["caption"] == "a cat"
    assert (values["compare"], values["policy"]) == (None, None)
    file = to_json("ref", inspect_image(None, encode_file()), None)
    assert (file["origin"], file["id"], file["uri"], file["model"]) == ("model", None, "file:///p/new.jpg", "m-1")
    assert len(file["tokens"]) == 4
    compared = to_json("ref", inspect_image(build_image(), encode_file(), VectorComparison(differences=(), reasons=())), None)
    assert compared["compare"] == {"is_same": True, "differences": (), "reasons": ()}


def test_rows_of_index_and_model() -> None:
    rows = list(build_inspection_rows("ref", inspect_image(build_image(), encode_file(WORDS.top(1))), None))
    assert [row[3] for row in rows] == ["index"] * 4 + ["model"]
    assert rows[1] == ("ref", "1", "file:///p/a%20b.jpg", "index", 2, "a.b", 0.25, 0.25, 0.75)


def test_references_accept_usual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a b.jpg"
    path.touch()
    assert _list_names("a b.jpg")[0] == path.as_uri()
    assert _list_names("gone.jpg") == ["gone.jpg", (tmp_path / "gone.jpg").as_uri()]
    assert path.as_uri() in _list_names(f"file://{path}")
    assert _list_names("8738a1")[0] == "8738a1"
    assert find_file("a b.jpg") == Path("a b.jpg")
    assert find_file(path.as_uri()) == path
    for no_file in ("gone.jpg", "x" * 5000, "a\0b", str(tmp_path), "s3://b/k.jpg", "file:///gone", ""):
        assert find_file(no_file) is None


def draw_halves(form: str = "PNG", size: tuple[int, int] = (64, 32)) -> bytes:
    buffer = io.BytesIO()
    half = Image.new("RGB", size, (255, 0, 0))
    half.paste((0, 0, 255), (size[0] // 2, 0, size[0], size[1]))
    half.save(buffer, form)
    return buffer.getvalue()


def build_console(**more: object) -> Console:
    options = {"file": io.StringIO(), "force_terminal": True, "color_system": "truecolor", "width": 100, **more}
    return Console(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (1, 1), (5, 3), (2000, 3)])
@pytest.mark.parametrize("width", [8, 12, 200])
def test_a_thumbnail_fits_and_has_its_colors(size: tuple[int, int], width: int) -> None:
    target = build_console(width=width)
    rendered = render_terminal_thumbnail(draw_halves(size=size), target, required=True)
    assert rendered is not None
    target.print(rendered)
    out = target.file.getvalue()  # type: ignore[attr-defined]
    assert "▄" in out
    if size == (64, 32) and width == 200:
        assert "38;2;255;0;0" in out
        assert "38;2;0;0;255" in out
        assert out.count("\n") == 10


@pytest.mark.parametrize("data", [b"", b"no image", draw_halves()[:40], draw_halves(size=(3000, 3000))])
def test_an_invalid_thumbnail_is_left_out(data: bytes) -> None:
    assert render_terminal_thumbnail(data, build_console(), required=True) is None
    assert render_terminal_thumbnail(draw_halves(), build_console(width=7), required=True) is None


@pytest.mark.parametrize(
    ("more", "shows"),
    [
        ({}, True),
        ({"color_system": "256"}, True),
        ({"color_system": "standard"}, False),
        ({"color_system": None}, False),
        ({"no_color": True}, False),
        ({"force_terminal": False}, False),
    ],
)
def test_only_a_terminal_with_colors_shows_pictures(more: dict[str, object], shows: bool) -> None:
    assert can_show_thumbnails(build_console(**more)) is shows
