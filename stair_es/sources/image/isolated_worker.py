"""The program that decodes images and pages apart: it loads the decoders once, and forks for each of them.

It reads requests from standard input and answers on standard output: each is a line of JSON and the bytes that it announces. A
fork has limits of memory and time, and can open no file and no socket. No password is in the environment. That bounds what a
damaged file can take. It isn't a sandbox: an exploit that brings code of its own may do what this user may.
"""

from __future__ import annotations

import base64
import codecs
import importlib
import io
import json
import mmap
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Header: TypeAlias = dict[str, Any]
RASTER_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "I;16B": 2, "I": 4, "F": 4}
"""Modes of Pillow in which pixels are sent, and their bytes for each pixel. Others are converted to RGBA."""
_CONVERTED = {"1": "L", "La": "LA", "I;16L": "I"}
MAX_METADATA_BYTES = 1 << 20
PAGE_PX = 2048
"""Longer side of a rendered page: 175 dots per inch of A4, so that small print can be read."""
MAX_PAGE_SCALE = 4.0
"""Pixels for each point of a small page."""
MAX_PAGE_CHARS = 20_000
_MAX_REASON_CHARS = 400
_OPTIONS = {
    "pillow_heif.options": {"DECODE_THREADS": 1, "THUMBNAILS": False, "DEPTH_IMAGES": False, "AUX_IMAGES": False},
    "pillow_jxl.JpegXLImagePlugin": {"DECODE_THREADS": 0},
}
"""Variables of the decoders' modules: one thread, and nothing but the picture itself."""
_DECODERS = {
    "HEIF": "HeifImageFile",
    "JXL": "JXLImageFile",
    "JPEG2000": "Jpeg2KImageFile",
    "PDF": "PdfDocument",
    "TIFF": "TiffImageFile",
}


@dataclass(frozen=True)
class Task:
    """What a fork does: decode an image, or read a page of a document."""

    decoder: Any
    """A class of a plugin of Pillow, or of pypdfium2."""
    format: str
    page: int | None
    """None for an image. Of a PDF 1 for the first page, and 0 for the number of pages; of a TIFF 0 for the first directory."""


@dataclass(frozen=True, kw_only=True)
class ForkLimits:
    """What a fork may take. Beyond the limit of memory an allocation fails; beyond one of time the fork ends."""

    max_pixels: int
    max_memory_bytes: int
    max_cpu_s: int
    max_wall_s: int


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the process that has started this one ends it
    decoders: dict[str, Any] = {}
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        data = sys.stdin.buffer.read(request["bytes"])
        try:
            module = request["module"]
            if module not in decoders:
                decoders[module] = load_decoder(module, request["format"])
            task = Task(decoders[module], request["format"], request["page"])
            answer, payload = _run_in_fork(task, data, ForkLimits(**request["limits"]))
        except Exception as error:  # noqa: BLE001  an import may raise anything: a library of the system is missing
            answer, payload = {"error": f"{request['module']} can't be loaded: {error}", "code": "format-not-installed"}, None
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        if payload is not None:
            sys.stdout.buffer.write(memoryview(payload)[: answer["bytes"]])
        sys.stdout.buffer.flush()
        del data, payload  # up to a gigabyte, until the next image


def load_decoder(module: str, format_: str) -> Any:  # noqa: ANN401  classes of Pillow's plugins
    """Import the decoder of a format."""
    Image.MAX_IMAGE_PIXELS = None  # ours was checked
    Image.init()  # a decoder may open a part with another one, and a fork can't open files, also not of modules
    for encoding in ("utf-8", "utf-16-le", "latin-1", "ascii"):
        codecs.lookup(encoding)
    decoder = getattr(importlib.import_module(module), _DECODERS[format_])
    for name, options in _OPTIONS.items():
        if name in sys.modules:
            vars(sys.modules[name]).update(options)
    return decoder


def _run_in_fork(task: Task, data: bytes, limits: ForkLimits) -> tuple[Header, mmap.mmap | None]:
    """Return the answer and the memory with its bytes; the answer has an error if the fork has ended without one."""
    payload = mmap.mmap(-1, max(1, limits.max_pixels * max(RASTER_MODES.values())))  # takes memory as it is written
    reader, writer = os.pipe()
    fork = os.fork()
    if not fork:
        try:
            os.close(reader)
            _apply_limits(limits)
            with open(writer, "wb", closefd=False) as file:
                file.write(json.dumps(_answer(task, data, limits, payload)).encode())
        except BaseException:  # noqa: BLE001  whatever happens, it must not go on as its parent
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:  # noqa: PTH123
        text = answers.read()
    status = os.waitpid(fork, 0)[1]
    answer = _explain_end(status, limits) if status or not text else json.loads(text)
    return answer, payload if "bytes" in answer else None


