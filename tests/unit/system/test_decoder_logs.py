"""Decoder messages about damaged files: kept in applications, silenced in our processes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

_HOST = """
import logging, sys, warnings
from pathlib import Path
import numpy
from PIL import Image

def get_settings():
    return [*warnings.filters], logging.getLogger("PIL").level, Image.MAX_IMAGE_PIXELS

before = get_settings()
from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import ImageSpec
if "ours" in sys.argv:
    from stair_es.system.decoder_logs import disable_decoder_logs
    disable_decoder_logs()
for path in sorted(Path().glob("*.tiff")):
    try:
        decode_image(path.read_bytes(), ImageSpec(size_px=16), DecodeLimits())
    except DecodeError:
        print(path.stem)
print(get_settings() == before)
"""


@pytest.fixture
def damaged_folder(tmp_path: Path) -> Path:
    """A folder with a file that libtiff prints an error about, and one that Pillow warns about."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "TIFF", compression="tiff_lzw")
    data = buffer.getvalue()
    (tmp_path / "cut.tiff").write_bytes(data[:-40])
    (tmp_path / "zeros.tiff").write_bytes(data[:100] + bytes(40) + data[140:])
    return tmp_path


def run_decoder(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Decode in a process of its own: pytest has filters, and what C prints passes it by."""
    return subprocess.run([sys.executable, "-c", _HOST, *arguments], cwd=folder, capture_output=True, text=True, check=True)


def test_an_application_keeps_its_settings(damaged_folder: Path) -> None:
    done = run_decoder(damaged_folder)
    assert done.stdout.split() == ["cut", "zeros", "True"]
    assert ("UserWarning: " in done.stderr, "LZWDecode" in done.stderr) == (True, True)


def test_own_processes_are_quiet(damaged_folder: Path) -> None:
    done = run_decoder(damaged_folder, "ours")
    assert (done.stdout.split(), done.stderr) == (["cut", "zeros", "False"], "")


def test_the_command_is_quiet(damaged_folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("stair-es")), "encode", "zeros.tiff"]
    done = subprocess.run(command, cwd=damaged_folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error[image-damaged]: " in done.stderr
    assert "LZWDecode" not in done.stderr
