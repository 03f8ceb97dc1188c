"""The built-in enricher `ocr`: the text in a picture becomes a searchable field, with the place of each line."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.base import EnricherInput, Enrichment
from stair_es.optional import import_optional
from stair_es.types import ImageSpec, Json, Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Corners: TypeAlias = "NDArray[np.float32]"
    """Of each line: upper left, upper right, lower right, lower left, as (x, y) in pixels."""

MAX_LINES = 200
"""Lines that are read of one picture, from the top: each takes up to half a second."""
MAX_CHARS = 10_000
MIN_SCORE = 0.8
"""Lines below are guesses."""
_TEST_PX = 480
"""Longer side of the picture in which text is looked for at first: `benchmarks/ocr.py`."""
_SEEN_PX = 800
"""Longer side up to which the first look sees text of 10 pixels."""
_FIND_PX, _READ_PX = 960, 1600
"""Longer side at which the lines of a picture with text are found, and the largest at which they are read."""
_FLAT_DEVIATION, _MIN_FLAT_SHARE = 0.5, 0.1
"""Blocks of exactly one color, as screens and drawings have them, photographs hardly any."""
_PAPER_DISTANCE, _MIN_PAPER_SHARE = 48, 0.8
"""Pixels about as dark and as colored as most others, as on scanned pages: one of 40 photographs has this share of them."""
_MAX_AREA, _MIN_LONG = 0.25, 3.0
"""What fills more of a picture, and isn't that much longer than high, is a thing instead of a line."""
_MAX_LENGTH = 100
"""Longest line, in multiples of its height: the memory of the recognizer grows with it."""
_SURE_SCORE, _TURNED_LINES = 0.9, 3
"""A picture whose lines have a lower mean is tried upside down, by its longest lines."""
_BLOCK_PX = 8
_STAMP_CHARS = 40
"""A page with less text of its own is read."""


class TextNetworks(Protocol):
    """The two networks of text recognition. Thread safe."""

    def find_lines(self, pixels_HWC: Pixels) -> tuple[list[Pixels], Corners]:
        """Find lines of text: cut out, with a high one turned counterclockwise, and their corners."""

    def read_lines(self, lines: Sequence[Pixels]) -> list[tuple[str, float]]:
        """Read lines: the text of each, and how sure it is, 0 to 1."""


class RapidOcr:
    """The networks of the package rapidocr, one thread a call. Nothing is downloaded: the model files are named."""

    def __init__(self, recognizer: Path | None = None) -> None:
        rapidocr = import_optional("rapidocr", "ocr")
        models = Path(str(rapidocr.__file__)).parent / "models"
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        self._engine: Any = rapidocr.RapidOCR(
            params={
                **threads,
                "Global.log_level": "critical",
                "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
                "Det.limit_type": "max",
                "Det.limit_side_len": _FIND_PX,
                "Rec.model_path": str(recognizer or models / "PP-OCRv6_rec_small.onnx"),
                "Rec.rec_batch_num": 1,  # a batch is as long as its longest line, and no faster on one core
            }
        )

    def find_lines(self, pixels_HWC: Pixels) -> tuple[list[Pixels], Corners]:
        """Find lines of text, as `TextNetworks`."""
        from rapidocr.main import RapidOCRError

        padding: dict[str, dict[str, int]] = {}
        try:
            lines, found = self._engine.detect_and_crop(np.ascontiguousarray(pixels_HWC[..., ::-1]), padding)
        except RapidOCRError:  # there is none
            return [], np.empty((0, 4, 2), np.float32)
        return lines, np.asarray(found.boxes, np.float32) - (0, padding["padding_1"]["top"])

    def read_lines(self, lines: Sequence[Pixels]) -> list[tuple[str, float]]:
        """Read lines, as `TextNetworks`."""
        read = self._engine.recognize_txt(list(lines))
        return list(zip(read.txts, read.scores, strict=True))


@dataclass(frozen=True)
class TextLine:
    """A line of text in a picture."""

    text: str
    score: float
    box: tuple[float, float, float, float]
    """Left, upper, right, lower, as shares of the upright picture."""


