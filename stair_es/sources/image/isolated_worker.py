"""The program that decodes images apart: it loads the decoders once, and forks for each image, so that none outlives its image.

It reads requests from standard input and answers on standard output: each is a line of JSON and the bytes that it announces. The
fork has limits of memory and time, can open no file and no socket, and its parent has no variables of the environment. That
bounds what a damaged file can take. It isn't a sandbox: an exploit that brings code of its own may do what this user may.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import mmap
import os
import resource
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from stair_es.sources.image.exif import TRANSPOSES

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Header: TypeAlias = dict[str, Any]
RASTER_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2}
"""Modes of Pillow in which pixels are sent, and their bytes for each pixel. Others are converted to RGBA."""
MAX_METADATA_BYTES = 1 << 20
_MAX_REASON_CHARS = 400
_OPTIONS = {
    "pillow_heif.options": {"DECODE_THREADS": 1, "THUMBNAILS": False, "DEPTH_IMAGES": False, "AUX_IMAGES": False},
    "pillow_jxl.JpegXLImagePlugin": {"DECODE_THREADS": 0},
}
"""Variables of the decoders' modules: one thread, and nothing but the picture itself."""
_DECODERS = {"HEIF": "HeifImageFile", "JXL": "JXLImageFile", "JPEG2000": "Jpeg2KImageFile"}


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
            answer, pixels = _decode_in_fork(decoders[module], data, ForkLimits(**request["limits"]))
        except ImportError as error:
            answer, pixels = {"error": f"{request['module']} can't be imported: {error}", "code": "format-not-installed"}, None
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        if pixels is not None:
            sys.stdout.buffer.write(memoryview(pixels)[: answer["bytes"]])
        sys.stdout.buffer.flush()


def load_decoder(module: str, format_: str) -> Any:  # noqa: ANN401  classes of Pillow's plugins
    """Import the decoder of a format."""
    Image.init()  # a decoder may open a part with another one, and a fork can't open files
    decoder = getattr(importlib.import_module(module), _DECODERS[format_])
    for name, options in _OPTIONS.items():
        if name in sys.modules:
            vars(sys.modules[name]).update(options)
    return decoder


def _decode_in_fork(decoder: Any, data: bytes, limits: ForkLimits) -> tuple[Header, mmap.mmap | None]:  # noqa: ANN401
    """Return the answer and the memory with the pixels; the answer has an error if the fork has ended without one."""
    pixels = mmap.mmap(-1, max(1, limits.max_pixels * max(RASTER_MODES.values())))  # takes memory as it is written
    reader, writer = os.pipe()
    fork = os.fork()
    if not fork:
        os.close(reader)
        _apply_limits(limits)
        with open(writer, "wb", closefd=False) as file:
            file.write(json.dumps(_decode_answering(decoder, data, limits, pixels)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:  # noqa: PTH123
        text = answers.read()
    status = os.waitpid(fork, 0)[1]
    answer = _explain_end(status, limits) if status or not text else json.loads(text)
    return answer, pixels if "bytes" in answer else None


def _apply_limits(limits: ForkLimits) -> None:
    os.close(0)
    os.close(1)
    for kind, limit in (
        (resource.RLIMIT_AS, limits.max_memory_bytes),
        (resource.RLIMIT_CPU, limits.max_cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),  # no file and no socket beside those that are open
    ):
        hard = resource.getrlimit(kind)[1]
        highest = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        at_once = kind != resource.RLIMIT_CPU  # which has SIGXCPU before SIGKILL
        resource.setrlimit(kind, (min(limit, highest), min(limit if at_once else limit + 1, highest)))
    signal.alarm(limits.max_wall_s)


def _decode_answering(decoder: Any, data: bytes, limits: ForkLimits, pixels: mmap.mmap) -> Header:  # noqa: ANN401
    try:
        return _decode(decoder, data, limits.max_pixels, pixels)
    except MemoryError:
        return {"error": f"needs more than {limits.max_memory_bytes >> 20:,} MiB of memory", "code": "decoder-out-of-memory"}
    except Exception as error:  # noqa: BLE001  decoders raise anything on hostile bytes
        reason = " ".join(str(error).split())[:_MAX_REASON_CHARS]
        return {"error": f"can't be decoded: {type(error).__name__}: {reason}", "code": "image-damaged"}


def _decode(decoder: Any, data: bytes, max_pixels: int, pixels: mmap.mmap) -> Header:  # noqa: ANN401
    image: PilImage = decoder(io.BytesIO(data), "")
    if image.width * image.height <= max_pixels:
        image.load()
    if image.width * image.height > max_pixels:  # a decoder may correct the size
        return {"size": image.size}
    orientation = image.info.get("original_orientation")  # of HEIF: in EXIF, which counts if the file has none of its own
    if orientation in TRANSPOSES and not any(box in data for box in (b"irot", b"imir")):
        image = image.transpose(TRANSPOSES[orientation])
    if image.mode not in RASTER_MODES:
        image = image.convert("RGBA")
    raster = image.tobytes()
    pixels[: len(raster)] = raster
    metadata = {
        name: base64.b64encode(value).decode()
        for name in ("exif", "xmp")
        if isinstance(value := image.info.get(name), bytes) and len(value) <= MAX_METADATA_BYTES
    }
    return {"size": image.size, "mode": image.mode, "bytes": len(raster), **metadata}


def _explain_end(status: int, limits: ForkLimits) -> Header:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGXCPU, signal.SIGALRM):
        return {"error": f"would take too long: more than {limits.max_cpu_s} s to decode", "code": "decoding-too-slow"}
    name = signal.Signals(number).name if number else f"exit code {os.WEXITSTATUS(status)}"
    return {"error": f"the decoder has crashed ({name})", "code": "decoder-crashed"}