def _apply_limits(limits: ForkLimits) -> None:
    import resource  # not on Windows, where nothing forks, but which imports this module, too

    os.close(0)
    os.close(1)
    for kind, limit in (
        (resource.RLIMIT_AS, limits.max_memory_bytes + limits.max_pixels * max(RASTER_MODES.values())),
        (resource.RLIMIT_CPU, limits.max_cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),  # no file and no socket beside those that are open
    ):
        hard = resource.getrlimit(kind)[1]
        highest = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        at_once = kind != resource.RLIMIT_CPU  # which has SIGXCPU before SIGKILL
        with suppress(ValueError, OSError):  # macOS refuses a limit of the address space
            resource.setrlimit(kind, (min(limit, highest), min(limit if at_once else limit + 1, highest)))
    signal.alarm(limits.max_wall_s)


def _answer(task: Task, data: bytes, limits: ForkLimits, payload: mmap.mmap) -> Header:
    try:
        answer, image = _read_image(task, data) if task.page is None else _read_page(task, data)
        return answer if image is None else {**answer, **_send_pixels(image, limits.max_pixels, payload)}
    except MemoryError:
        return {"error": f"needs more than {limits.max_memory_bytes >> 20:,} MiB of memory", "code": "decoder-out-of-memory"}
    except Exception as error:  # noqa: BLE001  decoders raise anything on hostile bytes
        reason = " ".join(str(error).split())[:_MAX_REASON_CHARS]
        return {"error": f"can't be decoded: {type(error).__name__}: {reason}", "code": "image-damaged"}


def _read_image(task: Task, data: bytes) -> tuple[Header, PilImage]:
    """Return the image, without its pixels, and its metadata."""
    image: PilImage = task.decoder(io.BytesIO(data), "")
    metadata = {
        name: base64.b64encode(value).decode()
        for name in ("exif", "xmp")
        if isinstance(value := image.info.get(name), bytes) and len(value) <= MAX_METADATA_BYTES
    }
    orientation = image.info.get("original_orientation")  # of HEIF: in EXIF, which counts if the file has none of its own
    has_own = any(box in data for box in (b"irot", b"imir"))
    return {**metadata, "orientation": None if has_own else orientation}, image


def _read_page(task: Task, data: bytes) -> tuple[Header, PilImage | None]:
    """Return the picture of a page and its text; of page 0 of a PDF the number of pages."""
    if task.format == "TIFF":
        image: PilImage = task.decoder(io.BytesIO(data), "")
        image.seek(task.page or 0)
        return {}, image
    document = task.decoder(data)
    if not task.page:
        return {"pages": len(document)}, None
    if task.page > len(document):
        return {"error": f"no page {task.page} in a document of {len(document)}", "code": "no-such-page"}, None
    page = document[task.page - 1]
    scale = min(MAX_PAGE_SCALE, PAGE_PX / max(*page.get_size(), 1))
    text = page.get_textpage().get_text_range()[:MAX_PAGE_CHARS]
    return {"text": text.encode("utf-8", "replace").decode()}, page.render(scale=scale).to_pil()


def _send_pixels(image: PilImage, max_pixels: int, payload: mmap.mmap) -> Header:
    """Decode the pixels into the payload; if they are too many, return their number alone."""
    if image.width * image.height <= max_pixels:
        image.load()
    if image.width * image.height > max_pixels:  # a decoder may correct the size
        return {"size": image.size}
    if image.mode not in RASTER_MODES:
        image = image.convert(_CONVERTED.get(image.mode, "RGBA"))
    raster = image.tobytes()
    payload[: len(raster)] = raster
    return {"size": image.size, "mode": image.mode, "bytes": len(raster)}


def _explain_end(status: int, limits: ForkLimits) -> Header:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGXCPU, signal.SIGALRM):
        limit_s = limits.max_cpu_s if number == signal.SIGXCPU else limits.max_wall_s
        return {"error": f"would take too long: more than {limit_s} s to decode", "code": "decoding-too-slow"}
    name = signal.Signals(number).name if number else f"exit code {os.WEXITSTATUS(status)}"
    return {"error": f"the decoder has crashed ({name})", "code": "decoder-crashed"}
