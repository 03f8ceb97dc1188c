"""Decode image bytes to RGB pixels of the size an encoder expects, with metadata and thumbnail for the document.

Every photo that Pillow can read becomes upright 8-bit RGB on the encoder's background: first frame of an animation, EXIF
rotation applied, transparency composited, CMYK and 16-bit converted. Everything else is a `DecodeError` with a reason.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from stair_es.config.defaults import MAX_PIXELS
from stair_es.errors import DecodeError
from stair_es.sources.image.bombs import check_pixels
from stair_es.sources.image.colors import name_colors
from stair_es.sources.image.exif import TRANSPOSES, find_exif_block, read_exif, read_xmp_orientation
from stair_es.sources.image.pillow import load_pixels, open_image
from stair_es.types import ImageSpec, Pixels, Resample, ResizeMode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

_Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right, lower."""
_ROTATED = (5, 6, 7, 8)
_MAX_CROP_RATIO = 100
"""Maximum ratio of the sides of an image to be center-cropped: it is resized as a whole first."""
MAX_SQUASH = 1.35
"""Maximum change of the aspect ratio by `squash`: 4:3 becomes a square, longer images keep some background."""
_FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits on the cost of decoding an image."""

    max_pixels: int = MAX_PIXELS
    """Width times height, checked before decoding (decompression bombs); half for `DOUBLE_MEMORY_FORMATS`."""
    is_isolated_allowed: bool = True
    """Whether formats are read whose decoders have a record of holes, each file in a process apart (`ISOLATED_FORMATS`)."""


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """One decoded image, ready for the encoder."""

    pixels_HWC: Pixels
    box: tuple[int, int, int, int]
    """Position of the picture on the square of pixels: left, upper, right, lower."""
    width: int
    """Width of the upright original, before resizing."""
    height: int
    format: str
    taken_at: str | None
    """ISO 8601 local time from EXIF."""
    colors: tuple[str, ...]
    """Names of the colors of the whole picture, dominant first, independent of the encoder's square."""
    perceptual_hash: str | None
    """64 bits in hex, which differ in a few places for the same picture in another size or quality; None for a plain color."""
    thumbnail: str | None
    """A WebP data URI."""
    exif: bytes = b""
    """The EXIF block, or the TIFF file itself; empty if there is none."""


def decode_image(data: bytes | PilImage, spec: ImageSpec, limits: DecodeLimits, thumbnail_px: int = 0) -> DecodedImage:
    """Decode `data` to upright RGB pixels on a square of `spec.size_px`, with metadata and thumbnail.

    `data` is the content of a file, or an image of Pillow, which stays open. `thumbnail_px` is the longer side of the thumbnail,
    0 for none.
    """
    if isinstance(data, bytes) and not data:
        raise DecodeError("the file is empty (0 bytes)", code="file-empty")
    try:
        return _decode_image(data, spec, limits, thumbnail_px)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("not an image in a known format", code="unknown-image-format") from None
    except Exception as error:
        raise DecodeError(f"can't be decoded: {type(error).__name__}: {error}", code="image-damaged") from error


def _decode_image(data: bytes | PilImage, spec: ImageSpec, limits: DecodeLimits, thumbnail_px: int) -> DecodedImage:
    with _open(data, limits) as image:
        width, height = image.size
        check_pixels(width, height, image.format, limits.max_pixels)
        shrink = _choose_shrink(width, height, spec)  # the same with and without a thumbnail, so that the pixels are too
        drafted = None
        if shrink < 1 and spec.resample != "nearest":  # which takes single pixels instead of averages
            drafted = image.draft("RGB", (math.ceil(width * shrink), math.ceil(height * shrink)))  # JPEG only: decode it smaller
        load_pixels(image)
        exif, orientation, taken_at = _read_exif(image, data)
        upright = replace_image(image, image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image)
        # `crop` and `stretch` reproduce the preprocessing of others: exactly, except for JPEGs decoded smaller.
        whole = spec.fit in ("pad", "squash")
        layer = convert_to_layer(upright, factor=max(1, int(1 / shrink)) if whole else 1)
        colors = name_colors(layer)
        rgb = flatten_layer(layer, spec.background)
        box = _turn_box(drafted[1], rgb.size, orientation) if drafted else (0, 0, *rgb.size)
        small = _resize_to_fit(rgb, spec, box) if whole else _fill_square(rgb, spec, box)
        left, upper = (spec.size_px - small.width) // 2, (spec.size_px - small.height) // 2
        if max(rgb.size) < min(thumbnail_px, max(width, height)):  # decoded too small for the thumbnail
            larger = ImageSpec(size_px=thumbnail_px, background=spec.background)
            thumbnail = _decode_image(data, larger, limits, thumbnail_px).thumbnail
        else:
            is_enough = thumbnail_px <= spec.size_px and spec.fit == "pad"
            thumbnail = _encode_thumbnail(small if is_enough else rgb, thumbnail_px) if thumbnail_px else None
        return DecodedImage(
            pixels_HWC=_pad_to_square(small, spec, left, upper),
            box=(left, upper, left + small.width, upper + small.height),
            width=height if orientation in _ROTATED else width,
            height=width if orientation in _ROTATED else height,
            format="JPEG" if image.format == "MPO" else str(image.format),
            taken_at=taken_at,
            colors=colors,
            perceptual_hash=compute_perceptual_hash(small if whole else rgb),
            thumbnail=thumbnail,
            exif=exif,
        )


