"""Images that aren't square: as torchvision and the preprocessing of each checkpoint make them, and with another fit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
import transformers.dynamic_module_utils
from numpy.typing import NDArray
from PIL import Image
from support.errors import expect_error
from support.models import tiny_dense, tiny_sparse, tiny_stair
from support.models.tiny_checkpoints import (
    build_d2s_config,
    build_vdr_config,
    draw_d2s_weights,
    draw_vdr_weights,
    write_checkpoint,
)
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-untyped]

from stair_es import plugins
from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.errors import QueryError
from stair_es.eval.models import load_models
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search import ImageSearch
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.registry import open_source
from stair_es.types import Floats, ImageSpec, Pixels, ResizeMode

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

SHAPES = [(100, 50), (36, 90)]
"""Widths and heights whose margins are even: where they are odd, transformers cuts a pixel beside torchvision."""
SIZES = [(64, 64), (100, 37), (37, 100), (225, 224), (31, 30), (16, 16), (301, 17)]
SPECS = [
    ImageSpec(size_px=16, fit="crop"),
    ImageSpec(size_px=16, fit="stretch"),
    ImageSpec(size_px=16, fit="stretch", resized_px=20),
    ImageSpec(size_px=16, fit="crop", resized_px=20),
    ImageSpec(size_px=16, fit="crop", resample="bilinear"),
    ImageSpec(size_px=16, fit="stretch", resample="nearest"),
]
DENSE: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_dense.write_clip,
    "siglip": tiny_dense.write_siglip,
    "align": tiny_dense.write_align,
    "blip": tiny_dense.write_blip,
}


def draw_image(size: tuple[int, int], seed: int = 1) -> Image.Image:
    """Noise, so that each pixel and each filter counts."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def decode_pixels(image: Image.Image, spec: ImageSpec) -> Pixels:
    return decode_image(encode_png(image), spec, DecodeLimits()).pixels_HWC


def resize_with_torchvision(image: Image.Image, spec: ImageSpec) -> Pixels:
    side = spec.resized_px or spec.size_px
    resize = Resize(side if spec.fit == "crop" else (side, side), interpolation=InterpolationMode(spec.resample))
    return np.asarray(Compose([resize, CenterCrop(spec.size_px)])(image))


def write_vdr(folder: Path) -> Path:
    return write_checkpoint(folder, build_vdr_config(), draw_vdr_weights())


def write_d2s(folder: Path) -> Path:
    tiny_dense.write_blip(folder.parent / "blip of the head")
    return write_checkpoint(folder, build_d2s_config("../blip of the head"), draw_d2s_weights())


@pytest.fixture
def splade_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SparseEncoder that sees the mean color of the pixels it is handed."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    tiny_sparse.write_image_model(tmp_path / "splade")
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, tiny_sparse.build_trust(tmp_path / "splade"))
    return tmp_path / "splade"


