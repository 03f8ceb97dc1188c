"""Formats whose decoders are libraries in C with a record of holes, HEIF, JPEG XL, JPEG 2000 and PDF: decoded in a process apart.

What such a decoder can take or break is one image: it ends with pixels or with a `DecodeError`, and the next one gets another
process (`isolated_worker`).
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, LifoQueue
from typing import IO, TYPE_CHECKING, Any, cast

from PIL import Image

from stair_es.errors import DecodeError, DecompressionBomb
from stair_es.optional import format_install_command, is_installed
from stair_es.sources.image.bombs import check_pixels, compute_max_pixels
from stair_es.sources.image.exif import TRANSPOSES
from stair_es.sources.image.isolated_worker import MAX_METADATA_BYTES, RASTER_MODES, ForkLimits
from stair_es.sources.io.uris import HEIF_SUFFIXES, IMAGE_SUFFIXES, JPEG_2000_SUFFIXES, JXL_SUFFIXES

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

CAN_FORK = hasattr(os, "fork")
"""Not on Windows, where these formats aren't read: a decoder in this process could take or break everything."""
_START = "import sys; sys.path[:] = sys.argv[1:]; from stair_es.sources.image.isolated_worker import main; main()"
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")
MAX_MEMORY_BYTES = 3 << 30
"""Address space. The decoders take up to 16 bytes for each pixel, of at most 64 million."""
MAX_CPU_S = 60
MAX_WALL_S = 300
"""For a decoder that waits for something that never comes."""
_MAX_ANSWER_BYTES = 4 * MAX_METADATA_BYTES
MAX_ISOLATED_PIXELS = 1 << 28
"""The pixels of an image are sent in memory of four bytes each, whatever `--max-pixels` allows."""
_PATIENCE_S = 60
"""For the process to notice that a decoder has taken too long."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_GENERAL_BRANDS = (b"mif1", b"mif2", b"msf1")
_MAX_BRANDS_BYTES = 256


@dataclass(frozen=True)
class IsolatedFormat:
    """A format that is decoded in a process apart."""

    name: str
    """As Pillow names it."""
    suffixes: frozenset[str]
    module: str
    """The module with Pillow's plugin."""
    extra: str | None
    """The extra that installs it; None if Pillow has it."""

    @property
    def is_installed(self) -> bool:
        """Return whether the module can be imported, and run apart."""
        return CAN_FORK and (self.extra is None or is_installed(self.module.partition(".")[0]))


ISOLATED_FORMATS = (
    IsolatedFormat("HEIF", HEIF_SUFFIXES, "pillow_heif", "heic"),
    IsolatedFormat("JXL", JXL_SUFFIXES, "pillow_jxl.JpegXLImagePlugin", "jxl"),
    IsolatedFormat("JPEG2000", JPEG_2000_SUFFIXES, "PIL.Jpeg2KImagePlugin", None),
)

PDF = IsolatedFormat("PDF", frozenset({".pdf"}), "pypdfium2", "pdf")
TIFF = IsolatedFormat("TIFF", frozenset({".tif", ".tiff"}), "PIL.TiffImagePlugin", None)


def find_isolated_format(data: bytes) -> IsolatedFormat | None:
    """Return the format of a file by its first bytes; None for all other formats."""
    heif, jxl, jpeg_2000 = ISOLATED_FORMATS
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return jxl
    if data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return jpeg_2000
    if data[4:8] == b"ftyp" and (brand := data[8:12]) in _HEIF_BRANDS + _GENERAL_BRANDS:
        others = data[16 : min(int.from_bytes(data[:4], "big"), _MAX_BRANDS_BYTES)]
        is_avif = brand in _GENERAL_BRANDS and any(others[at : at + 4] in (b"avif", b"avis") for at in range(0, len(others), 4))
        return None if is_avif else heif
    return None


def list_missing_formats() -> list[IsolatedFormat]:
    """Return the formats whose decoders aren't installed."""
    return [each for each in (*ISOLATED_FORMATS, PDF) if not each.is_installed]


def get_readable_suffixes(*, with_documents: bool = False) -> frozenset[str]:
    """Return the suffixes of images that can be read, all but those of missing formats, and of documents on request."""
    documents = PDF.suffixes if with_documents else frozenset[str]()
    return (IMAGE_SUFFIXES | documents).difference(*(each.suffixes for each in list_missing_formats()))


def open_isolated(data: bytes, kind: IsolatedFormat, max_pixels: int) -> PilImage:
    """Decode a file in a process apart; it may have as many pixels as `check_pixels` allows its format.

    Raises:
        DecodeError: If it can't be decoded, takes too many pixels, too much time or memory, or its decoder isn't installed or
            crashes.
    """
    answer, pixels = _run_worker(data, kind, max_pixels)
    image = Image.frombytes(answer["mode"], tuple(answer["size"]), pixels)
    if answer["orientation"] in TRANSPOSES:
        image = image.transpose(TRANSPOSES[answer["orientation"]])
    image.format = kind.name
    image.info.update((name, base64.b64decode(answer[name])) for name in ("exif", "xmp") if name in answer)
    return image


