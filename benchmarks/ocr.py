"""Measure `ingest --enrich ocr`: the share of words that are read, by kind and size of the text, and the CPU time.

    python benchmarks/ocr.py                                  # the bundled photos, and pictures of their captions
    python benchmarks/ocr.py --pictures 12 --photos FOLDER    # more pictures of each kind, and photographs of your own

- Words: pictures are drawn with captions, in Pillow's own font. A word counts as read if the field `text` has it, as a whole. A
  screen is drawn, a scan has grain, shade and a tilt, and a sign is pasted into a photograph in perspective, with blur. Both are
  saved as JPEG. They stand for photographs of text: no free set of these is at hand.
- CPU time: ms for each picture in one thread, decoding included.
- Photographs without text: the time of the enricher next to that of decoding and encoding by stair-mini.
"""

from __future__ import annotations

import io
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness.photos import PHOTOS, list_photos, read_captions
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from stair_es.config.defaults import DEFAULT_MODEL, THUMBNAIL_PX
from stair_es.ingest.enrichers.base import EnricherInput, EnricherSpec, get_enricher
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Json

Draw = Callable[[list[str], int, random.Random], tuple[Image.Image, list[str]]]
PHOTO_SIDES = (0, 2048)
"""Longer sides of the photographs without text; 0 for that of the files."""
PAPER, INK = (252, 251, 248), (28, 28, 34)
SCREEN, A4, PHOTO = (1280, 800), (1240, 1754), (1600, 1200)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of picture with a size of its text."""

    name: str
    px: int
    """Size of the font, in pixels of the picture."""
    draw: Draw
    goal: float | None = None
    """The least share of words that should be read."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The figures of a case."""

    name: str
    px: int
    words: int
    read: float
    """Share of the words that were read."""
    wrong: float
    """Share of the words of the field that aren't in the picture."""
    ms: float