def _open(data: bytes | PilImage, limits: DecodeLimits) -> PilImage:
    if isinstance(data, bytes):
        return open_image(data, limits.max_pixels, is_isolated_allowed=limits.is_isolated_allowed)
    check_pixels(data.width, data.height, data.format, limits.max_pixels)  # a copy has all pixels
    return data.copy()


def _choose_shrink(width: int, height: int, spec: ImageSpec) -> float:
    """Return by what an image may be scaled before it is resized; 1 and more for not at all.

    Half the size is precise enough if twice the model's pixels are left, a quarter and an eighth if 2.5 times are: measured by
    benchmarks/decode.py.
    """
    times = (max(width, height) if spec.fit == "pad" else min(width, height)) / (spec.resized_px or spec.size_px)
    return (2 if times < 5 else 2.5) / times


def _pad_to_square(small: PilImage, spec: ImageSpec, left: int, upper: int) -> Pixels:
    """Return the image centered on a square of `spec.size_px` (`pixels_HWC`)."""
    square = Image.new("RGB", (spec.size_px, spec.size_px), spec.background)
    square.paste(small, (left, upper))
    return np.asarray(square)


def _turn_box(box: tuple[float, ...], size: tuple[int, int], orientation: int) -> _Box:
    """Return the part of an upright image that its JPEG fills: sizes that the scale doesn't divide leave a part of a pixel."""
    width, height = (box[3], box[2]) if orientation in _ROTATED else (box[2], box[3])
    left = size[0] - width if orientation in (2, 3, 6, 7) else 0
    upper = size[1] - height if orientation in (3, 4, 7, 8) else 0
    return left, upper, left + width, upper + height


def _resize_to_fit(rgb: PilImage, spec: ImageSpec, box: _Box) -> PilImage:
    """Resize the part of an image within `box`."""
    size = compute_contained_size(box[2] - box[0], box[3] - box[1], spec.size_px, spec.fit)
    return rgb if size == rgb.size else rgb.resize(size, _FILTERS[spec.resample], box, reducing_gap=3.0)


def compute_contained_size(width: float, height: float, side_px: int, fit: ResizeMode) -> tuple[int, int]:
    """Compute the size at which a whole image fits into a square.

    `squash` first shortens the longer side by a factor of at most `MAX_SQUASH`; other values of `fit` keep the aspect ratio.
    """
    longer, shorter = max(width, height), min(width, height)
    if fit == "squash":
        shorter_px = max(1, round(side_px * min(1.0, MAX_SQUASH / (longer / shorter))))
        return (side_px, shorter_px) if width >= height else (shorter_px, side_px)
    scale = side_px / longer
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fill_square(rgb: PilImage, spec: ImageSpec, box: _Box) -> PilImage:
    """Fill the square as CLIP and others do: resize by the shorter side, or without keeping the ratio, then center-crop."""
    side_px = spec.resized_px or spec.size_px
    width, height = side_px, side_px
    if spec.fit == "crop":
        across, down = box[2] - box[0], box[3] - box[1]
        longer_px = int(side_px * max(across, down) / min(across, down))
        if longer_px > _MAX_CROP_RATIO * side_px:
            raise DecodeError(f"{rgb.width} x {rgb.height} pixels are too long for a center crop", code="image-too-long")
        width, height = (side_px, longer_px) if across <= down else (longer_px, side_px)
    resized = rgb.resize((width, height), _FILTERS[spec.resample], box)
    left, upper = round((width - spec.size_px) / 2), round((height - spec.size_px) / 2)
    return resized.crop((left, upper, left + spec.size_px, upper + spec.size_px))