def change_preprocessing(folder: Path, **more: object) -> None:
    """Change the preprocessing of a checkpoint."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def encode_with_transformers(folder: Path, image: Image.Image) -> Floats:
    """The unit vector of an image by the model and its own processor, over Pillow."""
    processor: Any = transformers.AutoImageProcessor
    ready = processor.from_pretrained(folder, backend="pil")(images=[image], return_tensors="pt")["pixel_values"]
    kinds = {"clip": "CLIPModel", "siglip": "SiglipModel", "align": "AlignModel", "blip": "BlipForImageTextRetrieval"}
    model: Any = getattr(transformers, kinds[folder.name]).from_pretrained(folder).eval()
    with torch.inference_mode():
        if folder.name == "blip":
            row = model.vision_proj(model.vision_model(ready).last_hidden_state[:, 0])
        else:
            row = model.get_image_features(pixel_values=ready).pooler_output
    unit: Floats = (row / row.norm()).numpy()
    return unit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", SPECS)
def test_squares_match_torchvision(spec: ImageSpec, size: tuple[int, int]) -> None:
    image = draw_image(size)
    for stored in (image, image.convert("RGBA")):
        decoded = decode_image(encode_png(stored), spec, DecodeLimits(), thumbnail_px=8)
        assert (decoded.pixels_HWC == resize_with_torchvision(image, spec)).all()
        assert decoded.box == (0, 0, 16, 16)


def test_an_image_that_is_too_long_is_rejected() -> None:
    with expect_error("image-too-long"):
        decode_pixels(draw_image((2000, 3)), SPECS[0])


@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (tiny_dense.write_clip, ImageSpec(size_px=16, fit="crop", resized_px=16)),
        (tiny_dense.write_siglip, ImageSpec(size_px=16, fit="stretch")),
        (tiny_dense.write_align, ImageSpec(size_px=32, fit="stretch", resized_px=40)),
        (tiny_dense.write_blip, ImageSpec(size_px=16, fit="stretch")),
    ],
)
def test_fit_is_read(tmp_path: Path, make: Callable[[Path], Path], spec: ImageSpec) -> None:
    folder = make(tmp_path / "model")
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.image_spec == spec
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.image_spec == spec


@pytest.mark.parametrize("resample", [None, 2, 3])
@pytest.mark.parametrize("form", [*DENSE])
def test_dense_vectors_match_the_model_processor(tmp_path: Path, form: str, resample: int | None) -> None:
    folder = DENSE[form](tmp_path / form)
    if resample is not None:
        change_preprocessing(folder, resample=resample)
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert encoder.has_dense
    for size in SHAPES:
        vectors = encoder.encode_images_dense(decode_pixels(draw_image(size), encoder.image_spec)[None])
        assert vectors == pytest.approx(encode_with_transformers(folder, draw_image(size)), abs=2e-5)


def test_unknown_filters_are_rejected(tmp_path: Path) -> None:
    folder = tiny_dense.write_clip(tmp_path / "clip")
    for wrong in (9, "sharp", True):
        change_preprocessing(folder, resample=wrong)
        with expect_error("checkpoint-error") as caught:
            registry.resolve_model(ModelSpec(name=str(folder)))
        assert f"resample = {wrong!r}" in caught.value.message


@pytest.mark.parametrize(
    ("write", "spec"),
    [(write_vdr, ImageSpec(size_px=12, fit="crop")), (write_d2s, ImageSpec(size_px=16, fit="stretch"))],
)
def test_vdr_sees_the_middle_and_d2s_the_distorted_image(tmp_path: Path, write: Callable[[Path], Path], spec: ImageSpec) -> None:
    assert registry.load_encoder(ModelSpec(name=str(write(tmp_path / "model")))).image_spec == spec


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("resample", [2, 3])
def test_sparse_encoder_gets_the_input_of_its_processor(splade_folder: Path, resample: int, size: tuple[int, int]) -> None:
    from safetensors.numpy import load_file

    change_preprocessing(splade_folder, image_processor_type="SiglipImageProcessor", resample=resample)
    kind: Any = transformers.SiglipImageProcessorPil
    processor = kind(size={"height": 16, "width": 16}, resample=resample, do_rescale=False, do_normalize=False)
    mean_C = processor(images=[draw_image(size)], return_tensors="np")["pixel_values"][0].reshape(3, -1).mean(1) / 255
    expected_V = np.log1p(np.maximum(load_file(splade_folder / "model.safetensors")["colors"] @ (mean_C - 0.5), 0))
    encoder = registry.load_encoder(ModelSpec(name=str(splade_folder)))
    row = encoder.encode_images(decode_pixels(draw_image(size), encoder.image_spec)[None])[0].to_dict()
    words: tuple[str, ...] = encoder.tokens
    assert [row.get(word, 0.0) for word in words] == pytest.approx(expected_V, abs=1e-4)


@pytest.mark.parametrize(
    ("preprocessing", "spec"),
    [
        ({}, ImageSpec(size_px=16)),  # nothing is known of its processor
        ({"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 64}}, ImageSpec(size_px=64)),
        ({"image_processor_type": "SiglipImageProcessor", "do_resize": False}, ImageSpec(size_px=16)),
        (
            {"image_processor_type": "SiglipImageProcessorFast", "resample": 2},
            ImageSpec(size_px=16, fit="stretch", resample="bilinear"),
        ),
        (  # it cuts the middle out itself
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 20},
                "do_center_crop": True,
                "crop_size": 16,
            },
            ImageSpec(size_px=20, fit="crop"),
        ),
    ],
)
def test_sparse_encoders_with_other_preprocessing_get_whole_images(
    splade_folder: Path, preprocessing: dict[str, Any], spec: ImageSpec
) -> None:
    change_preprocessing(splade_folder, **preprocessing)
    assert registry.resolve_model(ModelSpec(name=str(splade_folder))).card.image_spec == spec


@pytest.mark.parametrize("make", [write_vdr, write_d2s, tiny_dense.write_clip, tiny_dense.write_align])
def test_another_fit_is_another_model(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    name = str(make(tmp_path / "model"))
    default = registry.resolve_model(ModelSpec(name=name)).card
    assert registry.resolve_model(ModelSpec(name=name, fit=default.image_spec.fit)).card == default
    ids = {default.model_id}
    others: set[ResizeMode] = {"pad", "crop", "stretch"}
    for fit in others - {default.image_spec.fit}:
        card = registry.resolve_model(ModelSpec(name=name, fit=fit)).card
        assert card.model_id.startswith(f"model-{fit}-")
        assert (card.image_spec.fit, card.image_spec.size_px) == (fit, default.image_spec.size_px)
        encoder = registry.load_encoder(ModelSpec(name=name, fit=fit))
        assert (encoder.model_id, encoder.image_spec) == (card.model_id, card.image_spec)
        ids.add(card.model_id)
    assert len(ids) == 3
    with expect_error("unknown-fit"):
        registry.resolve_model(ModelSpec(name=name, fit="zoom"))  # type: ignore[arg-type]


def test_our_models_allow_one_fit(tmp_path: Path) -> None:
    trained = tiny_stair.write_checkpoint(tmp_path / "trained")
    for name in (*plugins.list_plugin_names("encoders"), str(trained)):
        default = registry.resolve_model(ModelSpec(name=name)).card
        assert registry.resolve_model(ModelSpec(name=name, fit=default.image_spec.fit)).card == default
        with expect_error("fit-not-supported") as caught:
            registry.load_encoder(ModelSpec(name=name, fit="crop"))
        assert repr(default.image_spec.fit) in caught.value.message
        assert "STAIR_ES_FIT" in caught.value.remedy


def test_two_fits_of_a_model_can_be_compared(tmp_path: Path) -> None:
    name = str(write_vdr(tmp_path / "vdr"))
    default, padded = load_models([ModelSpec(name=name), ModelSpec(name=name, fit="pad")])
    assert (default.encoder.image_spec.fit, padded.encoder.image_spec.fit) == ("crop", "pad")
    with expect_error("model-given-twice"):
        load_models([ModelSpec(name=name), ModelSpec(name=name, fit="crop")])


def ingest_images(url: str, index: str, spec: ModelSpec, images: Path) -> IngestReport:
    options = IngestOptions(alias=index, model=spec, runner="local", dead_letters=images.parent / "letters.jsonl")
    return run_ingest([open_source(str(images))], Connection(url=url), options, progress=lambda _: None)


def encode_image(encoder: Encoder, image: Image.Image) -> NDArray[np.float64]:
    vector = encoder.encode_images(decode_pixels(image, encoder.image_spec)[None])[0].to_dict()
    words: tuple[str, ...] = encoder.tokens
    return np.array([vector.get(word, 0.0) for word in words])


def test_an_index_remembers_its_fit(node_url: str, client: OpenSearch, index_name: str, tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    draw_image((100, 40)).save(images / "wide.png")
    name = str(write_vdr(tmp_path / "vdr"))
    padded, default = ModelSpec(name=name, fit="pad"), ModelSpec(name=name)
    assert ingest_images(node_url, index_name, padded, images).written == 1
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert (about["fit"], about["model_name"]) == ("pad", name)

    with ImageSearch(index_name, url=node_url) as search:  # the model that the index names, with its fit
        assert search.encoder.image_spec.fit == "pad"
        hit = search.search(images / "wide.png").hits[0]
        stored = encode_image(search.encoder, draw_image((100, 40)))
        assert hit.score == pytest.approx(float(stored @ stored), rel=0.01)
    with ImageSearch(index_name, url=node_url, model=default) as search, pytest.raises(QueryError) as caught:
        search.search(images / "wide.png")
    assert f"--model {name} --fit pad" in caught.value.remedy

    assert ingest_images(node_url, index_name, padded, images).unchanged == 1
    assert ingest_images(node_url, index_name, default, images).written == 1  # a new index
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert about["fit"] == "crop"
