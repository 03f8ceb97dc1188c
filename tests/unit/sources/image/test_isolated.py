"""Formats that are decoded in a process apart: what a decoder does wrong costs one image."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pillow_heif
import pillow_jxl  # noqa: F401  registers itself
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image import isolated
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.isolated import ISOLATED_FORMATS, IsolatedFormat, find_isolated_format, open_isolated
from stair_es.types import ImageSpec

pillow_heif.register_heif_opener()
SPEC = ImageSpec(size_px=64)
HALVES = Image.new("RGB", (120, 80), (200, 30, 20))
HALVES.paste((20, 30, 200), (0, 0, 120, 40))
NAMES = [each.name for each in ISOLATED_FORMATS]
DECODER = """
import os, signal, socket, time

class HeifImageFile:
    def __init__(self, file, name):
        exec(file.read().decode())
"""


def save_image(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedFormat]:
    """A format whose files are programs, which its decoder runs."""
    (tmp_path / "decoder_of_programs.py").write_text(DECODER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STAIR_ES_PASSWORD", "not for decoders")
    isolated._end_workers()  # the next one knows the folder
    yield IsolatedFormat("HEIF", frozenset(), "decoder_of_programs", None)
    isolated._end_workers()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_are_read(name: str, mode: str) -> None:
    decoded = decode_image(save_image(HALVES.convert(mode), name), SPEC, DecodeLimits(), thumbnail_px=32)
    assert (decoded.format, decoded.width, decoded.height) == (name, 120, 80)
    [above, below] = (decoded.pixels_HWC[row, 32].astype(int) for row in (20, 44))
    assert [(above > below).tolist(), (above < below).tolist()] == (
        [[False] * 3, [True] * 3] if mode == "L" else [[False, False, True], [True, False, False]]
    )


@pytest.mark.parametrize(("name", "box"), [("HEIF", b"irot"), ("HEIF", b"free"), ("JXL", b"")])
def test_time_and_orientation_are_read(name: str, box: bytes) -> None:
    """That of a HEIF file is its property `irot`; some that other programs have written have only EXIF."""
    exif = Image.Exif()
    exif[274], exif[306] = 6, "2026:05:17 10:11:12"
    decoded = decode_image(save_image(HALVES, name, exif=exif.tobytes()).replace(b"irot", box), SPEC, DecodeLimits())
    assert [int(value) // 64 for value in decoded.pixels_HWC[32, 52]] == [0, 0, 3]
    assert (decoded.width, decoded.height, decoded.taken_at) == (80, 120, "2026-05-17T10:11:12")


@pytest.mark.parametrize("name", NAMES)
def test_each_has_half_of_the_pixels(name: str) -> None:
    data = save_image(HALVES, name)
    assert decode_image(data, SPEC, DecodeLimits(max_pixels=2 * 120 * 80)).width == 120
    with expect_error("decompression-bomb", DecodeError):
        decode_image(data, SPEC, DecodeLimits(max_pixels=2 * 120 * 80 - 1))


@pytest.mark.parametrize("name", NAMES)
def test_none_is_read_where_they_are_not_allowed(name: str) -> None:
    with expect_error("format-not-accepted", DecodeError):
        decode_image(save_image(HALVES, name), SPEC, DecodeLimits(is_isolated_allowed=False))


def test_without_a_fork_they_are_named_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "CAN_FORK", False)
    with expect_error("format-not-supported", DecodeError):
        decode_image(save_image(HALVES, "HEIF"), SPEC, DecodeLimits())
    assert isolated.get_readable_suffixes(with_documents=True) & {".heic", ".jp2", ".pdf", ".jpg"} == {".jpg"}


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "is_installed", lambda module: False)
    with expect_error("format-not-installed", DecodeError):
        decode_image(save_image(HALVES, "HEIF"), SPEC, DecodeLimits())
    assert [each.extra for each in isolated.list_missing_formats()] == ["heic", "jxl", "pdf"]
    assert isolated.get_readable_suffixes() & {".heic", ".jxl", ".jp2", ".dng", ".jpg"} == {".jp2", ".dng", ".jpg"}


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        (b"heic\0\0\0\0mif1heic", "HEIF"),
        (b"mif1\0\0\0\0mif1heic", "HEIF"),
        (b"mif1\0\0\0\0mif1avif", None),
        (b"avif\0\0\0\0mif1", None),
        (b"mp42\0\0\0\0", None),
    ],
)
def test_brands_tell_heif_from_avif(brands: bytes, name: str | None) -> None:
    data = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"avif"
    found = find_isolated_format(data)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "decoder-crashed", ["SIGSEGV"]),
        ("os._exit(3)", "decoder-crashed", ["3"]),
        ("os._exit(0)", "decoder-crashed", []),
        ("bytes(1 << 40)", "decoder-out-of-memory", []),
        ("[bytes(1 << 24) for _ in range(1000)]", "decoder-out-of-memory", []),
        ("while True: pass", "decoding-too-slow", []),
        ("time.sleep(600)", "decoding-too-slow", []),
        ("raise ValueError(sorted(os.environ))", "image-damaged", []),
        ("open('/etc/hostname')", "image-damaged", ["OSError"]),
        ("socket.socket()", "image-damaged", ["OSError"]),
        ("raise BaseException", "decoder-crashed", []),
    ],
)
def test_a_decoder_costs_its_own_image(
    monkeypatch: pytest.MonkeyPatch, decoder: IsolatedFormat, program: str, code: str, words: list[str]
) -> None:
    monkeypatch.setattr(isolated, "MAX_CPU_S", 1)
    monkeypatch.setattr(isolated, "MAX_WALL_S", 3 if "sleep" in program else 600)
    with expect_error(code, DecodeError) as caught:
        open_isolated(program.encode(), decoder, 1000)
    assert all(word in str(caught.value) for word in words)
    assert "STAIR_ES" not in str(caught.value)
    monkeypatch.setattr(isolated, "MAX_CPU_S", 60)
    assert isolated._idle.qsize() == 1  # and its process does the next one
    assert decode_image(save_image(HALVES, "JPEG2000"), SPEC, DecodeLimits()).width == 120


def test_a_process_that_was_killed_is_replaced() -> None:
    data = save_image(HALVES, "JPEG2000")
    decode_image(data, SPEC, DecodeLimits())
    process = isolated._idle.queue[-1]._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert decode_image(data, SPEC, DecodeLimits()).width == 120
    assert isolated._idle.queue[-1]._process is not process


def test_threads_get_their_own_pictures() -> None:
    files = [save_image(Image.new("RGB", (40 + i, 30), (5 * i, 0, 0)), "JPEG2000", irreversible=False) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: decode_image(data, SPEC, DecodeLimits()), files))
    assert [(each.width, int(each.pixels_HWC[32, 32, 0])) for each in found] == [(40 + i, 5 * i) for i in range(40)]