def _read_exif(image: PilImage, data: bytes | PilImage) -> tuple[bytes, int, str | None]:
    """Return the EXIF block of a loaded image, its orientation, and when it was taken."""
    if image.format == "TIFF" and isinstance(data, bytes):
        return data, 1, read_exif(data)[1]  # Pillow has turned it
    block = find_exif_block(image.info)
    orientation, taken_at = read_exif(block)
    return block, orientation or read_xmp_orientation(image.info) or 1, taken_at


def compute_perceptual_hash(rgb: PilImage) -> str | None:
    """Compute the difference hash of a picture: whether each of 8 x 8 places is darker than the next one to the right.

    The method is Neal Krawetz's dHash (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html). The
    bits are in the order of the package ImageHash, row by row from the upper left.
    """
    gray_HW = np.asarray(rgb.convert("L").resize((9, 8), Image.Resampling.LANCZOS, reducing_gap=3.0))
    if gray_HW.min() == gray_HW.max():
        return None
    return np.packbits(gray_HW[:, 1:] > gray_HW[:, :-1]).tobytes().hex()


def shrink_to_thumbnail(rgb: PilImage, side_px: int) -> PilImage:
    """Shrink a picture to fit into a square; a smaller one stays as it is."""
    if max(rgb.size) <= side_px:
        return rgb
    size = compute_contained_size(rgb.width, rgb.height, side_px, "pad")
    return rgb.resize(size, Image.Resampling.HAMMING, reducing_gap=1.5)  # a gap of 1 saves 1 ms, and costs 5 % more bytes


def _encode_thumbnail(rgb: PilImage, side_px: int) -> str:
    buffer = io.BytesIO()
    shrink_to_thumbnail(rgb, side_px).save(buffer, "WEBP", quality=50, method=2)  # measured: benchmarks/decode.py
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_STRIP_PX = 1 << 20
"""Pixels converted per strip."""


def replace_image(old: PilImage, new: PilImage) -> PilImage:
    """Return the new image and free the pixels of the old one."""
    if new is not old:
        old.close()
    return new


def _split_into_strips(image: PilImage, factor: int = 1) -> Iterator[tuple[int, PilImage]]:
    """Yield strips of the image, each with its upper edge; heights except the last one's are multiples of `factor`."""
    rows = max(1, _STRIP_PX // image.width // factor) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def convert_to_layer(image: PilImage, factor: int) -> PilImage:
    """Convert to 8-bit RGB, or RGBA if there is transparency. The given image is closed unless it is returned.

    A transparent image may shrink by `factor`, so that a large one is not copied at full size.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = replace_image(image, _convert_to_8_bit(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode == "RGBA" and factor == 1:
            return image
        layer = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
        for top, strip in _split_into_strips(image, factor):
            whole = strip.convert("RGBA")
            layer.paste(whole.reduce(factor) if factor > 1 else whole, (0, top // factor))
        return replace_image(image, layer)
    return image if image.mode == "RGB" else replace_image(image, image.convert("RGB"))


def flatten_layer(layer: PilImage, background: tuple[int, int, int]) -> PilImage:
    """Return the layer as RGB, composited on the background."""
    if layer.mode == "RGB":
        return layer
    flat = Image.new("RGB", layer.size)
    for top, strip in _split_into_strips(layer):
        base = Image.new("RGBA", strip.size, (*background, 255))
        base.alpha_composite(strip)
        flat.paste(base.convert("RGB"), (0, top))
    return replace_image(layer, flat)


def _convert_to_8_bit(image: PilImage) -> PilImage:
    """Convert 16-bit, 32-bit and float grayscale: Pillow's own conversion would clip them to white."""
    low, scale = 0.0, 1.0
    if image.mode == "F":
        ranges = [
            (values.min(), values.max()) for values in map(_convert_to_float, (strip for _, strip in _split_into_strips(image)))
        ]
        low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
        scale = 255.0 / (high - low) if high > low else 0.0
    elif max(int(np.asarray(strip).max(initial=0)) for _, strip in _split_into_strips(image)) > 255:
        scale = 1 / 256
    gray = Image.new("L", image.size)
    for top, strip in _split_into_strips(image):
        values = np.clip((_convert_to_float(strip) - low) * scale, 0, 255)
        gray.paste(Image.fromarray(values.astype(np.uint8)), (0, top))
    return gray


def _convert_to_float(strip: PilImage) -> NDArray[np.float64]:
    """Return the values as floats whose differences are finite; NaN and infinity become 0."""
    return np.nan_to_num(np.asarray(strip).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
