"""Values of `--model` and their errors. No network is loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import huggingface_hub.constants
import pytest

from stair_es.cluster.metadata.names import check_alias_name, make_index_name
from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.config.settings import Settings
from stair_es.errors import ModelError, UnknownModel
from stair_es.model import checkpoint_formats, registry
from stair_es.model.checkpoint import compute_model_id
from stair_es.types import ImageSpec

SPEC = ImageSpec(size_px=8)


def _folder(folder: Path, config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["nope", "", " ", "./nope", "/no/such/folder", "a/b/c", "~nobody-here/x", "x\0y", "x" * 5000])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModel, match="neither a name nor a folder") as error:
        registry.get_encoder_plugin(name)
    assert "stair-mini" in error.value.remedy
    assert "org/name" in error.value.remedy
    assert error.value.exit_code == 2


def test_names_precede_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path / "stair-mini", {"model_type": "clip"})
    monkeypatch.chdir(tmp_path)
    assert registry.get_model_card("stair-mini").model_id == "stair-mini-2"
    assert registry.make_portable_name("stair-mini") == "stair-mini"
    assert registry.make_portable_name("./stair-mini") == str(tmp_path / "stair-mini")


def test_only_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path / "models" / "mine", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("models/mine", "./models/mine/", "models/../models/mine", "~/models/mine", str(folder)):
        assert registry.make_portable_name(given) == str(folder)
    assert registry.make_portable_name("org/name") == "org/name"


def test_a_folder_without_a_checkpoint_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"isn't a checkpoint: it has no config\.json"):
        registry.get_encoder_plugin(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_invalid_configurations(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json (can't be read|isn't a JSON object)"):
        registry.get_encoder_plugin(str(tmp_path))


def test_unknown_format_lists_known_ones(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "x", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    with pytest.raises(ModelError, match=r"unknown format.*llama") as error:
        registry.get_encoder_plugin(str(folder))
    for name in ("stair-es", "VDR", "D2S", "SparseEncoder", "CLIP", "SigLIP", "ALIGN"):
        assert name in error.value.remedy


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"format": "stair-es"}, "stair-es"),
        ({"encoder_q": {}, "encoder_p": {}}, "VDR (cross-modal)"),
        ({"model_type": "d2s"}, "D2S"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "SPLADE (masked language model)"),
        ({"model_type": "clip"}, "CLIP"),
        ({"model_type": "siglip", "architectures": ["SiglipModel"]}, "SigLIP"),
        ({"model_type": "align"}, "ALIGN"),
        ({"model_type": "blip", "architectures": ["BlipForImageTextRetrieval"]}, "BLIP (retrieval)"),
    ],
)
def test_a_configuration_decides(tmp_path: Path, config: object, name: str) -> None:
    assert checkpoint_formats.detect_checkpoint_format(_folder(tmp_path / "x", config)).name == name


def test_sparse_encoders_need_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "sentence_transformers.models.Router"}]))
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SparseEncoder"}))
    assert checkpoint_formats.detect_checkpoint_format(tmp_path).name == "sentence-transformers SparseEncoder"
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SentenceTransformer"}))
    with pytest.raises(ModelError, match="unknown format"):
        checkpoint_formats.detect_checkpoint_format(tmp_path)


def test_the_same_id_means_the_same_files(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "My Model (v2)", {"a": 1})
    first = compute_model_id(str(folder), [folder], SPEC)
    assert re.fullmatch(r"my-model-v2-[0-9a-f]{12}", first)
    (folder / "README.md").write_text("not part of it")
    (folder / "checkpoint-7").mkdir()
    (folder / "checkpoint-7" / "model.safetensors").write_bytes(b"neither")
    assert compute_model_id(str(folder), [folder], SPEC) == first
    (folder / "tokenizer.json").write_text("{}")
    second = compute_model_id(str(folder), [folder], SPEC)
    assert second != first
    (folder / "pytorch_model.bin").write_bytes(b"1")
    third = compute_model_id(str(folder), [folder], SPEC)
    assert third != second
    (folder / "model.safetensors").write_bytes(b"2")  # now the pickle isn't read any more
    fourth = compute_model_id(str(folder), [folder], SPEC)
    (folder / "pytorch_model.bin").write_bytes(b"other")
    assert compute_model_id(str(folder), [folder], SPEC) == fourth != third
    assert compute_model_id(str(folder), [folder], ImageSpec(size_px=8, fit="crop")) != fourth
    assert compute_model_id(str(folder), [folder], ImageSpec(size_px=8, resample="bilinear")) != fourth


@pytest.mark.parametrize("name", ["Org/Some_Model.v1", "/tmp/ä ö/ÜBER", "org/---", "/x/" + "long" * 80, "C:\\models\\mine"])
def test_ids_make_legal_index_names(tmp_path: Path, name: str) -> None:
    result = compute_model_id(name, [tmp_path], SPEC)
    index = make_index_name("photos", result, datetime(2024, 5, 6, tzinfo=timezone.utc))
    check_alias_name(index[:200])
    assert len(index.encode()) <= 255
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*-[0-9a-f]{12}", result)


def test_an_unreachable_hub_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match="no folder 'vsearch/vdr-cross-modal' here, and it can't be downloaded from the hub"
    ) as error:
        registry.get_encoder_plugin("vsearch/vdr-cross-modal")
    assert "hf download vsearch/vdr-cross-modal" in error.value.remedy


def test_code_is_trusted_by_the_name_of_the_model_only() -> None:
    for value, trusted in (("", False), ("1", False), ("*", False), ("org/other, org/name", True), ("org/name", True)):
        assert ("org/name" in Settings.from_env({ENV_TRUST_REMOTE_CODE: value}).trusted_models) is trusted


def test_resolving_loads_no_network_library(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "clip", {"model_type": "clip"})
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 224}))
    code = (
        f"import sys\nfrom stair_es.model import registry\nregistry.get_model_card({str(folder)!r})\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
