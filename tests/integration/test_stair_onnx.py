"""Towers as ONNX graphs: the weights of PyTorch, for any batch and length; graphs of other weights are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.commands import CommandRunner
from support.errors import expect_error
from support.models import tiny_stair
from typer.testing import Result

from stair_es.errors import MissingExtra, ModelError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair.encoder import StairEncoder
from stair_es.model.stair.export_onnx import MAX_DIFFERENCE, export_onnx
from stair_es.model.stair.onnx_runtime import ONNX_MODEL_ID_KEY
from stair_es.types import Backend

TEXTS = ("a red dog", "the dogs running of the sea .", "", "blue", "cat ! cat", "dog " * 20)


def _draw_pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)


def _load_model(checkpoint_folder: Path, backend: Backend = "onnx", **how: Any) -> Encoder:  # noqa: ANN401
    return registry.load_encoder(ModelSpec(name=str(checkpoint_folder), backend=backend, **how))


def _get_towers_name(encoder: Encoder) -> str:
    assert isinstance(encoder, StairEncoder)
    return type(encoder._towers).__name__


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """A checkpoint with graphs, and what the command has printed."""

    folder: Path
    result: Result


@pytest.fixture(scope="module")
def exported_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> _Exported:
    config = tiny_stair.build_shallow_config(
        "vit", "bert", similarity="dot", heads=("tokens", "dense"), dense_dim=7, text_own_words=True, vocabulary="words"
    )
    checkpoint_folder = tiny_stair.write_checkpoint(tmp_path_factory.mktemp("made") / "m", config)
    return _Exported(folder=checkpoint_folder, result=CommandRunner({}).run("export", checkpoint_folder, "--json"))


@pytest.fixture
def checkpoint_folder(exported_checkpoint: _Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_checkpoint.folder, tmp_path / "m"))


def _check_towers(checkpoint_folder: Path, heads: int) -> None:
    one, other = _load_model(checkpoint_folder, "torch"), _load_model(checkpoint_folder, "onnx")
    assert (_get_towers_name(one), _get_towers_name(other)) == ("TorchDualEncoder", "OnnxDualEncoder")
    assert isinstance(one, StairEncoder)
    assert isinstance(other, StairEncoder)
    for count in (1, 5):
        pairs = (
            (one._towers.compute_images(_draw_pixels(count)), other._towers.compute_images(_draw_pixels(count))),
            (one._towers.compute_texts(TEXTS[-count:]), other._towers.compute_texts(TEXTS[-count:])),
        )
        for (wanted, wanted_dense), (found, found_dense) in pairs:
            assert ((wanted is None) + (wanted_dense is None)) == 2 - heads
            assert (wanted is None, wanted_dense is None) == (found is None, found_dense is None)
            if wanted is not None and found is not None:
                assert any(map(len, wanted)) or count == 1  # one alone may have no word
                for wanted_vector, found_vector in zip(wanted, found, strict=True):
                    assert found_vector.to_dict() == pytest.approx(wanted_vector.to_dict(), abs=MAX_DIFFERENCE)
            if wanted_dense is not None and found_dense is not None:
                assert found_dense == pytest.approx(wanted_dense, abs=MAX_DIFFERENCE)


def test_onnxruntime_matches_pytorch(exported_checkpoint: _Exported) -> None:
    _check_towers(exported_checkpoint.folder, heads=2)


@pytest.mark.nightly("graphs of other backbones; test_onnxruntime_matches_pytorch has one")
@pytest.mark.parametrize(
    ("image", "text", "changes"),
    [
        ("clip", "bert", {"text_always_masked": True, "vocabulary": "words"}),
        ("siglip", "distilbert", {"text_always_masked": True, "text_own_words": True, "text_pool": "mean"}),
        ("dinov2", "bert", {"text_tie": True, "text_transform_dim": tiny_stair.WIDTH, "image_pool": "mean", "image_top_k": 0}),
        ("timm-vit", "bert", {"image_top_k": 0, "text_own_words": True}),
        ("timm-convnet", "bert", {"heads": ("dense",), "dense_dim": 7}),
    ],
)
def test_other_backbones_and_options_match_too(tmp_path: Path, image: str, text: str, changes: dict[str, Any]) -> None:
    config = tiny_stair.build_shallow_config(image, text, **changes)
    checkpoint_folder = tiny_stair.write_checkpoint(tmp_path, config)
    before = registry.resolve_model(ModelSpec(name=str(checkpoint_folder))).card.model_id
    made = export_onnx(checkpoint_folder)
    assert made.max_difference <= MAX_DIFFERENCE
    assert made.model_id == registry.resolve_model(ModelSpec(name=str(checkpoint_folder))).card.model_id == before
    _check_towers(checkpoint_folder, heads=1)


def test_auto_selects_onnx_without_cuda(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.model.cuda.is_cuda_available", lambda *_: False)
    assert _get_towers_name(_load_model(checkpoint_folder, "auto")) == "OnnxDualEncoder"
    assert _get_towers_name(_load_model(checkpoint_folder, "auto", precision="bf16")) == "TorchDualEncoder"
    tiny_stair.write_checkpoint(checkpoint_folder, seed=2)
    assert _get_towers_name(_load_model(checkpoint_folder, "auto")) == "TorchDualEncoder"


def test_alone_in_a_batch_and_from_threads(checkpoint_folder: Path) -> None:
    encoder, pixels = _load_model(checkpoint_folder, threads=1), _draw_pixels(5)
    images, texts = encoder.encode_images(pixels), encoder.encode_texts(TEXTS * 8)
    assert images == [encoder.encode_images(pixels_HWC[None])[0] for pixels_HWC in pixels]
    for text, vector in zip(TEXTS, texts, strict=False):
        assert encoder.encode_texts([text])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1.01e-5)
    assert encoder.encode_images(pixels[:0]) == encoder.encode_texts([]) == []
    fresh = _load_model(checkpoint_folder)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == images for found in pool.map(lambda _: fresh.encode_images(pixels), range(8)))
        assert all(found == texts for found in pool.map(lambda _: fresh.encode_texts(TEXTS * 8), range(8)))


def test_graphs_need_no_pytorch(checkpoint_folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, timm=None)\n"
        "import numpy as np\nfrom stair_es.model import registry\nfrom stair_es.model.base import ModelSpec\n"
        "encoder = registry.load_encoder(ModelSpec(name=sys.argv[1]))\n"
        "print(len(encoder.encode_images(np.zeros((2, 32, 32, 3), np.uint8))), len(encoder.encode_texts(['a red dog'])[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(checkpoint_folder)], capture_output=True, text=True, check=True)
    tokens = _load_model(checkpoint_folder).encode_texts(["a red dog"])[0]
    assert done.stdout.split() == ["2", str(len(tokens))]
    assert tokens


def test_without_pytorch_and_graphs_both_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_folder = tiny_stair.write_checkpoint(tmp_path, tiny_stair.build_shallow_config())
    monkeypatch.setattr("stair_es.model.stair.encoder.is_installed", lambda *_: False)
    monkeypatch.setattr("stair_es.model.cuda.is_cuda_available", lambda *_: False)
    with pytest.raises(MissingExtra) as missing:
        _load_model(checkpoint_folder, "auto").encode_texts(["a red dog"])
    assert str(checkpoint_folder) in missing.value.message
    assert "[models]" in missing.value.remedy
    assert "stair-es export" in missing.value.remedy


def test_a_graph_names_its_weights_and_not_the_exporting_machine(checkpoint_folder: Path) -> None:
    for file in ("image.onnx", "text.onnx"):
        proto = onnx.load(checkpoint_folder / file)
        onnx.checker.check_model(proto)
        assert {entry.key: entry.value for entry in proto.metadata_props} == {
            ONNX_MODEL_ID_KEY: registry.resolve_model(ModelSpec(name=str(checkpoint_folder))).card.model_id
        }
        assert b"site-packages" not in (checkpoint_folder / file).read_bytes()


def _replace_weights(checkpoint_folder: Path) -> None:
    tiny_stair.write_checkpoint(checkpoint_folder, seed=2)


def _truncate_graph(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "text.onnx").write_bytes((checkpoint_folder / "text.onnx").read_bytes()[:5000])


def _overwrite_graph(checkpoint_folder: Path) -> None:
    data = (checkpoint_folder / "text.onnx").read_bytes()
    (checkpoint_folder / "text.onnx").write_bytes(bytes(200) + data[200:])


@pytest.mark.parametrize(
    ("damage", "code", "file"),
    [
        (_replace_weights, "onnx-graphs-outdated", "image.onnx"),
        (_truncate_graph, "onnx-graphs-outdated", "text.onnx"),
        (_overwrite_graph, "onnx-graph-not-loaded", "text.onnx"),
        (lambda checkpoint_folder: (checkpoint_folder / "text.onnx").unlink(), "onnx-graphs-outdated", "text.onnx"),
    ],
)
def test_graphs_that_do_not_fit_are_rejected(checkpoint_folder: Path, damage: Any, code: str, file: str) -> None:  # noqa: ANN401
    damage(checkpoint_folder)
    with expect_error(code, ModelError) as caught:
        _load_model(checkpoint_folder).encode_texts(["a red dog"])
    assert file in caught.value.message
    assert f"stair-es export {checkpoint_folder}" in caught.value.remedy


def test_narrow_precision_is_not_for_graphs(checkpoint_folder: Path) -> None:
    with expect_error("onnx-needs-fp32", ModelError):
        _load_model(checkpoint_folder, precision="bf16")


def test_the_command(exported_checkpoint: _Exported) -> None:
    checkpoint_folder, result = exported_checkpoint.folder, exported_checkpoint.result
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert output["model"] == registry.resolve_model(ModelSpec(name=str(checkpoint_folder))).card.model_id
    assert output["bytes"] == {file: (checkpoint_folder / file).stat().st_size for file in ("image.onnx", "text.onnx")}
    assert output["difference"] < MAX_DIFFERENCE
    assert result.stderr == ""


@pytest.mark.parametrize(("name", "file"), [("m", "model.safetensors"), ("", "config.json")])
def test_folders_that_are_no_checkpoint_are_rejected(checkpoint_folder: Path, name: str, file: str) -> None:
    (checkpoint_folder / "model.safetensors").write_bytes(b"")
    error = CommandRunner({}).read_error("export", checkpoint_folder.parent / name)
    assert (error.exit_code, file in error.message) == (1, True)
    assert error.remedy