class OcrReader:
    """Reads the text of pictures."""

    def __init__(self, networks: TextNetworks) -> None:
        self._networks = networks

    def read(self, data: bytes) -> list[TextLine]:
        """Read the lines of a picture, from the top; at most `MAX_LINES` with `MAX_CHARS`.

        A picture without text takes one look at a small size. One with text is decoded again, larger.
        """
        small_HWC, longer_px = _decode(data, _TEST_PX)
        if not (self._find_lines(small_HWC)[0] or (longer_px > _SEEN_PX and may_have_fine_text(small_HWC))):
            return []
        pixels_HWC, _ = _decode(data, min(_READ_PX, max(_FIND_PX, longer_px)))
        lines, corners = self._find_lines(pixels_HWC)
        turned = _are_high(corners)
        if turned:
            pixels_HWC = np.rot90(pixels_HWC)
            lines, corners = self._find_lines(pixels_HWC)
        if not lines:
            return []
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1) / np.tile(pixels_HWC.shape[1::-1], 2)
        if turned:  # x was y, and y was x from the right
            boxes = np.stack([1 - boxes[:, 3], boxes[:, 0], 1 - boxes[:, 1], boxes[:, 2]], 1)
        read, order = self._read_upright(lines)
        return _select_lines(read, boxes[order])

    def _find_lines(self, pixels_HWC: Pixels) -> tuple[list[Pixels], Corners]:
        lines, corners = self._networks.find_lines(pixels_HWC)
        widths, heights = _measure(corners)
        longer, shorter = np.maximum(widths, heights), np.minimum(widths, heights).clip(1)
        is_thing = (widths * heights > _MAX_AREA * pixels_HWC[..., 0].size) & (longer < _MIN_LONG * shorter)
        kept = np.flatnonzero(~is_thing & (longer <= _MAX_LENGTH * shorter))[:MAX_LINES]
        return [lines[i] for i in kept], corners[kept]

    def _read_upright(self, lines: Sequence[Pixels]) -> tuple[list[tuple[str, float]], slice]:
        """Read lines, or all upside down if the longest ones read better so; also return their order."""
        by_length = sorted(range(len(lines)), key=lambda i: -lines[i].shape[1])
        longest = by_length[:_TURNED_LINES]
        read = self._networks.read_lines([lines[i] for i in longest])
        score = _average_scores(read)
        if score < _SURE_SCORE:
            around = [np.rot90(line, 2) for line in lines]
            if _average_scores(self._networks.read_lines([around[i] for i in longest])) > max(score, MIN_SCORE):
                return self._networks.read_lines(around[::-1]), slice(None, None, -1)
        if rest := by_length[_TURNED_LINES:]:
            read += self._networks.read_lines([lines[i] for i in rest])
        in_order = dict(zip(by_length, read, strict=True))
        return [in_order[i] for i in range(len(lines))], slice(None)


def _decode(data: bytes, side_px: int) -> tuple[Pixels, int]:
    """Decode a picture so that its longer side is `side_px`; also return that side of the original."""
    from stair_es.sources.image.decode import DecodeLimits, decode_image

    limits = DecodeLimits(max_pixels=sys.maxsize)  # the same file was decoded within those of the run
    decoded = decode_image(data, ImageSpec(size_px=side_px), limits)
    left, upper, right, lower = decoded.box
    return decoded.pixels_HWC[upper:lower, left:right], max(decoded.width, decoded.height)


