"""Which pictures are read, how lines become fields, and their bounds; the networks are fakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.ocr import KIND, MAX_CHARS, MAX_LINES, OcrReader, build_text_fields
from stair_es.types import Pixels

NOISE_HWC = np.random.default_rng(7).integers(0, 255, (120, 240, 3), np.uint8)
LINE = (0.1, 0.2, 0.5, 0.3)


@dataclass
class FakeNetworks:
    """Finds lines in given boxes (shares of the picture), as (text, score) from the left or upside down."""

    boxes: Sequence[tuple[float, float, float, float]] = (LINE,)
    texts: Sequence[str] = ("no parking",)
    score: float = 0.99
    upside_down: bool = False
    turned: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of each picture in which lines were looked for."""

    def find_lines(self, pixels_HWC: Pixels) -> tuple[list[Pixels], np.ndarray]:
        height, width = pixels_HWC.shape[:2]
        self.sizes.append((width, height))
        scaled = np.array([*self.boxes], np.float32).reshape(-1, 4) * (width, height, width, height)
        if self.turned and len(self.sizes) < 3:  # high until the picture is turned
            scaled = scaled[:, [1, 0, 3, 2]]
        corners = np.stack([scaled[:, [i, j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3))], 1)
        lines = [np.full((1, 9, 3), (i, 0, 255), np.uint8) for i in range(len(scaled))]
        for line in lines:
            line[:, 0] = 1 + self.upside_down
        return lines, corners

    def read_lines(self, lines: Sequence[Pixels]) -> list[tuple[str, float]]:
        places = [int(line[0, 4, 0]) for line in lines]
        is_upright = [(line[0, -1, 0] == 2) == self.upside_down for line in lines]
        return [
            (self.texts[place % len(self.texts)], self.score if upright else 0.6)
            for place, upright in zip(places, is_upright, strict=True)
        ]


def save_picture(pixels_HWC: Pixels = NOISE_HWC) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def read_fields(networks: FakeNetworks, data: bytes | None = None) -> dict[str, object]:
    return dict(build_text_fields(OcrReader(networks).read(data or save_picture())))


def test_lines_become_a_text_and_boxes() -> None:
    networks = FakeNetworks(boxes=[LINE, (0.1, 0.5, 0.9, 0.6)], texts=["no parking", "at any time"])
    assert read_fields(networks) == {
        "text": "no parking\nat any time",
        "text_boxes": [
            {"text": "no parking", "score": 0.99, "box": pytest.approx(LINE, abs=1e-3)},
            {"text": "at any time", "score": 0.99, "box": pytest.approx((0.1, 0.5, 0.9, 0.6), abs=1e-3)},
        ],
    }
    assert networks.sizes == [(480, 240), (960, 480)]


@pytest.mark.parametrize(
    "boxes", [(), [(0.1, 0.1, 0.9, 0.9)], [(0.1, 0.1, 0.9, 0.101)]], ids=["nothing", "a thing", "longer than any line"]
)
def test_a_picture_without_lines_is_looked_at_once(boxes: Sequence[tuple[float, float, float, float]]) -> None:
    networks = FakeNetworks(boxes=boxes)
    assert read_fields(networks) == {}
    assert networks.sizes == [(480, 240)]


@pytest.mark.parametrize("kind", ["page", "screen"])
def test_pages_and_screens_are_looked_at_closely(kind: str) -> None:
    """Their text can be too small for the first look: on paper with grain, or next to a photograph."""
    pixels_HWC = np.random.default_rng(7).integers(210, 250, (1000, 2000, 3), np.uint8)
    if kind == "screen":
        pixels_HWC[:, :1500] = np.random.default_rng(7).integers(0, 255, (1000, 1500, 3), np.uint8)
        pixels_HWC[:, 1500:] = 30
    networks = FakeNetworks(boxes=())
    assert read_fields(networks, save_picture(pixels_HWC)) == {}
    assert networks.sizes == [(480, 240), (1600, 800)]


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_turned_pictures_are_read_from_the_top(turned: bool, upside_down: bool) -> None:
    """Boxes are shares of the picture as it is shown, in each case."""
    second = (0.1, 0.5, 0.9, 0.6)
    networks = FakeNetworks([LINE, second], ["first", "second"], turned=turned, upside_down=upside_down)
    fields = read_fields(networks)
    assert str(fields["text"]).split("\n") == (["second", "first"] if upside_down else ["first", "second"])
    boxes = {box["text"]: box["box"] for box in fields["text_boxes"]}  # type: ignore[attr-defined]
    left, upper, right, lower = LINE
    assert boxes["first"] == pytest.approx((1 - lower, left, 1 - upper, right) if turned else LINE, abs=1e-2)


@pytest.mark.parametrize(
    ("texts", "score", "expected"),
    [
        (["plain"], 0.8, "plain"),
        (["a guess"], 0.79, None),
        (["--- .."], 0.99, None),
        ([""], 0.99, None),
        (["a\x00b\x1b[31m\u202ec\n\td"], 0.99, "a b [31m c d"),
        (["x" * 2 * MAX_CHARS], 0.99, "x" * MAX_CHARS),
    ],
    ids=["sure", "unsure", "no letter", "empty", "control characters", "too many characters"],
)
def test_only_readable_text_is_kept(texts: list[str], score: float, expected: str | None) -> None:
    assert read_fields(FakeNetworks(texts=texts, score=score)).get("text") == expected


def test_lines_and_characters_of_a_picture_are_bounded() -> None:
    many = FakeNetworks(boxes=[LINE] * (MAX_LINES + 1), texts=["word"])
    assert str(read_fields(many)["text"]).count("word") == MAX_LINES
    long = FakeNetworks(boxes=[LINE] * 3, texts=["y" * (MAX_CHARS - 4)])
    assert [len(line) for line in str(read_fields(long)["text"]).split("\n")] == [MAX_CHARS - 4, 4]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"language": "ru"}, "unknown-enricher-option"),
        ({"recognizer": "missing.onnx"}, "ocr-recognizer-unreadable"),
        ({"recognizer": "broken.onnx"}, "ocr-recognizer-unreadable"),
        ({"recognizer": "silent.onnx"}, "ocr-recognizer-without-characters"),
    ],
)
def test_options_are_checked(options: dict[str, str], code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "broken.onnx").write_bytes(b"no network")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "silent", values[:1], values[1:])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]), tmp_path / "silent.onnx"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stair_es.ingest.enrichers.ocr.import_optional", lambda module, extra: None)
    with expect_error(code, UsageError):
        KIND.build(options)
