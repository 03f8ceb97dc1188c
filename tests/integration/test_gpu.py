"""Every family of models on a GPU, pretended on the CPU or real: the vectors of the CPU, from bytes, in chunks that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
import transformers.dynamic_module_utils
from support.corpora.photo_vectors import stack_photos
from support.fake_gpu import pretend_gpu
from support.models import tiny_checkpoints, tiny_dense, tiny_sparse, tiny_stair

from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.model import registry, torch_device
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.labels.distilled import DistilledConfig, ScoredWords
from stair_es.model.stair.configuration import BackboneConfig
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.types import Floats, Pixels, Precision, SparseVector

TEXTS = ("a red dog", "cat .", "a dog a cat a bus", "dog", "red")
COUNT, FIRST_CHUNK = 4, 2
"""More images than the first chunk has."""
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.06, "fp16": 0.01}
"""Of weights of about 1; fp32 on a GPU sums in another order, and convolutions may use TF32."""


def write_d2s(folder: Path) -> Path:
    tiny_dense.write_blip(folder / "blip")
    return tiny_checkpoints.write_checkpoint(
        folder / "d2s", tiny_checkpoints.build_d2s_config("../blip"), tiny_checkpoints.draw_d2s_weights()
    )


def write_vdr(folder: Path) -> Path:
    return tiny_checkpoints.write_checkpoint(
        folder / "vdr", tiny_checkpoints.build_vdr_config(), tiny_checkpoints.draw_vdr_weights()
    )


def write_sparse(folder: Path) -> Path:
    tiny_sparse.write_image_model(folder / "splade")
    return folder / "splade"


def write_heads_over_clip(folder: Path) -> Path:
    """Write heads of a STAIR over a CLIP, as `stair-es distill --method head` does."""
    dense = BackboneConfig(kind="dense", name="clip", config={"dimensions": 6})
    square: dict[str, Any] = {"image_size_px": 16, "image_fit": "crop", "image_resized_px": 16}
    config = tiny_stair.build_config(image_backbone=dense, text_backbone=dense, **square)
    tiny_stair.write_checkpoint(folder / "heads", config)
    tiny_dense.write_clip(folder / "heads" / "dense")
    return folder / "heads"


def write_labels_over_clip(folder: Path) -> Path:
    """Write scored words over a CLIP, as `stair-es distill --method labels` does."""
    words, draw = ("dog", "cat", "bus", "red"), np.random.default_rng(0)
    config = DistilledConfig(name="words", dense_model="clip", image_tokens=3, text_tokens=3, prompts={})
    tiny_dense.write_clip(folder / "words" / "dense")
    (folder / "words" / "config.json").write_text(config.to_json())
    rows_VD = draw.normal(size=(len(words), 6)).astype(np.float32)
    rows_VD /= np.linalg.norm(rows_VD, axis=1, keepdims=True)
    zeros, ones = np.zeros(len(words), np.float32), np.ones(len(words), np.float32)
    means = {name: np.zeros(6, np.float32) for name in ("image_mean_D", "text_mean_D")}
    scored = ScoredWords(vocabulary=WholeWordVocabulary(words), words_VD=rows_VD, floors_V=zeros, spreads_V=ones, **means)
    scored.write(folder / "words")
    return folder / "words"


def write_stair(image: str, **changes: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    return lambda folder: tiny_stair.write_checkpoint(folder / image, tiny_stair.build_config(image, **changes))


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_dense.write_clip,
    "siglip": tiny_dense.write_siglip,
    "align": tiny_dense.write_align,
    "blip": tiny_dense.write_blip,
    "vdr": write_vdr,
    "d2s": write_d2s,
    "sparse": write_sparse,
    "stair-vit": write_stair("vit", text_own_words=True, heads=("tokens", "dense"), dense_dim=7),
    "stair-convnet": write_stair("timm-convnet", image_top_k=0, text_top_k=0, similarity="dot"),
    "heads over clip": write_heads_over_clip,
    "labels over clip": write_labels_over_clip,
    "stair-mini": lambda folder: Path("stair-mini"),
}


@pytest.fixture(params=FAMILIES)
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model of one family, in PyTorch and in fp32."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    name = str(FAMILIES[request.param](tmp_path))
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, tiny_sparse.build_trust(Path(name)))
    monkeypatch.setattr(torch_device, "FIRST_CHUNK", FIRST_CHUNK)
    return ModelSpec(name=name, backend="torch", precision="fp32", device="cpu")


def draw_pixels(encoder: Encoder) -> Pixels:
    side_px = encoder.image_spec.size_px
    if encoder.card.name == "stair-mini":
        return stack_photos(["tabby-cat.jpg", "white-duck.jpg", "wall-clock.jpg", "espresso.jpg"], side_px)[:COUNT]
    return np.random.default_rng(3).integers(0, 256, (COUNT, side_px, side_px, 3), np.uint8)


Vectors: TypeAlias = tuple[list[SparseVector], list[Floats]]


def encode_all(encoder: Encoder) -> Vectors:
    """Return all sparse and all dense vectors of images and texts that a model has."""
    pixels_BHWC, texts = draw_pixels(encoder), () if encoder.card.name == "stair-mini" else TEXTS
    sparse, dense = list[SparseVector](), list[Floats]()
    if encoder.card.has_tokens:
        sparse = [*encoder.encode_images(pixels_BHWC), *encoder.encode_texts(texts)]
    if encoder.has_dense:
        dense = [encoder.encode_images_dense(pixels_BHWC), encoder.encode_texts_dense(texts)]
    return sparse, dense


def check_near(found: Sequence[SparseVector], expected: Sequence[SparseVector], tolerance: float) -> None:
    for vector, expected_vector in zip(found, expected, strict=True):
        weights, expected_weights = vector.to_dict(), expected_vector.to_dict()
        for token in {*weights, *expected_weights}:
            assert weights.get(token, 0) == pytest.approx(expected_weights.get(token, 0), abs=tolerance), token


def check_vectors(encoder: Encoder, expected: Vectors, tolerance: float = 1e-3) -> Vectors:
    (sparse, dense), (expected_sparse, expected_dense) = encode_all(encoder), expected
    assert sparse or dense
    check_near(sparse, expected_sparse, tolerance)
    for rows_BD, expected_BD in zip(dense, expected_dense, strict=True):
        assert rows_BD == pytest.approx(expected_BD, abs=tolerance)
    return sparse, dense


def test_a_pretended_gpu_gives_the_vectors_of_the_cpu(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = registry.load_encoder(spec)
    vectors = encode_all(expected)
    gpu = pretend_gpu(monkeypatch)
    encoder = registry.load_encoder(spec)
    check_vectors(encoder, vectors)
    assert encoder.model_id == expected.model_id
    assert len(gpu.chunks) > 2
    # images as bytes, vectors of a dense model as floats; sentence-transformers sends images itself
    side_px = encoder.image_spec.size_px
    floats = [size for dtype, size in gpu.copies if dtype != torch.uint8]
    assert all(size < 3 * side_px**2 * 4 for size in floats)
    assert any(dtype == torch.uint8 for dtype, _ in gpu.copies) == (not spec.name.endswith("splade"))


def test_too_little_memory_changes_no_vector(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encode_all(registry.load_encoder(spec))
    gpu = pretend_gpu(monkeypatch, max_items=1)
    check_vectors(registry.load_encoder(spec), expected)
    assert max(gpu.chunks) == 1
    assert gpu.releases


def test_bf16_is_the_default_on_a_gpu(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = registry.load_encoder(spec)
    exact, exact_dense = encode_all(expected)
    gpu = pretend_gpu(monkeypatch, bf16=True)
    encoder = registry.load_encoder(replace(spec, precision="auto"))
    narrow, narrow_dense = check_vectors(encoder, (exact, exact_dense), TOLERANCE["bf16"])
    assert narrow != exact or not np.array_equal(narrow_dense[0], exact_dense[0])
    assert gpu.tf32
    assert encoder.model_id == expected.model_id


def test_unusual_preprocessing_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that does more than to scale channels is used as it is, and sends floats."""
    from transformers import AutoImageProcessor

    folder = tiny_dense.write_clip(tmp_path / "clip")
    processor_class: Any = AutoImageProcessor
    load = processor_class.from_pretrained

    def load_unusual(*arguments: object, **options: object) -> Callable[..., Any]:
        processor = load(*arguments, **options)

        def process(**inputs: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
            return {"pixel_values": processor(**inputs)["pixel_values"].flip(3)}

        return process

    plain, unusual = (registry.load_encoder(ModelSpec(name=str(folder))) for _ in range(2))
    pixels_BHWC = draw_pixels(plain)
    mirrored_BD = plain.encode_images_dense(pixels_BHWC[:, :, ::-1])
    monkeypatch.setattr(processor_class, "from_pretrained", load_unusual)
    gpu = pretend_gpu(monkeypatch)
    assert unusual.encode_images_dense(pixels_BHWC) == pytest.approx(mirrored_BD, abs=1e-4)
    assert gpu.copies == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", TOLERANCE)
def test_cuda_gives_the_vectors_of_the_cpu(spec: ModelSpec, precision: Precision) -> None:
    model = registry.resolve_model(replace(spec, precision=precision, device=""))
    assert model.can_use_gpu
    check_vectors(model.load(), encode_all(registry.load_encoder(spec)), TOLERANCE[precision])