def may_have_fine_text(pixels_HWC: Pixels) -> bool:
    """Return whether a small picture looks like a screen or a page, whose text may be too small for the first look."""
    distances_HW = np.abs(pixels_HWC - np.median(pixels_HWC, (0, 1))).max(2)
    if (distances_HW < _PAPER_DISTANCE).mean() >= _MIN_PAPER_SHARE:
        return True
    gray_HW = pixels_HWC.mean(2)
    rows, columns = (side // _BLOCK_PX for side in gray_HW.shape)
    blocks = gray_HW[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    return bool(blocks.size) and bool((blocks.std((1, 3)) < _FLAT_DEVIATION).mean() > _MIN_FLAT_SHARE)


def _measure(corners: Corners) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return width and height of each line."""
    upper, side = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    return np.hypot(*upper.T), np.hypot(*side.T)


def _are_high(corners: Corners) -> bool:
    """Return whether most of the text, by length, runs up or down."""
    widths, heights = _measure(corners)
    return bool(heights[heights > 1.5 * widths].sum() > widths[heights <= 1.5 * widths].sum())


def _average_scores(read: Sequence[tuple[str, float]]) -> float:
    return sum(score for _, score in read) / len(read)


def _select_lines(read: Sequence[tuple[str, float]], boxes: NDArray[np.float32]) -> list[TextLine]:
    """Select the lines that were read with certainty, without control characters."""
    lines, spare_chars = list[TextLine](), MAX_CHARS
    for (raw, score), box in zip(read, boxes.clip(0, 1).round(4).tolist(), strict=True):
        text = " ".join("".join(" " if unicodedata.category(char)[0] == "C" else char for char in raw).split())[:spare_chars]
        if score >= MIN_SCORE and any(map(str.isalnum, text)):
            lines.append(TextLine(text, round(score, 3), tuple(box)))
            spare_chars -= len(text)
    return lines


class _OcrEnricher:
    def __init__(self, reader: OcrReader, version: str) -> None:
        self._reader, self.version = reader, version

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        """Read the pictures, except pages and images that have a text of their own."""
        return [
            Enrichment() if _has_text(image) else Enrichment(fields=build_text_fields(self._reader.read(image.data)))
            for image in images
        ]


def _has_text(image: EnricherInput) -> bool:
    """Check whether there is nothing to read: a scanned page may have no more text of its own than a stamp."""
    text = image.fields.get("text")
    return bool(text) and not ("page" in image.fields and len(str(text)) < _STAMP_CHARS)


def build_text_fields(lines: Sequence[TextLine]) -> dict[str, Json]:
    """Build the fields of a document: none without lines."""
    if not lines:
        return {}
    boxes: list[Json] = [{"text": line.text, "score": line.score, "box": list(line.box)} for line in lines]
    return {"text": "\n".join(line.text for line in lines), "text_boxes": boxes}


class OcrKind:
    """The enricher kind `ocr`."""

    name = "ocr"
    description = "the text in a picture as the field `text` (option: recognizer=FILE, for other languages)"

    def build(self, options: Mapping[str, str]) -> _OcrEnricher:
        """Build the enricher; the option `recognizer` names the ONNX file of another recognizer."""
        unknown = set(options) - {"recognizer"}
        if unknown:
            raise UsageError(
                f"enricher 'ocr' has no option {', '.join(sorted(unknown))}",
                "Its only option is: recognizer=FILE, an ONNX recognizer of PaddleOCR for a language that the included one "
                "doesn't read (docs/howto/words-and-text.md).",
                code="unknown-enricher-option",
            )
        path = Path(options["recognizer"]) if "recognizer" in options else None
        import_optional("rapidocr", "ocr")
        digest = f":{_check_recognizer(path)}" if path else ""
        return _OcrEnricher(OcrReader(RapidOcr(path)), f"1:{version('rapidocr')}{digest}")


def _check_recognizer(path: Path) -> str:
    """Return the beginning of the SHA-256 of a recognizer, which must have its characters: rapidocr would download others."""
    from stair_es.model.networks.image_networks import create_onnx_session

    try:
        characters = create_onnx_session(path, 1).get_modelmeta().custom_metadata_map.get("character")
    except Exception as error:  # onnxruntime raises many types for missing and broken files
        raise UsageError(
            f"the recognizer {path} can't be read: {error}",
            "Download an ONNX file of rapidocr's list of models, and name it: --enrich ocr:recognizer=FILE.",
            code="ocr-recognizer-unreadable",
        ) from error
    if not characters:
        raise UsageError(
            f"the recognizer {path} doesn't name its characters",
            "Take an ONNX file of rapidocr's list of models: they have the list in the metadata `character`.",
            code="ocr-recognizer-without-characters",
        )
    return sha256(path.read_bytes()).hexdigest()[:12]


KIND = OcrKind()
