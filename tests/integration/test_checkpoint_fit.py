"""Images that aren't square, through each adapter, against the preprocessing of its reference; and other fits on demand."""

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
from stair_es.errors import ModelError, QueryError
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
DENSE: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_dense.write_clip,
    "siglip": tiny_dense.write_siglip,
    "align": tiny_dense.write_align,
    "blip": tiny_dense.write_blip,
}


def picture(size: tuple[int, int], seed: int = 1) -> Image.Image:
    """Noise, so that each pixel and each filter counts."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def decoded(image: Image.Image, spec: ImageSpec) -> Pixels:
    file = io.BytesIO()
    image.save(file, "PNG")
    return decode_image(file.getvalue(), spec, DecodeLimits()).pixels_HWC


def vdr(folder: Path) -> Path:
    return write_checkpoint(folder, build_vdr_config(), draw_vdr_weights())


def d2s(folder: Path) -> Path:
    tiny_dense.write_blip(folder.parent / "blip of the head")
    return write_checkpoint(folder, build_d2s_config("../blip of the head"), draw_d2s_weights())


@pytest.fixture
def sparse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SparseEncoder that sees the mean color of the pixels it is handed."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    tiny_sparse.write_image_model(tmp_path / "splade")
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, str(tmp_path / "splade"))
    return tmp_path / "splade"


def say(folder: Path, **more: object) -> None:
    """Change the preprocessing of a checkpoint."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def of_transformers(folder: Path, image: Image.Image) -> Floats:
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


@pytest.mark.parametrize("resample", [None, 2, 3])
@pytest.mark.parametrize("form", [*DENSE])
def test_dense_vectors_match_the_model_processor(tmp_path: Path, form: str, resample: int | None) -> None:
    folder = DENSE[form](tmp_path / form)
    if resample is not None:
        say(folder, resample=resample)
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert encoder.has_dense
    for size in SHAPES:
        found = encoder.encode_images_dense(decoded(picture(size), encoder.image_spec)[None])
        assert found == pytest.approx(of_transformers(folder, picture(size)), abs=2e-5)


def test_unknown_filters_are_rejected(tmp_path: Path) -> None:
    folder = tiny_dense.write_clip(tmp_path / "clip")
    for wrong in (9, "sharp", True):
        say(folder, resample=wrong)
        with pytest.raises(ModelError, match="says resample = ") as error:
            registry.resolve_model(ModelSpec(name=str(folder)))
        assert "0 to 5" in error.value.remedy


@pytest.mark.parametrize("size", [*SHAPES, (101, 40)])
def test_vdr_sees_the_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(vdr(tmp_path / "vdr"))))
    reference = Compose([Resize(12, interpolation=InterpolationMode.BICUBIC), CenterCrop(12)])
    pixels = np.asarray(reference(picture(size)))
    assert (decoded(picture(size), encoder.image_spec) == pixels).all()


@pytest.mark.parametrize("size", SHAPES)
def test_d2s_sees_the_distorted_image(tmp_path: Path, size: tuple[int, int]) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(d2s(tmp_path / "d2s"))))
    pixels = np.asarray(Resize((16, 16), interpolation=InterpolationMode.BICUBIC)(picture(size)))
    assert (decoded(picture(size), encoder.image_spec) == pixels).all()


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("resample", [2, 3])
def test_sparse_encoder_gets_the_input_of_its_processor(sparse: Path, resample: int, size: tuple[int, int]) -> None:
    from safetensors.numpy import load_file

    say(sparse, image_processor_type="SiglipImageProcessor", resample=resample)
    kind: Any = transformers.SiglipImageProcessorPil
    own = kind(size={"height": 16, "width": 16}, resample=resample, do_rescale=False, do_normalize=False)
    mean_C = own(images=[picture(size)], return_tensors="np")["pixel_values"][0].reshape(3, -1).mean(1) / 255
    wanted_V = np.log1p(np.maximum(load_file(sparse / "model.safetensors")["colors"] @ (mean_C - 0.5), 0))
    encoder = registry.load_encoder(ModelSpec(name=str(sparse)))
    row = encoder.encode_images(decoded(picture(size), encoder.image_spec)[None])[0].to_dict()
    words: tuple[str, ...] = encoder.tokens
    assert [row.get(word, 0.0) for word in words] == pytest.approx(wanted_V, abs=1e-4)


