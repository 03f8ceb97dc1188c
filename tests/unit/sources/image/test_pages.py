"""Pages of documents: one image each."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from support.corpora.documents import build_pdf, build_tiff_pages, join_objects
from support.errors import expect_error

from stair_es.errors import DecodeError, ReadError
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, SourceItem
from stair_es.sources.image import pages
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.pages import PageLocator, list_pages, render_numbered_page
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.uris import split_image_uri, split_page_uri
from stair_es.sources.registry import open_source
from stair_es.types import ImageSpec, Json

RED, BLUE = (Image.new("RGB", (60, 80), color) for color in ("red", "blue"))
LIMITS, SPEC = ReadLimits(), ImageSpec(size_px=32)


@dataclass
class CountingLocator:
    """Bytes whose reads are counted; as those of an object store, they report no version that was listed."""

    data: bytes
    reads: list[str | None] = field(default_factory=list)

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        self.reads.append(known_version)
        return ReadResult(self.data)

    def to_json(self) -> dict[str, Json] | None:
        return None


def list_folder(folder: Path) -> list[SourceItem]:
    items = list(open_source(str(folder)).list_items())
    assert all(isinstance(item, SourceItem) for item in items)
    return [item for item in items if isinstance(item, SourceItem)]


def read_item(item: SourceItem) -> ReadResult:
    result = item.locator.read(LIMITS)
    assert result is not None
    return result


def test_pages_of_a_pdf_have_numbers_texts_and_pictures(tmp_path: Path) -> None:
    (tmp_path / "a b.pdf").write_bytes(build_pdf(["lease  of a boat ", RED]))
    first, second = list_folder(tmp_path)
    document = (tmp_path / "a b.pdf").as_uri()
    assert [first.uri, second.uri] == [f"{document}#page=1", f"{document}#page=2"]
    assert first.fields == {"page": 1, "pages": 2, "parent": document}
    texts = [read_item(item).fields for item in (first, second)]
    assert texts == [{"text": "lease of a boat"}, {}]
    result = read_item(second)
    decoded = decode_image(result.data, SPEC, DecodeLimits())
    assert (result.format, decoded.width, decoded.height) == ("PDF", 1200, 1600)  # four pixels a point
    assert [int(value) // 128 for value in decoded.pixels_HWC[16, 16]] == [1, 0, 0]
    assert split_image_uri(second.uri) == ("a b.pdf#page=2", str(tmp_path))


def test_pages_of_a_tiff_are_images_and_smaller_copies_are_none(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(build_tiff_pages([RED, BLUE]))
    (tmp_path / "single.tiff").write_bytes(build_tiff_pages([RED]))
    copy = build_tiff_pages([RED, BLUE.resize((30, 40)), BLUE])
    (tmp_path / "pyramid.tif").write_bytes(mark_reduced(copy, 1))
    found = {item.uri.rpartition("/")[2]: item for item in list_folder(tmp_path)}
    assert sorted(found) == ["pyramid.tif#page=1", "pyramid.tif#page=2", "scan.tif#page=1", "scan.tif#page=2", "single.tiff"]
    for name, color in (("scan.tif#page=1", 0), ("scan.tif#page=2", 2), ("pyramid.tif#page=2", 2)):
        pixels_HWC = decode_image(read_item(found[name]).data, SPEC, DecodeLimits()).pixels_HWC
        assert int(pixels_HWC[16, 16].argmax()) == color
    assert render_numbered_page((tmp_path / "pyramid.tif").read_bytes(), 2, 10_000) == read_item(found["pyramid.tif#page=2"]).data


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I;16B", "I", "F"])
def test_pages_have_the_pixels_of_single_images(tmp_path: Path, mode: str) -> None:
    gray = Image.linear_gradient("L").resize((60, 80))
    ramp = gray.convert("I").point(lambda value: value * 200).convert("I;16") if mode.startswith("I;16") else gray.convert(mode)
    if mode == "I;16B":
        ramp = Image.frombytes("I;16B", ramp.size, ramp.tobytes("raw", "I;16B"))
    single, several = build_tiff_pages([ramp]), build_tiff_pages([ramp, ramp])
    page = render_numbered_page(several, 2, 10_000)
    expected, found = (decode_image(data, SPEC, DecodeLimits()).pixels_HWC.astype(int) for data in (single, page))
    assert abs(expected - found).max() <= 1


def test_pages_have_as_many_pixels_as_they_may(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(build_tiff_pages([RED, BLUE]))
    first, _ = list_folder(tmp_path)
    assert first.locator.read(ReadLimits(max_pixels=60 * 80)) is not None
    with expect_error("decompression-bomb", ReadError):
        first.locator.read(ReadLimits(max_pixels=60 * 80 - 1))


def mark_reduced(tiff: bytes, number: int) -> bytes:
    """Replace a tag of a directory, the bits of a sample, by one that says that it is a smaller copy."""
    with Image.open(io.BytesIO(tiff)) as image:
        image.seek(number)
        offset = image.tag_v2._offset  # type: ignore[attr-defined]
    changed = bytearray(tiff)
    entry = tiff.index(b"\x1c\x01\x03\0\x01\0\0\0\x01\0\0\0", offset)  # planar configuration, which is the usual one
    changed[entry : entry + 12] = b"\xfe\0\x04\0\x01\0\0\0\x01\0\0\0"
    return bytes(changed)


def test_a_document_is_read_once_for_all_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_documents", pages._DocumentCache())
    locator = CountingLocator(build_pdf(["one", "two", "three"]))
    for item in list_pages(ListedFile("s3://b/a.pdf", locator, version="1"), "s3://b", LIMITS):
        assert isinstance(item, SourceItem)
        assert read_item(item).fields["text"] in ("one", "two", "three")
        assert item.locator.read(LIMITS, "1") is None
    assert locator.reads == [None]
    locator.data = build_pdf(["changed"])
    for version, reads in (("2", 2), (None, 4)):  # without a version each read may give another document
        [item] = list_pages(ListedFile("s3://b/a.pdf", locator, version=version), "s3://b", LIMITS)
        assert isinstance(item, SourceItem)
        assert read_item(item).fields == {"text": "changed"}
        assert len(locator.reads) == reads


def test_the_cache_of_documents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = pages._DocumentCache()
    monkeypatch.setattr(pages, "DOCUMENT_CACHE_BYTES", 2500)
    locators = [CountingLocator(bytes(1000)) for _ in range(4)]
    for number in (0, 1, 0, 2, 0, 3, 1):
        cache.read(str(number), "1", locators[number], LIMITS, None)
    assert [len(locator.reads) for locator in locators] == [1, 2, 1, 1]
    huge = CountingLocator(bytes(9000))
    for _ in range(2):
        cache.read("huge", "1", huge, LIMITS, None)
    assert len(huge.reads) == 1


def test_locators_survive_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(build_pdf(["one"]))
    [item] = list_folder(tmp_path)
    value = item.locator.to_json()
    assert value is not None
    assert restore_locator(value) == item.locator
    assert PageLocator("x", CountingLocator(b""), "PDF", 1).to_json() is None


ENCRYPTION = (
    b"/Root 1 0 R /ID [(1) (2)] /Encrypt << /Filter /Standard /V 1 /R 2 /P -1 /O (" + b"x" * 32 + b") /U (" + b"y" * 32 + b") >>"
)
DAMAGED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no PDF": lambda: b"%PDF-1.7 and nothing",
    "cut": lambda: build_pdf(["one"])[:300],
    "without pages": lambda: build_pdf([]),
    "pages within themselves": lambda: join_objects(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>"]
    ),
    "encrypted": lambda: build_pdf(["one"]).replace(b"/Root 1 0 R", ENCRYPTION),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_document_that_cannot_be_read_is_one_failed_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pdf").write_bytes(DAMAGED[name]())
    items = list_folder(tmp_path)
    assert len(items) == 1
    with pytest.raises(ReadError):
        items[0].locator.read(LIMITS)
    letter = items[0].locator.to_json()
    assert letter is not None
    assert restore_locator(letter).to_json() == letter
    assert letter["uri"] == (tmp_path / "a.pdf").as_uri()


@pytest.mark.parametrize("size", ["0 0 1e9 1e9", "0 0 0 0", "0 0 -5 1", "0 0 1 100000", "0 0 nan nan"])
def test_pages_of_odd_sizes_are_pictures_or_reasons(size: str) -> None:
    png = render_numbered_page(build_pdf(["one"], size=size), 1, 4_200_000)
    assert max(Image.open(io.BytesIO(png)).size) <= 2048


def test_pages_beyond_the_limit_are_one_failed_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PAGES", 2)
    file = ListedFile("s3://b/a.pdf", CountingLocator(build_pdf(["one", "two", "three"])))
    *found, failure = list_pages(file, "s3://b", LIMITS)
    assert [item.uri for item in found] == ["s3://b/a.pdf#page=1", "s3://b/a.pdf#page=2"]
    assert isinstance(failure, ListingFailure)


def test_a_page_that_is_not_there_is_an_error() -> None:
    for data in (build_pdf(["one"]), build_tiff_pages([RED])):
        for number in (0, 2, 999_999_999):
            with expect_error("no-such-page", DecodeError):
                render_numbered_page(data, number, 4_200_000)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///a.pdf#page=12", ("file:///a.pdf", 12)),
        ("file:///a%23page=1.pdf", ("file:///a%23page=1.pdf", None)),
        ("file:///a.pdf#page=" + "9" * 5000, ("file:///a.pdf#page=" + "9" * 5000, None)),
        ("file:///a.pdf#page=-1", ("file:///a.pdf#page=-1", None)),
        ("file:///a.csv#row=1", ("file:///a.csv#row=1", None)),
    ],
)
def test_uris_of_pages_are_split(uri: str, expected: tuple[str, int | None]) -> None:
    assert split_page_uri(uri) == expected