def draw_lines(
    words: Sequence[str], px: int, size: tuple[int, int], paper: tuple[int, int, int] = PAPER, ink: tuple[int, int, int] = INK
) -> tuple[Image.Image, list[str]]:
    """Draw words in lines until the picture is full; also return those that fit."""
    image, font = Image.new("RGB", size, paper), ImageFont.load_default(px)
    canvas, margin = ImageDraw.Draw(image), max(px, size[0] // 20)
    x, y, drawn = float(margin), margin, list[str]()
    for word in words:
        length = canvas.textlength(word, font)
        if x + length > size[0] - margin:
            x, y = float(margin), y + round(1.6 * px)
        if y + 1.6 * px > size[1] - margin or length > size[0] - 2 * margin:
            break
        canvas.text((x, y), word, ink, font)
        drawn.append(word)
        x += length + canvas.textlength(" ", font)
    return image, drawn


def draw_screen(words: list[str], px: int, _: random.Random) -> tuple[Image.Image, list[str]]:
    """Draw a screen of dark text."""
    return draw_lines(words[:80], px, SCREEN)


def draw_faint_screen(words: list[str], px: int, _: random.Random) -> tuple[Image.Image, list[str]]:
    """Draw a screen of gray text on dark ground."""
    return draw_lines(words[:80], px, SCREEN, (40, 44, 52), (104, 108, 116))


def draw_scan(words: list[str], px: int, draw: random.Random) -> tuple[Image.Image, list[str]]:
    """Draw a scanned page: grain, shade from one side, a slight tilt."""
    image, drawn = draw_lines(words, px, A4)
    tilted = np.asarray(image.rotate(draw.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=PAPER), np.float32)
    shade = 1 - 0.3 * np.linspace(0, 1, A4[0])[None, :, None]
    return add_grain(tilted * shade, 8, draw), drawn


def turn_scan(quarters: int) -> Draw:
    """Return the function that draws a scan, turned counterclockwise."""

    def draw_turned(words: list[str], px: int, draw: random.Random) -> tuple[Image.Image, list[str]]:
        image, drawn = draw_scan(words, px, draw)
        return image.rotate(90 * quarters, expand=True), drawn

    return draw_turned


def draw_sign(words: list[str], px: int, draw: random.Random) -> tuple[Image.Image, list[str]]:
    """Paste a sign into a photograph: in perspective, blurred, with grain."""
    sign, drawn = draw_lines(words[:6], px, (14 * px, 7 * px))
    photo = Image.open(draw.choice(list_photos())).convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC)
    width, height = sign.size
    lean = [draw.uniform(0, 0.08) for _ in range(8)]
    corners = [(lean[0], lean[1]), (lean[2], 1 + lean[3]), (1 + lean[4], 1 - lean[5]), (1 - lean[6], -lean[7])]
    quad = [side * part for corner in corners for part, side in zip(corner, sign.size, strict=True)]
    mask = Image.new("L", sign.size, 255).transform(sign.size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    leaning = sign.transform(sign.size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    place = (draw.randrange(PHOTO[0] - width), draw.randrange(PHOTO[1] - height))
    photo.paste(leaning, place, mask)
    blurred = photo.filter(ImageFilter.GaussianBlur(0.8))
    return add_grain(np.asarray(blurred, np.float32), 6, draw), drawn


def add_grain(pixels: np.ndarray, deviation: float, draw: random.Random) -> Image.Image:
    """Add grain that is the same in all channels."""
    grain = np.random.default_rng(draw.getrandbits(32)).normal(0, deviation, pixels.shape[:2])
    return Image.fromarray((pixels + grain[..., None]).clip(0, 255).astype(np.uint8))


CASES = (
    *(Case(name="screen", px=px, draw=draw_screen, goal=1.0) for px in (12, 16, 24, 48)),
    Case(name="screen, faint", px=16, draw=draw_faint_screen, goal=1.0),
    *(Case(name="scan", px=px, draw=draw_scan, goal=1.0) for px in (18, 28)),
    *(Case(name=f"scan, turned by {90 * quarters}°", px=28, draw=turn_scan(quarters), goal=1.0) for quarters in (1, 2, 3)),
    *(
        Case(name="sign in a photograph", px=px, draw=draw_sign, goal={24: 0.9, 40: 1.0, 80: 1.0}.get(px))
        for px in (16, 24, 40, 80)
    ),
)


def list_words(draw: random.Random) -> list[str]:
    """List the words of the captions, in random order of captions."""
    captions = list(read_captions().values())
    draw.shuffle(captions)
    return [word for caption in captions for word in split_words(caption)]


def split_words(text: str) -> list[str]:
    """Split a text into words in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def save_picture(image: Image.Image, is_photo: bool) -> bytes:
    """Save a picture as a camera or scanner does, or as a screenshot."""
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "JPEG", "quality": 85} if is_photo else {"format": "PNG"}))
    return buffer.getvalue()


def read_text(data: bytes) -> tuple[dict[str, Json], float]:
    """Read a picture; also return the CPU time in ms."""
    pixels_HWC = np.zeros((1, 1, 3), np.uint8)
    given = EnricherInput(uri="", data=data, pixels_HWC=pixels_HWC, box=(0, 0, 1, 1), thumbnail=None, fields={})
    enricher, began = get_enricher(EnricherSpec("ocr")), time.process_time()
    [enriched] = enricher.enrich([given])
    return dict(enriched.fields), 1000 * (time.process_time() - began)


def measure_case(case: Case, pictures: int) -> Cell:
    """Draw and read the pictures of a case."""
    words, read, wrong, found = 0, 0, 0, 0
    times = []
    for seed in range(pictures):
        draw = random.Random(f"{case.name} {case.px} {seed}")
        image, drawn = case.draw(list_words(draw), case.px, draw)
        fields, ms = read_text(save_picture(image, case.draw not in (draw_screen, draw_faint_screen)))
        expected, got = Counter(drawn), Counter(split_words(str(fields.get("text", ""))))
        words, read = words + expected.total(), read + (expected & got).total()
        found, wrong = found + got.total(), wrong + (got - expected).total()
        times.append(ms)
    ms = statistics.mean(times)
    return Cell(name=case.name, px=case.px, words=words, read=read / words, wrong=wrong / max(1, found), ms=ms)


@dataclass(frozen=True, kw_only=True)
class PhotoTimes:
    """CPU times of photographs of one size in ms, one for each."""

    side_px: int
    """Longer side; 0 for that of the files."""
    ocr: list[float]
    others: list[float]
    """Of decoding and encoding."""
    texts: dict[str, Json]
    """What was read, by file."""

    @property
    def size(self) -> str:
        """The size of the photographs in words."""
        return f"{self.side_px:,} px" if self.side_px else "as they are"

    @property
    def ratio(self) -> Ratio:
        """The time of the enricher next to that of the others."""
        return Ratio(
            what=f"CPU time of the enricher, photographs without text, {self.size}",
            against="decoding and encoding by stair-mini",
            value=sum(self.ocr) / sum(self.others),
            goal=2.0,
            at_most=True,
        )

    def to_row(self) -> tuple[str, ...]:
        """Return the row of the table; its columns are `PHOTO_HEAD`."""
        times = (statistics.median(self.ocr), statistics.mean(self.ocr), max(self.ocr), statistics.mean(self.others))
        share = sum(self.ocr) / (sum(self.ocr) + sum(self.others))
        return self.size, str(len(self.ocr)), str(len(self.texts)), *(f"{ms:.0f}" for ms in times), f"{share:.0%}"


PHOTO_HEAD = (
    "size",
    "photos",
    "with text read",
    "median ms",
    "mean ms",
    "max ms",
    "ms to decode and encode",
    "share of the time",
)


def measure_photos(files: Sequence[Path], side_px: int) -> PhotoTimes:
    """Measure the enricher on photographs without text, next to decoding and encoding."""
    encoder = registry.load_encoder(ModelSpec(name=DEFAULT_MODEL, threads=1))
    times = PhotoTimes(side_px=side_px, ocr=[], others=[], texts={})
    encoder.encode_images(np.zeros((1, encoder.image_spec.size_px, encoder.image_spec.size_px, 3), np.uint8))
    for file in files:
        data = enlarge(file, side_px) if side_px else file.read_bytes()
        began = time.process_time()
        decoded = decode_image(data, encoder.image_spec, DecodeLimits(), THUMBNAIL_PX)
        encoder.encode_images(decoded.pixels_HWC[None])
        times.others.append(1000 * (time.process_time() - began))
        fields, ms = read_text(data)
        times.ocr.append(ms)
        if fields:
            times.texts[file.name] = fields["text"]
    return times


def enlarge(file: Path, side_px: int) -> bytes:
    """Enlarge a photograph to a longer side."""
    image = Image.open(file).convert("RGB")
    factor = side_px / max(image.size)
    size = round(image.width * factor), round(image.height * factor)
    return save_picture(image.resize(size, Image.Resampling.BICUBIC), is_photo=True)


def list_ratios(cells: Sequence[Cell]) -> Iterator[Ratio]:
    """List the shares of words that have a goal."""
    for case, cell in zip(CASES, cells, strict=True):
        if case.goal is not None:
            yield Ratio(what=f"words read, {cell.name}, {cell.px} px", against="all words", value=cell.read, goal=case.goal)


def measure(pictures: int, photos: Path) -> Result:
    """Measure all cases, and the photographs."""
    read_text(save_picture(draw_lines(["warm"], 40, SCREEN)[0], is_photo=False))
    cells = [measure_case(case, pictures) for case in CASES]
    times = [measure_photos(list_photos(photos), side_px) for side_px in PHOTO_SIDES]
    head = ("text", "px", "words", "read", "wrong", "ms a picture")
    rows = tuple(
        (cell.name, str(cell.px), str(cell.words), f"{cell.read:.1%}", f"{cell.wrong:.1%}", f"{cell.ms:.0f}") for cell in cells
    )
    sizes = " ".join(f"{name} of {width} x {height}," for name, (width, height) in (("screens", SCREEN), ("scans", A4)))
    return Result(
        about=f"{pictures} pictures of each kind: {sizes} photographs of {PHOTO[0]} x {PHOTO[1]}; CPU time in one thread",
        tables=(
            ReportTable(heading="Words", head=head, rows=rows),
            ReportTable(heading="Photographs without text", head=PHOTO_HEAD, rows=tuple(each.to_row() for each in times)),
        ),
        ratios=(*list_ratios(cells), *(each.ratio for each in times)),
        remarks=("Scans and signs are drawn, then spoiled: no photograph of a real text is among them.",),
        figures={"cells": cells, "photos": times},
    )


def main() -> None:
    """Measure, and print the result."""
    parser = build_parser(__doc__)
    parser.add_argument("--pictures", type=int, default=6, help="of each kind (default: %(default)s)")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photographs without text (default: the bundled ones)")
    args = parser.parse_args()
    publish_result(measure(args.pictures, args.photos), args.json)


if __name__ == "__main__":
    main()