@pytest.mark.parametrize(
    ("said", "spec"),
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
def test_other_preprocessing_of_sparse_encoders_gets_all_of_the_image(
    sparse: Path, said: dict[str, Any], spec: ImageSpec
) -> None:
    say(sparse, **said)
    assert registry.resolve_model(ModelSpec(name=str(sparse))).card.image_spec == spec


@pytest.mark.parametrize("make", [vdr, d2s, tiny_dense.write_clip, tiny_dense.write_align])
def test_another_fit_is_another_model(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    name = str(make(tmp_path / "model"))
    own = registry.resolve_model(ModelSpec(name=name)).card
    assert registry.resolve_model(ModelSpec(name=name, fit=own.image_spec.fit)).card == own
    ids = {own.model_id}
    others: set[ResizeMode] = {"pad", "crop", "stretch"}
    for fit in others - {own.image_spec.fit}:
        card = registry.resolve_model(ModelSpec(name=name, fit=fit)).card
        assert card.model_id.startswith(f"model-{fit}-")
        assert (card.image_spec.fit, card.image_spec.size_px) == (fit, own.image_spec.size_px)
        encoder = registry.load_encoder(ModelSpec(name=name, fit=fit))
        assert (encoder.model_id, encoder.image_spec) == (card.model_id, card.image_spec)
        ids.add(card.model_id)
    assert len(ids) == 3
    with pytest.raises(ModelError, match="unknown fit 'zoom'"):
        registry.resolve_model(ModelSpec(name=name, fit="zoom"))  # type: ignore[arg-type]


def test_our_models_allow_one_fit(tmp_path: Path) -> None:
    trained = tiny_stair.write_checkpoint(tmp_path / "trained")
    for name in (*plugins.list_plugin_names("encoders"), str(trained)):
        own = registry.resolve_model(ModelSpec(name=name)).card
        assert registry.resolve_model(ModelSpec(name=name, fit=own.image_spec.fit)).card == own
        with pytest.raises(ModelError, match=r"only its own fit, '(squash|pad)', not 'crop'") as wrong:
            registry.load_encoder(ModelSpec(name=name, fit="crop"))
        assert "STAIR_ES_FIT" in wrong.value.remedy


def test_two_fits_of_a_model_can_be_compared(tmp_path: Path) -> None:
    name = str(vdr(tmp_path / "vdr"))
    own, padded = load_models([ModelSpec(name=name), ModelSpec(name=name, fit="pad")])
    assert (own.encoder.image_spec.fit, padded.encoder.image_spec.fit) == ("crop", "pad")
    with pytest.raises(Exception, match="is given twice"):
        load_models([ModelSpec(name=name), ModelSpec(name=name, fit="crop")])


def _ingest(url: str, index: str, spec: ModelSpec, pictures: Path) -> IngestReport:
    options = IngestOptions(alias=index, model=spec, runner="local", dead_letters=pictures.parent / "letters.jsonl")
    return run_ingest([open_source(str(pictures))], Connection(url=url), options, progress=lambda _: None)


def _image_vector(encoder: Encoder, image: Image.Image) -> NDArray[np.float64]:
    vector = encoder.encode_images(decoded(image, encoder.image_spec)[None])[0].to_dict()
    words: tuple[str, ...] = encoder.tokens
    return np.array([vector.get(word, 0.0) for word in words])


def test_an_index_remembers_its_fit(node_url: str, client: OpenSearch, index_name: str, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture((100, 40)).save(pictures / "wide.png")
    name = str(vdr(tmp_path / "vdr"))
    padded, own = ModelSpec(name=name, fit="pad"), ModelSpec(name=name)
    assert _ingest(node_url, index_name, padded, pictures).written == 1
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert (about["fit"], about["model_name"]) == ("pad", name)

    with ImageSearch(index_name, url=node_url) as search:  # the model that the index names, with its fit
        assert search.encoder.image_spec.fit == "pad"
        hit = search.search(pictures / "wide.png").hits[0]
        stored = _image_vector(search.encoder, picture((100, 40)))
        assert hit.score == pytest.approx(float(stored @ stored), rel=0.01)
    with ImageSearch(index_name, url=node_url, model=own) as search, pytest.raises(QueryError) as wrong:
        search.search(pictures / "wide.png")
    assert f"--model {name} --fit pad" in wrong.value.remedy

    assert _ingest(node_url, index_name, padded, pictures).unchanged == 1
    assert _ingest(node_url, index_name, own, pictures).written == 1  # a new index
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert about["fit"] == "crop"
