"""Public checkpoints with short names, the list of models, and incomplete copies. Nothing is downloaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.errors import expect_error

from stair_es import plugins
from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.model import hub, registry
from stair_es.model.base import ModelSpec
from stair_es.model.hub import find_weight_faults
from stair_es.model.labels.word_list import load_seen_words
from stair_es.optional import format_install_command


def test_a_short_name_resolves_to_its_id_even_next_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in hub.HUB_MODELS:
        (tmp_path / model.name).mkdir()
        assert registry.locate_model(model.name).portable_name == (model.name if model.commit else model.hub_id)
        assert registry.locate_model(model.hub_id).portable_name == model.hub_id
        assert registry.locate_model(f"./{model.name}").portable_name == str(tmp_path / model.name)
        assert registry.locate_model(model.name).is_on_hub
        assert hub.find_hub_model(model.name) is hub.find_hub_model(model.hub_id) is model
    assert hub.find_hub_model("photo") is None
    assert {len(load_seen_words())} == {model.facts.tokens for model in hub.HUB_MODELS if model.commit}
    assert not set(hub.list_hub_model_names()) & set(plugins.list_plugin_names("encoders"))


@pytest.mark.parametrize(
    "call",
    [
        lambda name: registry.locate_model(name).check_hub_libraries(),
        lambda name: registry.load_encoder(ModelSpec(name=name)),
    ],
)
def test_a_missing_extra_is_reported_before_downloads(
    call: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "HUB_LIBRARIES", ("no_such_package_at_all",))
    for name in ("photos", "some/model"):
        with expect_error("missing-extra") as caught:
            call(name)
        assert format_install_command("models") in caught.value.remedy
    registry.locate_model(DEFAULT_MODEL).check_hub_libraries()
    registry.locate_model(str(tmp_path)).check_hub_libraries()


def test_the_list_has_every_entry_point_and_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_repository_cached", lambda name, _: name.startswith("lsr42/"))  # the head alone
    entries = {entry.name: entry for entry in registry.list_models()}
    assert tuple(sorted(entries)) == tuple(sorted((*plugins.list_plugin_names("encoders"), *hub.list_hub_model_names())))
    assert next(iter(entries)) == DEFAULT_MODEL
    assert (entries[DEFAULT_MODEL].extra, entries[DEFAULT_MODEL].cached) == (None, True)
    photos = entries["photos"].to_dict()
    assert photos["repositories"] == hub.HUB_MODELS[0].repositories
    assert (photos["extra"], photos["cached"], photos["tokens"]) == ("models", False, 30_522)
    assert entries["photos-small"].to_dict()["recall"] is None  # unknown
    assert [name for name, entry in entries.items() if entry.runs_code] == ["pages"]
    assert {name for name, entry in entries.items() if not entry.tested} == {
        each.name for each in hub.HUB_MODELS if not each.tested
    }
    assert [entry.name for entry in entries.values() if registry.find_listed_model(entry.name) != entry] == []
    assert registry.find_listed_model("vsearch/vdr-cross-modal").name == "photos-small"
    with expect_error("unknown-model") as caught:
        registry.find_listed_model("photo")
    assert "'photo'" in caught.value.message
    assert "photos-small" in caught.value.remedy


def test_the_command_lists_and_shows_one_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_repository_cached", lambda *_: False)
    runner = CommandRunner({}, "models")
    output = runner.read_output()
    assert [fact for fact in (DEFAULT_MODEL, "lsr42/d2s", "R@1 55.9", "BSD-3-Clause") if fact not in output] == []
    assert runner.read_json("photos") in runner.read_json()["models"]
    details = runner.read_output("photos")
    assert format_install_command("models") in " ".join(details.split())
    assert "Salesforce/blip-itm-base-coco" in details
    assert "Python code" not in details
    untested = sum(not model.tested for model in hub.HUB_MODELS)
    assert [output.count(hub.UNTESTED), details.count(hub.UNTESTED)] == [untested, int(not hub.HUB_MODELS[0].tested)]
    assert "Python code of naver/v-splade-quality" in runner.read_output("pages")


def build_safetensors(length: int, written: int) -> bytes:
    """Return a file with one tensor, of which some bytes are written."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * written


SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
WHOLE = build_safetensors(100, 100)
TRUNCATED_ZIP = b"PK, and no more"
SHARDS = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


@pytest.mark.parametrize(
    ("files", "faulty"),
    [
        pytest.param({SAFETENSORS: WHOLE}, [], id="whole"),
        pytest.param({SAFETENSORS: WHOLE, PICKLE: TRUNCATED_ZIP}, [], id="a pickle that is not read"),
        pytest.param({SAFETENSORS: WHOLE[:-1], PICKLE: TRUNCATED_ZIP}, [SAFETENSORS], id="truncated"),
        pytest.param({SAFETENSORS: b""}, [SAFETENSORS], id="empty"),
        pytest.param({SAFETENSORS: b"\xff" * 8}, [SAFETENSORS], id="a header that is too long"),
        pytest.param({SAFETENSORS: b"\x02\0\0\0\0\0\0\0[]"}, [SAFETENSORS], id="another header"),
        pytest.param({PICKLE: TRUNCATED_ZIP}, [PICKLE], id="truncated pickle"),
        pytest.param({PICKLE: b"\x80\x02 before PyTorch 1.6"}, [], id="old pickle"),
        pytest.param(
            {
                "model-1.safetensors": build_safetensors(1, 1),
                "model.safetensors.index.json": json.dumps(SHARDS).encode(),
                "pytorch_model.bin.index.json": b'{"weight_map": {"a": "pytorch_model-1.bin"}}',
            },
            ["model-2.safetensors"],
            id="missing shard",
        ),
        pytest.param(
            {"model-1.safetensors": build_safetensors(1, 1), "model.safetensors.index.json": b"[]"}, [], id="unreadable index"
        ),
        pytest.param({"modules.json": b"[]"}, ["it"], id="modules without weights"),
        pytest.param({"modules.json": b"[]", f"0_A/{SAFETENSORS}": WHOLE}, [], id="weights of a module"),
        pytest.param({"modules.json": b"[]", f"0_A/{SAFETENSORS}": WHOLE[:-1]}, [SAFETENSORS], id="truncated module"),
    ],
)
def test_incomplete_copies(tmp_path: Path, files: dict[str, bytes], faulty: list[str]) -> None:
    assert len(find_weight_faults(tmp_path)) == 1  # no weights
    (tmp_path / "0_A").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert [fault.split()[0] for fault in find_weight_faults(tmp_path)] == faulty
