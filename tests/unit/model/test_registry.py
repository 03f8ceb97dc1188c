"""Values of `--model` and their errors. No network is loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es import plugins
from stair_es.cluster.metadata.names import check_alias_name, make_index_name
from stair_es.ingest import pipeline
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import families, hub, registry
from stair_es.model.base import ModelSpec
from stair_es.model.checkpoint import compute_model_id
from stair_es.sources.registry import open_source
from stair_es.types import ImageSpec

SPEC = ImageSpec(size_px=8)
EXAMPLE = Path(__file__).parents[3] / "examples" / "plugin" / "src"


def write_config(folder: Path, config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["nope", "", " ", "./nope", "/no/such/folder", "a/b/c", "~nobody-here/x", "x\0y", "x" * 5000])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with expect_error("unknown-model") as caught:
        registry.resolve_model(ModelSpec(name=name))
    assert "stair-mini" in caught.value.remedy
    assert caught.value.exit_code == 2


def test_names_precede_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path / "stair-mini", {"model_type": "clip"})
    monkeypatch.chdir(tmp_path)
    assert registry.resolve_model(ModelSpec(name="stair-mini")).card.model_id == "stair-mini-3"
    assert registry.locate_model("stair-mini").portable_name == "stair-mini"
    assert registry.locate_model("./stair-mini").portable_name == str(tmp_path / "stair-mini")


def test_only_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_config(tmp_path / "models" / "mine", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("models/mine", "./models/mine/", "models/../models/mine", "~/models/mine", str(folder)):
        assert registry.locate_model(name).portable_name == str(folder)
    assert registry.locate_model("org/name").portable_name == "org/name"


@pytest.mark.parametrize("config", [None, b"{", b"[]", b"\xff"])
def test_missing_and_invalid_configurations(tmp_path: Path, config: bytes | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_bytes(config)
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(tmp_path)))
    assert [fact for fact in (str(tmp_path), "config.json") if fact not in caught.value.message] == []


def test_unknown_format_lists_known_ones(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "x", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(folder)))
    assert "llama" in caught.value.message
    known = ("stair-es", "VDR", "D2S", "SparseEncoder", "CLIP", "SigLIP", "ALIGN")
    assert [name for name in known if name not in caught.value.remedy] == []


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
    assert families.detect_family(write_config(tmp_path / "x", config)).family == name


def test_sparse_encoders_need_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "sentence_transformers.models.Router"}]))
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SparseEncoder"}))
    assert families.detect_family(tmp_path).family == "sentence-transformers SparseEncoder"
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SentenceTransformer"}))
    with expect_error("checkpoint-error"):
        families.detect_family(tmp_path)


def test_the_same_id_means_the_same_files(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "My Model (v2)", {"a": 1})
    (folder / "checkpoint-7").mkdir()
    ids = [compute_model_id(str(folder), [folder], SPEC)]
    assert re.fullmatch(r"my-model-v2-[0-9a-f]{12}", ids[0])
    for name, is_part in (
        ("README.md", False),
        ("checkpoint-7/model.safetensors", False),
        ("tokenizer.json", True),
        ("pytorch_model.bin", True),
        ("model.safetensors", True),
        ("pytorch_model.bin", False),  # beside safetensors it isn't read
    ):
        (folder / name).write_text(f"content {len(ids)}")
        ids.append(compute_model_id(str(folder), [folder], SPEC))
        assert (ids[-1] != ids[-2]) is is_part, name
    for spec in (ImageSpec(size_px=8, fit="crop"), ImageSpec(size_px=8, resample="bilinear")):
        assert compute_model_id(str(folder), [folder], spec) != ids[-1]


@pytest.mark.parametrize("name", ["Org/Some_Model.v1", "/tmp/ä ö/ÜBER", "org/---", "/x/" + "long" * 80, "C:\\models\\mine"])
def test_ids_make_legal_index_names(tmp_path: Path, name: str) -> None:
    model_id = compute_model_id(name, [tmp_path], SPEC)
    index = make_index_name("photos", model_id, datetime(2024, 5, 6, tzinfo=UTC))
    check_alias_name(index[:200])
    assert len(index.encode()) <= 255
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*-[0-9a-f]{12}", model_id)


def test_an_unreachable_hub_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "HUB_LIBRARIES", ("huggingface_hub",))  # PyTorch may be missing here
    with expect_error("hub-offline") as caught:
        registry.resolve_model(ModelSpec(name="vsearch/vdr-cross-modal"))
    assert "'vsearch/vdr-cross-modal'" in caught.value.message
    assert "hf download vsearch/vdr-cross-modal" in caught.value.remedy


def test_resolving_loads_no_network_library(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "clip", {"model_type": "clip"})
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 224}))
    code = (
        "import sys\nfrom stair_es.model import registry\nfrom stair_es.model.base import ModelSpec\n"
        f"registry.resolve_model(ModelSpec(name={str(folder)!r}))\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_ingest_looks_up_its_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(pipeline, "load_sink_kind", lambda _: import_module("stair_es_example.ndjson").KIND)
    lookups: Counter[str] = Counter()
    functions = ((plugins, "entry_points"), (plugins, "get_plugin"), (registry, "locate_model"), (hub, "find_hub_model"))
    for module, name in functions:
        monkeypatch.setattr(module, name, count_calls(getattr(module, name), name, lookups))
    plugins.list_plugins.cache_clear()
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / "red.png")
    sink_options = {"folder": str(tmp_path / "out")}
    options = IngestOptions(
        alias="a", model=ModelSpec(name="stair-mini"), runner="local", sink="ndjson", sink_options=sink_options
    )
    source = open_source(str(tmp_path / "photos"))
    lookups.clear()
    report = run_ingest([source], None, options, progress=lambda *_: None)
    assert report.written == 1
    assert lookups == {"entry_points": 1, "get_plugin": 1, "locate_model": 1}


def count_calls(function: Callable[..., Any], name: str, calls: Counter[str]) -> Callable[..., Any]:
    def count_call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        calls[name] += 1
        return function(*args, **options)

    return count_call