def count_pages(data: bytes) -> int:
    """Count the pages of a PDF, in a process apart.

    Raises:
        DecodeError: If it is damaged or encrypted, or takes too much time or memory.
    """
    answer, _ = _run_worker(data, PDF, 1, page=0)
    return int(answer["pages"])


def render_page(data: bytes, kind: IsolatedFormat, page: int, max_pixels: int) -> tuple[PilImage, str]:
    """Render a page of a PDF (1 for the first one), or a directory of a TIFF (0 for the first one), in a process apart.

    Returns:
        The picture, and the text of the page; empty if it has none.

    Raises:
        DecodeError: As `open_isolated`.
    """
    answer, pixels = _run_worker(data, kind, max_pixels, page=page)
    return Image.frombytes(answer["mode"], tuple(answer["size"]), pixels), str(answer.get("text", ""))


def _run_worker(data: bytes, kind: IsolatedFormat, max_pixels: int, page: int | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the answer to a task, and its bytes; raise DecodeError if it has failed."""
    if not CAN_FORK:
        raise DecodeError(f"{kind.name} isn't read on this system, which can't fork a process", code="format-not-supported")
    if not kind.is_installed:
        raise DecodeError(f"{kind.name} is read with an extra: {format_install_command(kind.extra)}", code="format-not-installed")
    limit = min(MAX_ISOLATED_PIXELS, compute_max_pixels(kind.name, max_pixels))
    try:
        worker = _take_worker()
    except OSError as error:  # no memory, or no descriptors
        raise DecodeError(
            f"the process of the decoder can't be started: {error.strerror or error}", code="decoder-crashed"
        ) from None
    try:
        answer, payload = worker.run(data, kind, limit, page)
    except BaseException:  # an interruption, too: the next image would get the rest of this answer
        worker.end()
        raise
    _idle.put(worker)
    if "error" in answer:
        raise DecodeError(str(answer["error"]), code=str(answer["code"]))
    if "size" in answer:
        width, height = answer["size"]
        check_pixels(width, height, kind.name, max_pixels)
        if "mode" not in answer:
            raise DecompressionBomb(f"decompression bomb? {width} x {height} pixels exceed the limit of {limit} for {kind.name}")
    return answer, payload


class _Worker:
    """A process that runs `isolated_worker`, without the environment of this one, which may have passwords."""

    def __init__(self) -> None:
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _START, *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            start_new_session=True,
        )

    def run(self, data: bytes, kind: IsolatedFormat, max_pixels: int, page: int | None) -> tuple[dict[str, Any], bytes]:
        """Return the answer of the process and the bytes that belong to it.

        Raises:
            DecodeError: If it has ended, or answers something else.
        """
        limits = ForkLimits(max_pixels=max_pixels, max_memory_bytes=MAX_MEMORY_BYTES, max_cpu_s=MAX_CPU_S, max_wall_s=MAX_WALL_S)
        request = {"format": kind.name, "module": kind.module, "page": page, "bytes": len(data), "limits": asdict(limits)}
        timer = threading.Timer(MAX_WALL_S + _PATIENCE_S, self.end)
        timer.start()
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.write(data)
            self._stdin.flush()
            answer = dict(json.loads(self._stdout.readline(_MAX_ANSWER_BYTES)))
            size = int(answer.get("bytes", 0))
            payload = self._stdout.read(size) if size <= max_pixels * max(RASTER_MODES.values()) else b""
        except (OSError, ValueError, KeyError, TypeError):
            payload, size, answer = b"", -1, {}
        finally:
            timer.cancel()
        if len(payload) != size:
            raise DecodeError("the process of the decoder has ended", code="decoder-crashed")
        return answer, payload

    @property
    def is_running(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.poll() is None

    @property
    def _stdin(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    @property
    def _stdout(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdout)

    def end(self) -> None:
        """End the process, and one that decodes for it."""
        if self.is_running:  # else its number may be that of another one
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._stdin, self._stdout):
            with suppress(OSError):
                file.close()


_idle: LifoQueue[_Worker] = LifoQueue()
"""Processes without an image: as many as have decoded at the same time."""


def _take_worker() -> _Worker:
    while True:
        try:
            worker = _idle.get_nowait()
        except Empty:
            return _Worker()
        if worker.is_running:
            return worker
        worker.end()


def _forget_workers() -> None:
    """Leave the processes to the parent of a fork."""
    global _idle
    _idle = LifoQueue()


if CAN_FORK:
    os.register_at_fork(after_in_child=_forget_workers)


@atexit.register
def _end_workers() -> None:
    while True:
        try:
            _idle.get_nowait().end()
        except Empty:
            return
