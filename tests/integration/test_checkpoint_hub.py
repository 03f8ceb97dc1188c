"""Models by hub id, from a local hub: downloads and errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models.tiny_checkpoints import (
    build_d2s_config,
    build_vdr_config,
    draw_d2s_weights,
    draw_vdr_weights,
    write_checkpoint,
)
from support.servers.hub_server import HubServer, build_environment, serve_hub
from support.warm_commands import run_warm

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.hub import HUB_MODELS, HubModel


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with serve_hub(tmp_path / "hub") as server:
        yield server


def _resolve(name: str, hub_url: str, home: Path, at: Path | None = None, **more: str) -> dict[str, str]:
    """The card of a model as a new process sees it, or what it said. The hub's address is read when its library is imported."""
    code = (
        "import json, sys\nfrom stair_es.errors import StairError\nfrom stair_es.model import registry\n"
        "from stair_es.model.base import ModelSpec\ntry:\n    card = registry.resolve_model(ModelSpec(name=sys.argv[1])).card\n"
        "    print(json.dumps({'id': card.model_id, 'name': card.name}))\n"
        "except StairError as error:\n    print(json.dumps({'error': error.message, 'remedy': error.remedy}))\n"
    )
    given = {**os.environ, **build_environment(hub_url, home), **more}
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True, env=given, cwd=at)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_repository_is_the_same_model_as_its_folder(hub: HubServer, tmp_path: Path) -> None:
    folder = write_checkpoint(hub.root / "org" / "Tiny_VDR", build_vdr_config(), draw_vdr_weights(), pickled=True)
    for name in ("run.py", "training_args.bin", "flax_model.msgpack", "README.md"):
        (folder / name).write_text("---\nlicense: mit\n---\n")
    found = _resolve("org/Tiny_VDR", hub.url, tmp_path / "home")
    assert found["name"] == "org/Tiny_VDR"
    assert set(hub.downloads) == {"config.json", "vocab.txt", "README.md", "pytorch_model.bin"}
    (folder / "run.py").unlink()  # a folder's code counts: a hub's wasn't fetched
    assert found["id"] == registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
    assert found["id"].startswith("tiny-vdr-")

    hub.downloads.clear()
    assert _resolve("org/Tiny_VDR", hub.url, tmp_path / "home") == found  # from the cache
    assert not hub.downloads
    assert _resolve("org/Tiny_VDR", "http://127.0.0.1:9", tmp_path / "home") == found  # without a network
    assert _resolve("org/Tiny_VDR", hub.url, tmp_path / "home", HF_HUB_OFFLINE="1") == found


def test_safetensors_are_preferred_to_pickles(hub: HubServer, tmp_path: Path) -> None:
    folder = write_checkpoint(hub.root / "org" / "both", build_vdr_config(), draw_vdr_weights())
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    assert _resolve("org/both", hub.url, tmp_path / "home")["id"].startswith("both-")
    assert "pytorch_model.bin" not in hub.downloads


def test_an_unknown_format_costs_no_weights(hub: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub.root / "org" / "llama", {"model_type": "llama"}, draw_vdr_weights())
    assert "unknown format" in _resolve("org/llama", hub.url, tmp_path / "home")["error"]
    assert "model.safetensors" not in hub.downloads


def test_a_repository_that_the_hub_does_not_have(hub: HubServer, tmp_path: Path) -> None:
    found = _resolve("org/none", hub.url, tmp_path / "home")
    assert "no folder 'org/none' here, and no such repository" in found["error"]
    assert "hf auth login" in found["remedy"]


def test_an_unreachable_hub(tmp_path: Path) -> None:
    found = _resolve("org/none", "http://127.0.0.1:9", tmp_path / "home")
    assert "it can't be downloaded from the hub" in found["error"]
    assert "hf download org/none" in found["remedy"]


