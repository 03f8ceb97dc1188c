"""Words and files -> vectors, with a toy encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stair_es.errors import DecodeError, QueryError
from stair_es.search.query_encoder import encode_query_image, encode_query_text
from stair_es.sources.base import ReadLimits
from stair_es.types import ImageSpec, Pixels, SparseVector


class BrightnessEncoder:
    """Toy encoder with one word per image, its brightness, and one per text, its length."""

    model_id = "brightness-1"
    image_spec = ImageSpec(size_px=8)

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        assert pixels_BHWC.shape[1:] == (8, 8, 3)
        return [SparseVector.from_mapping({"bright": float(p.mean()) + 1}) for p in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_mapping({word: 1.0 for word in text.split() if word != "unknown"}) for text in texts]


def test_a_text_becomes_its_vector() -> None:
    assert encode_query_text(BrightnessEncoder(), "red car").to_dict() == {"car": 1.0, "red": 1.0}


def test_texts_of_unknown_words_are_rejected() -> None:
    with pytest.raises(QueryError, match="'unknown unknown'") as caught:
        encode_query_text(BrightnessEncoder(), "unknown unknown")
    assert caught.value.remedy


def test_images_use_the_encoder_pixels(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.fromarray(np.full((30, 20, 3), 255, np.uint8)).save(path)
    assert encode_query_image(BrightnessEncoder(), path).to_dict() == {"bright": 256.0}


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"no image", "not an image"), (b"x" * 101, "exceed")])
def test_a_bad_file_is_named_with_its_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=reason) as caught:
        encode_query_image(BrightnessEncoder(), path, ReadLimits(max_bytes=100))
    assert "bad.jpg" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"gone\.jpg.*No such file"):
        encode_query_image(BrightnessEncoder(), tmp_path / "gone.jpg")
