"""Towers as ONNX graphs: the weights of PyTorch, for any batch and length; graphs of other weights are refused."""

from __future__ import annotations

import json
import os
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
from support.models import tiny_stair
from support.warm_commands import run_warm
from typer.testing import Result

from stair_es.errors import MissingExtra, ModelError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair.encoder import StairEncoder
from stair_es.model.stair.export_onnx import MAX_DIFFERENCE, export_onnx
from stair_es.model.stair.onnx_runtime import ONNX_MODEL_ID_KEY
from stair_es.types import Backend

TEXTS = ("a red dog", "the dogs running of the sea .", "", "blue", "cat ! cat", "dog " * 20)


def _pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)


def _load(folder: Path, backend: Backend = "onnx", **how: Any) -> Encoder:  # noqa: ANN401
    return registry.load_encoder(ModelSpec(name=str(folder), backend=backend, **how))


def _towers(encoder: Encoder) -> str:
    assert isinstance(encoder, StairEncoder)
    return type(encoder._towers).__name__


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """A checkpoint with graphs, and what the command has printed."""

    folder: Path
    result: Result


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> _Exported:
    config = tiny_stair.build_shallow_config(similarity="dot")
    folder = tiny_stair.write_checkpoint(tmp_path_factory.mktemp("made") / "m", config)
    return _Exported(folder=folder, result=CommandRunner({}).run("export", folder, "--json"))


@pytest.fixture
def folder(exported: _Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "m"))


@pytest.mark.parametrize(
    ("image", "text", "changes"),
    [
        ("vit", "bert", {"text_own_words": True, "vocabulary": "words"}),
        ("clip", "distilbert", {"text_always_masked": True, "vocabulary": "words"}),
        ("siglip", "bert", {"text_pool": "mean", "text_own_words": True, "text_always_masked": True}),
        ("dinov2", "bert", {"text_tie": True, "text_transform_dim": tiny_stair.WIDTH, "image_pool": "mean"}),
        ("timm-vit", "bert", {"heads": ("tokens",), "image_top_k": 0, "text_own_words": True}),
        ("timm-convnet", "distilbert", {"heads": ("dense",)}),
    ],
)
def test_onnxruntime_matches_pytorch(tmp_path: Path, image: str, text: str, changes: dict[str, Any]) -> None:
    config = tiny_stair.build_shallow_config(image, text, **{"heads": ("tokens", "dense"), "dense_dim": 7, **changes})
    folder = tiny_stair.write_checkpoint(tmp_path, config)
    before = registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
    made = export_onnx(folder)
    assert made.max_difference <= MAX_DIFFERENCE
    assert made.model_id == registry.resolve_model(ModelSpec(name=str(folder))).card.model_id == before
    one, other = _load(folder, "torch"), _load(folder, "onnx")
    assert (_towers(one), _towers(other)) == ("TorchDualEncoder", "OnnxDualEncoder")
    assert isinstance(one, StairEncoder)
    assert isinstance(other, StairEncoder)
    for count in (1, 5):
        pairs = (
            *zip(one._towers.compute_images(_pixels(count)), other._towers.compute_images(_pixels(count)), strict=True),
            *zip(one._towers.compute_texts(TEXTS[-count:]), other._towers.compute_texts(TEXTS[-count:]), strict=True),
        )
        assert sum(rows is not None for rows, _ in pairs) == 2 * len(config.heads)
        for wanted, found in pairs:
            assert (wanted is None) == (found is None)
            if wanted is not None and found is not None:
                assert wanted.shape == found.shape
                assert np.abs(wanted - found).max() < MAX_DIFFERENCE
                assert np.abs(wanted).max() > 0 or count == 1  # one alone may have no word


def test_auto_selects_onnx_without_cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.model.cuda.is_cuda_available", lambda *_: False)
    assert _towers(_load(folder, "auto")) == "OnnxDualEncoder"
    assert _towers(_load(folder, "auto", precision="bf16")) == "TorchDualEncoder"
    tiny_stair.write_checkpoint(folder, seed=2)
    assert _towers(_load(folder, "auto")) == "TorchDualEncoder"