def test_interrupted_downloads_are_reported_and_resumed(hub: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub.root / "org" / "cut", build_vdr_config(), draw_vdr_weights(), pickled=True)
    hub.truncated = {"pytorch_model.bin"}
    home = tmp_path / "home"
    at = home / "hub" / "models--org--cut"
    broken = _resolve("org/cut", hub.url, home)
    assert "can't be downloaded from the hub" in broken["error"]
    assert f"run the command again: completed files are kept. If that doesn't help, delete {at} first" in broken["remedy"]
    offline = _resolve("org/cut", hub.url, home, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in offline["error"]
    assert "only a part of it" in offline["error"]
    assert offline["remedy"].startswith("Unset HF_HUB_OFFLINE, or download it on a machine with a connection")
    hub.truncated = set()
    assert _resolve("org/cut", hub.url, home)["id"].startswith("cut-")


@pytest.mark.parametrize("pickled", [False, True])
def test_truncated_cached_weights_are_detected(hub: HubServer, tmp_path: Path, pickled: bool) -> None:
    write_checkpoint(hub.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights(), pickled=pickled)
    home = tmp_path / "home"
    whole = _resolve("org/tiny", hub.url, home)
    at = home / "hub" / "models--org--tiny"
    [weights] = at.glob("snapshots/*/pytorch_model.bin" if pickled else "snapshots/*/model.safetensors")
    with weights.resolve().open("rb+") as file:
        file.truncate(1000)
    found = _resolve("org/tiny", hub.url, home, HF_HUB_OFFLINE="1")
    assert f"is incomplete: {weights.name} is truncated" in found["error"]
    assert found["remedy"].startswith(f"Delete {at} and run the command again")
    shutil.rmtree(at)
    assert _resolve("org/tiny", hub.url, home) == whole


def test_unwritable_cache_is_named(hub: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights())
    (tmp_path / "home").write_text("a file, no folder")
    found = _resolve("org/tiny", hub.url, tmp_path / "home")
    assert str(tmp_path / "home") in found["error"] + found["remedy"]


@pytest.fixture
def public(hub: HubServer) -> HubServer:
    """The hub with tiny checkpoints in the place of those that have short names."""
    from support.models.tiny_dense import write_blip

    photos, small = HUB_MODELS
    write_checkpoint(hub.root / photos.hub_id, build_d2s_config(None), draw_d2s_weights())
    assert photos.dense_id is not None
    write_blip(hub.root / photos.dense_id)
    write_checkpoint(hub.root / small.hub_id, build_vdr_config(), draw_vdr_weights(), pickled=True)
    return hub


@pytest.mark.parametrize("model", HUB_MODELS, ids=lambda model: model.name)
def test_a_short_name_is_its_id_on_the_hub(public: HubServer, tmp_path: Path, model: HubModel) -> None:
    home = tmp_path / "home"
    (tmp_path / model.name).mkdir()  # a folder called so is not meant
    short = _resolve(model.name, public.url, home, at=tmp_path)
    assert short["name"] == model.hub_id
    assert re.fullmatch(r"(d2s-mscoco|vdr-cross)[a-z0-9.-]*-[0-9a-f]{12}", short["id"])
    public.downloads.clear()
    assert _resolve(model.hub_id, public.url, home) == short
    assert _resolve(model.name, "http://127.0.0.1:9", home, HF_HUB_OFFLINE="1") == short
    assert not public.downloads


def test_the_dense_model_of_photos_counts_and_another_one_can_be_named(public: HubServer, tmp_path: Path) -> None:
    from support.models.tiny_dense import write_blip

    home, other = tmp_path / "home", write_blip(tmp_path / "other", seed=9)
    first = _resolve("photos", public.url, home)["id"]
    assert _resolve("photos", public.url, home, STAIR_ES_D2S_DENSE_MODEL=str(other))["id"] != first


def test_list_shows_the_cache_without_downloads(public: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"

    def cached() -> dict[str, bool]:
        listed = json.loads(_stair_es("models", "--json", url=public.url, home=home).stdout)["models"]
        return {each["name"]: each["cached"] for each in listed if each["origin"] == "hub"}

    assert cached() == {"photos": False, "photos-small": False}
    assert not public.downloads
    _resolve("photos-small", public.url, home)
    head = HUB_MODELS[0].hub_id
    _resolve(head, public.url, home)
    assert cached() == {"photos": True, "photos-small": True}
    shutil.rmtree(home / "hub" / f"models--{HUB_MODELS[0].dense_id}".replace("/", "--"))
    assert cached() == {"photos": False, "photos-small": True}


def test_encode_reads_a_short_name_from_the_environment(public: HubServer, tmp_path: Path) -> None:
    done = _stair_es("encode", "--text", "dog", "--json", url=public.url, home=tmp_path / "home", STAIR_ES_MODEL="photos")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"]


def _stair_es(*arguments: str, url: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run_warm(arguments, {**os.environ, **build_environment(url, home), **more})
