"""Keywords in files: XMP and IPTC, from programs and from enemies."""

import io
import struct

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.ingest.enrichers.keywords import KIND, MAX_KEYWORD_CHARS, MAX_KEYWORDS, read_keywords
from stair_es.labels.sidecars import build_sidecar


def make_xmp(*keywords: str) -> bytes:
    return build_sidecar(keywords)


def save_image(format_: str, xmp: bytes) -> bytes:
    image, file = Image.new("RGB", (8, 8)), io.BytesIO()
    if format_ == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(file, "PNG", pnginfo=info)
    elif format_ == "TIFF":
        image.save(file, "TIFF", tiffinfo={700: xmp})
    else:
        image.save(file, format_, xmp=xmp)
    return file.getvalue()


def add_iptc(jpeg: bytes, *keywords: bytes) -> bytes:
    """Add a Photoshop segment with IPTC keywords (IPTC-IIM 4.2, Photoshop image resources)."""
    records = b"".join(b"\x1c\x02\x19" + struct.pack(">H", len(keyword)) + keyword for keyword in keywords)
    padded = records + b"\0" * (len(records) % 2)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + padded
    segment = b"Photoshop 3.0\0" + resource
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_keywords_of_each_format(format_: str) -> None:
    assert read_keywords(save_image(format_, make_xmp("Tabby_Cat", "R&D", "Sofa", "sofa"))) == ["tabby cat", "r d", "sofa"]


def test_keywords_of_iptc() -> None:
    plain = save_image("JPEG", make_xmp("cat"))
    assert read_keywords(add_iptc(plain, "Zürich".encode(), "Genève".encode("latin-1"), b"cat")) == ["cat", "zürich", "genève"]


@pytest.mark.parametrize(
    "xmp",
    [
        b"",
        b"<",
        b"not XML",
        make_xmp("cat")[:-40],
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + make_xmp("cat"),
        make_xmp("x" * (MAX_KEYWORD_CHARS + 1)),
        make_xmp(" "),
        make_xmp("cat") + b" " * (1 << 20),
        b"<a>" * 20_000,
        make_xmp("cat").decode().encode("utf-16-be"),
        (b'<d:subject xmlns:d="http://purl.org/dc/elements/1.1/">' * 5_000) + b"<b/>" * 5_000 + b"</d:subject>" * 5_000,
    ],
)
def test_hostile_packets_give_no_keywords(xmp: bytes) -> None:
    found = read_keywords(save_image("TIFF", xmp or b"\0"))
    assert found in ([], ["cat"])  # what stands before a broken end may count
    assert len(xmp) < 1 << 20 or not found


def test_number_of_keywords_is_bounded() -> None:
    assert len(read_keywords(save_image("PNG", make_xmp(*(f"k{i}" for i in range(MAX_KEYWORDS + 1)))))) == MAX_KEYWORDS


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\xff\xd8\xff", b"8BIM"])
def test_other_bytes_have_none(data: bytes) -> None:
    assert read_keywords(data) == []


def test_it_has_no_options() -> None:
    with expect_error("unknown-enricher-option", UsageError):
        KIND.build({"field": "x"})