def test_alone_in_a_batch_and_from_threads(folder: Path) -> None:
    encoder, pixels = _load(folder, threads=1), _pixels(5)
    images, texts = encoder.encode_images(pixels), encoder.encode_texts(TEXTS * 8)
    assert images == [encoder.encode_images(pixels_HWC[None])[0] for pixels_HWC in pixels]
    for text, vector in zip(TEXTS, texts, strict=False):
        assert encoder.encode_texts([text])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1.01e-5)
    assert encoder.encode_images(pixels[:0]) == encoder.encode_texts([]) == []
    fresh = _load(folder)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == images for found in pool.map(lambda _: fresh.encode_images(pixels), range(8)))
        assert all(found == texts for found in pool.map(lambda _: fresh.encode_texts(TEXTS * 8), range(8)))


def test_graphs_need_no_pytorch(folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, timm=None)\n"
        "import numpy as np\nfrom stair_es.model import registry\nfrom stair_es.model.base import ModelSpec\n"
        "encoder = registry.load_encoder(ModelSpec(name=sys.argv[1]))\n"
        "print(len(encoder.encode_images(np.zeros((2, 32, 32, 3), np.uint8))), len(encoder.encode_texts(['a red dog'])[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "5"]


def test_without_pytorch_and_graphs_both_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_stair.write_checkpoint(tmp_path, tiny_stair.build_shallow_config())
    monkeypatch.setattr("stair_es.model.stair.encoder.is_installed", lambda *_: False)
    monkeypatch.setattr("stair_es.model.cuda.is_cuda_available", lambda *_: False)
    with pytest.raises(MissingExtra) as missing:
        _load(folder, "auto").encode_texts(["a red dog"])
    assert str(folder) in missing.value.message
    assert "[models]" in missing.value.remedy
    assert "stair-es export" in missing.value.remedy


def test_a_graph_names_its_weights_and_not_the_exporting_machine(folder: Path) -> None:
    for file in ("image.onnx", "text.onnx"):
        proto = onnx.load(folder / file)
        onnx.checker.check_model(proto)
        assert {entry.key: entry.value for entry in proto.metadata_props} == {
            ONNX_MODEL_ID_KEY: registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
        }
        assert b"site-packages" not in (folder / file).read_bytes()


def _stale(folder: Path) -> None:
    tiny_stair.write_checkpoint(folder, seed=2)


def _half(folder: Path) -> None:
    (folder / "text.onnx").write_bytes((folder / "text.onnx").read_bytes()[:5000])


def _garbled(folder: Path) -> None:
    data = (folder / "text.onnx").read_bytes()
    (folder / "text.onnx").write_bytes(bytes(200) + data[200:])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_stale, r"image\.onnx was exported from other weights"),
        (_half, r"text\.onnx was exported from other weights"),
        (_garbled, r"onnxruntime can't load .*text\.onnx"),
        (lambda folder: (folder / "text.onnx").unlink(), r"has no text\.onnx"),
    ],
)
def test_graphs_that_do_not_fit_are_rejected(folder: Path, fault: Any, said: str) -> None:  # noqa: ANN401
    fault(folder)
    with pytest.raises(ModelError, match=said) as wrong:
        _load(folder).encode_texts(["a red dog"])
    assert wrong.value.remedy == f"Run: stair-es export {folder}"


def test_narrow_precision_is_not_for_graphs(folder: Path) -> None:
    with pytest.raises(ModelError, match="onnx backend computes in fp32, not in bf16"):
        _load(folder, precision="bf16")


def test_the_command(exported: _Exported) -> None:
    folder, result = exported.folder, exported.result
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert output["model"] == registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
    assert output["bytes"] == {file: (folder / file).stat().st_size for file in ("image.onnx", "text.onnx")}
    assert output["difference"] < MAX_DIFFERENCE
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "message", "code"), [("m", "model.safetensors", 1), ("", "config.json", 1), ("nowhere", "does not exist", 2)]
)
def test_folders_that_are_no_checkpoint_are_rejected(folder: Path, name: str, message: str, code: int) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    done = run_warm(["export", str(folder.parent / name), "--json"], os.environ)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", "").split())  # a long path breaks the line
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["remedy"]
