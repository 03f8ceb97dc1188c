"""The public checkpoints that have short names, the list of models, and whole and broken copies. Nothing is fetched."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stair_es import plugins
from stair_es.cli.main import app
from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import MissingExtra, UnknownModel
from stair_es.model import hub, registry
from stair_es.model.base import ModelSpec
from stair_es.model.hub import find_weight_faults
from stair_es.optional import format_install_command


def test_a_short_name_resolves_to_its_id_even_next_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in hub.HUB_MODELS:
        (tmp_path / model.name).mkdir()
        assert registry.locate_model(model.name).portable_name == model.hub_id
        assert registry.locate_model(model.hub_id).portable_name == model.hub_id
        assert registry.locate_model(f"./{model.name}").portable_name == str(tmp_path / model.name)
        assert registry.locate_model(model.name).is_on_hub
        assert hub.find_hub_model(model.name) is hub.find_hub_model(model.hub_id) is model
    assert hub.find_hub_model("photo") is None
    assert not set(hub.list_hub_model_names()) & set(plugins.list_plugin_names("encoders"))


@pytest.mark.parametrize(
    "call",
    [
        lambda name: registry.locate_model(name).check_hub_libraries(),
        lambda name: registry.load_encoder(ModelSpec(name=name)),
    ],
)
def test_without_the_extra_it_is_named_before_anything_is_fetched(
    call: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "HUB_LIBRARIES", ("no_such_package_at_all",))
    for name in ("photos", "some/model"):
        with pytest.raises(MissingExtra, match=re.escape(format_install_command("models"))):
            call(name)  # type: ignore[operator]
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
    assert [entry.name for entry in entries.values() if registry.find_listed_model(entry.name) != entry] == []
    assert registry.find_listed_model("vsearch/vdr-cross-modal").name == "photos-small"
    with pytest.raises(UnknownModel, match="'photo'") as error:
        registry.find_listed_model("photo")
    assert "photos-small" in error.value.remedy


def test_the_command_lists_and_shows_one_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_repository_cached", lambda *_: False)
    shown = CliRunner().invoke(app, ["models"]).stdout
    for text in (f"{DEFAULT_MODEL} (the default)", "lsr42/d2s", "R@1 55.9", "BSD-3-Clause", "not verified", "not fetched yet"):
        assert text in shown
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]
    assert json.loads(CliRunner().invoke(app, ["models", "photos", "--json"]).stdout) in listed
    full = CliRunner().invoke(app, ["models", "photos"]).stdout
    assert format_install_command("models") in " ".join(full.split())
    assert "hf download Salesforce/blip-itm-base-coco" in full


def _safetensors(path: Path, length: int, written: int) -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * written)


def test_copies_that_are_not_whole(tmp_path: Path) -> None:
    assert find_weight_faults(tmp_path) == ["it has no weights"]
    _safetensors(tmp_path / "model.safetensors", 100, 100)
    assert find_weight_faults(tmp_path) == []
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK, and no more")  # not read beside safetensors
    assert find_weight_faults(tmp_path) == []
    _safetensors(tmp_path / "model.safetensors", 100, 99)
    assert find_weight_faults(tmp_path) == ["model.safetensors is truncated"]
    for rest in (b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(rest)
        assert find_weight_faults(tmp_path) == ["model.safetensors is truncated"]
    (tmp_path / "model.safetensors").unlink()
    assert find_weight_faults(tmp_path) == ["pytorch_model.bin is truncated"]
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02 as PyTorch wrote before 1.6")
    assert find_weight_faults(tmp_path) == []


def test_shards_that_lack(tmp_path: Path) -> None:
    _safetensors(tmp_path / "model-1.safetensors", 1, 1)
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))
    assert find_weight_faults(tmp_path) == ["model-2.safetensors is missing"]
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert find_weight_faults(tmp_path) == []
