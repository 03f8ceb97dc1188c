"""Models by hub id, from a local hub: downloads and errors."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_sparse
from support.models.tiny_checkpoints import (
    build_d2s_config,
    build_vdr_config,
    draw_d2s_weights,
    draw_vdr_weights,
    write_checkpoint,
)
from support.servers.hub_server import SHA, HubServer, build_environment, serve_hub
from support.warm_commands import run_warm

from stair_es.config.defaults import DEFAULT_MODEL, ENV_HOME, ENV_LOG_FORMAT, ENV_TRUST_REMOTE_CODE
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.hub import HUB_MODELS, HubModel

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photos" / "tabby-cat.jpg"


@pytest.fixture
def hub_server(tmp_path: Path) -> Iterator[HubServer]:
    with serve_hub(tmp_path / "hub") as server:
        yield server


def resolve_model(name: str, hub_url: str, home: Path, cwd: Path | None = None, **more: str) -> dict[str, str]:
    """Return the id and name of a model as a new process resolves it, or its error: the hub's address is read at import."""
    code = (
        "import json, os, sys\nfrom stair_es.errors import StairError\nfrom stair_es.model import hub, registry\n"
        "from stair_es.model.base import ModelSpec\nhub.pin_revisions(json.loads(os.environ.get('PINNED', '{}')))\n"
        "try:\n    card = registry.resolve_model(ModelSpec(name=sys.argv[1])).card\n"
        "    print(json.dumps({'id': card.model_id, 'name': card.name, **hub.get_revisions()}))\n"
        "except StairError as error:\n    print(json.dumps(vars(error)))\n"
    )
    environment = {**os.environ, **build_environment(hub_url, home), **more}
    completed = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, env=environment, cwd=cwd
    )
    resolved: dict[str, str] = json.loads(completed.stdout.splitlines()[-1])
    return resolved


def test_a_repository_is_the_same_model_as_its_folder(hub_server: HubServer, tmp_path: Path) -> None:
    folder = write_checkpoint(hub_server.root / "org" / "Tiny_VDR", build_vdr_config(), draw_vdr_weights(), pickled=True)
    for name in ("run.py", "training_args.bin", "flax_model.msgpack", "README.md"):
        (folder / name).write_text("---\nlicense: mit\n---\n")
    resolved = resolve_model("org/Tiny_VDR", hub_server.url, tmp_path / "home")
    assert resolved["name"] == "org/Tiny_VDR"
    assert set(hub_server.downloads) == {"config.json", "vocab.txt", "README.md", "pytorch_model.bin"}
    (folder / "run.py").unlink()  # a folder's code counts: a hub's wasn't fetched
    assert resolved["id"] == registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
    assert resolved["id"].startswith("tiny-vdr-")

    hub_server.downloads.clear()
    assert resolve_model("org/Tiny_VDR", hub_server.url, tmp_path / "home") == resolved  # from the cache
    assert not hub_server.downloads
    assert resolve_model("org/Tiny_VDR", "http://127.0.0.1:9", tmp_path / "home") == resolved  # without a network
    assert resolve_model("org/Tiny_VDR", hub_server.url, tmp_path / "home", HF_HUB_OFFLINE="1") == resolved


def test_workers_load_the_commit_of_their_driver(hub_server: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub_server.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights())
    assert resolve_model("org/tiny", hub_server.url, tmp_path / "driver")["org/tiny"] == SHA
    hub_server.request_paths.clear()
    older = SHA[::-1]
    resolve_model("org/tiny", hub_server.url, tmp_path / "worker", PINNED=json.dumps({"org/tiny": older}))
    requested = [path for path in hub_server.request_paths if "api/models" in path]
    assert requested
    assert all(older in path for path in requested)


def test_safetensors_are_preferred_to_pickles(hub_server: HubServer, tmp_path: Path) -> None:
    folder = write_checkpoint(hub_server.root / "org" / "both", build_vdr_config(), draw_vdr_weights())
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    assert resolve_model("org/both", hub_server.url, tmp_path / "home")["id"].startswith("both-")
    assert "pytorch_model.bin" not in hub_server.downloads


def test_an_unknown_format_costs_no_weights(hub_server: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub_server.root / "org" / "llama", {"model_type": "llama"}, draw_vdr_weights())
    resolved = resolve_model("org/llama", hub_server.url, tmp_path / "home")
    assert (resolved["code"], "llama" in resolved["message"]) == ("checkpoint-error", True)
    assert "model.safetensors" not in hub_server.downloads


def test_a_repository_that_the_hub_does_not_have(hub_server: HubServer, tmp_path: Path) -> None:
    resolved = resolve_model("org/none", hub_server.url, tmp_path / "home")
    assert resolved["code"] == "no-such-repository"
    assert "hf auth login" in resolved["remedy"]


def test_an_unreachable_hub(tmp_path: Path) -> None:
    resolved = resolve_model("org/none", "http://127.0.0.1:9", tmp_path / "home")
    assert resolved["code"] == "model-not-downloaded"
    assert "hf download org/none" in resolved["remedy"]


def test_interrupted_downloads_are_reported_and_resumed(hub_server: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub_server.root / "org" / "cut", build_vdr_config(), draw_vdr_weights(), pickled=True)
    hub_server.truncated = {"pytorch_model.bin"}
    home = tmp_path / "home"
    cache = home / "hub" / "models--org--cut"
    interrupted = resolve_model("org/cut", hub_server.url, home)
    assert (interrupted["code"], str(cache) in interrupted["remedy"]) == ("model-not-downloaded", True)
    offline = resolve_model("org/cut", hub_server.url, home, HF_HUB_OFFLINE="1")
    assert (offline["code"], "HF_HUB_OFFLINE" in offline["remedy"]) == ("hub-offline", True)
    hub_server.truncated = set()
    assert resolve_model("org/cut", hub_server.url, home)["id"].startswith("cut-")


@pytest.mark.parametrize("pickled", [False, True])
def test_truncated_cached_weights_are_detected(hub_server: HubServer, tmp_path: Path, pickled: bool) -> None:
    write_checkpoint(hub_server.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights(), pickled=pickled)
    home = tmp_path / "home"
    complete = resolve_model("org/tiny", hub_server.url, home)
    cache = home / "hub" / "models--org--tiny"
    [weights] = cache.glob("snapshots/*/pytorch_model.bin" if pickled else "snapshots/*/model.safetensors")
    with weights.resolve().open("rb+") as file:
        file.truncate(1000)
    resolved = resolve_model("org/tiny", hub_server.url, home, HF_HUB_OFFLINE="1")
    assert (resolved["code"], weights.name in resolved["message"]) == ("checkpoint-incomplete", True)
    assert str(cache) in resolved["remedy"]
    shutil.rmtree(cache)
    assert resolve_model("org/tiny", hub_server.url, home) == complete


def test_unwritable_cache_is_named(hub_server: HubServer, tmp_path: Path) -> None:
    write_checkpoint(hub_server.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights())
    (tmp_path / "home").write_text("a file, no folder")
    resolved = resolve_model("org/tiny", hub_server.url, tmp_path / "home")
    assert str(tmp_path / "home") in resolved["message"] + resolved["remedy"]


def run_command(*arguments: str, url: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run_warm(arguments, {**os.environ, **build_environment(url, home), **more})


@pytest.fixture
def public_hub(hub_server: HubServer) -> HubServer:
    """Return the hub with tiny checkpoints instead of those that have short names."""
    from support.models.tiny_dense import write_blip, write_siglip

    photos, small, pages, siglip = HUB_MODELS
    write_checkpoint(hub_server.root / photos.hub_id, build_d2s_config(None), draw_d2s_weights())
    assert photos.dense_id is not None
    write_blip(hub_server.root / photos.dense_id)
    write_checkpoint(hub_server.root / small.hub_id, build_vdr_config(), draw_vdr_weights(), pickled=True)
    tiny_sparse.write_page_model(hub_server.root / pages.hub_id)
    write_siglip(hub_server.root / siglip.hub_id)
    return hub_server


@pytest.mark.parametrize("model", [each for each in HUB_MODELS if each.commit is None], ids=lambda model: model.name)
def test_a_short_name_is_its_id_on_the_hub(public_hub: HubServer, tmp_path: Path, model: HubModel) -> None:
    home = tmp_path / "home"
    (tmp_path / model.name).mkdir()  # a folder called so is not meant
    trust = {ENV_TRUST_REMOTE_CODE: f"{model.hub_id}@{SHA}"}
    short = resolve_model(model.name, public_hub.url, home, cwd=tmp_path, **trust)
    assert short.get("name") == model.hub_id, short
    assert re.fullmatch(r"(d2s-mscoco|vdr-cross|v-splade)[a-z0-9.-]*-[0-9a-f]{12}", short["id"])
    public_hub.downloads.clear()
    assert resolve_model(model.hub_id, public_hub.url, home, cwd=tmp_path, **trust) == short
    assert resolve_model(model.name, "http://127.0.0.1:9", home, cwd=tmp_path, HF_HUB_OFFLINE="1", **trust) == short
    assert not public_hub.downloads


@pytest.mark.nightly("a whole recipe with words of its own")
def test_a_recipe_scores_its_words_once(public_hub: HubServer, tmp_path: Path) -> None:
    siglip, home, data = HUB_MODELS[-1], tmp_path / "home", tmp_path / "data"
    arguments = ("encode", "--text", "a red bus", "--json", "--model")

    def encode(url: str, **more: str) -> dict[str, Any]:
        result = run_command(*arguments, siglip.name, url=url, home=home, STAIR_ES_HOME=str(data), **more)
        assert result.returncode == 0, result.stderr
        encoded: dict[str, Any] = json.loads(result.stdout)
        return encoded

    first = encode(public_hub.url)
    assert {"red", "bus"} <= set(first["tokens"])
    assert any(str(siglip.commit) in path for path in public_hub.request_paths)
    [words] = data.glob("models/siglip2-*/words.json")
    written = words.stat().st_mtime_ns
    public_hub.downloads.clear()
    assert encode("http://127.0.0.1:9", HF_HUB_OFFLINE="1") == first
    assert (words.stat().st_mtime_ns, public_hub.downloads) == (written, [])
    words.write_text("{}")
    assert encode("http://127.0.0.1:9", HF_HUB_OFFLINE="1") == first  # scored again
    (words.parent / "model.safetensors").unlink()
    with ThreadPoolExecutor(2) as pool:  # two processes at the same time
        command = partial(run_command, *arguments, siglip.name, url=public_hub.url, home=home, STAIR_ES_HOME=str(data))
        both = list(pool.map(lambda _: command(), range(2)))
    assert [json.loads(each.stdout) for each in both] == [first, first]
    assert sum("reads its" in each.stderr for each in both) == 1
    here, elsewhere = (resolve_model(siglip.name, public_hub.url, place) for place in (home, tmp_path / "elsewhere"))
    assert here == elsewhere
    assert (here["name"], here["id"].startswith("siglip2-")) == ("siglip2", True)
    dense = json.loads(run_command(*arguments, siglip.hub_id, url=public_hub.url, home=home).stdout)
    assert dense["code"] == "model-without-tokens"


def test_words_that_cant_be_kept_are_reported(public_hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, no folder")
    arguments = ("encode", "--text", "dog", "--json", "--model", "siglip2")
    failed = run_command(*arguments, url=public_hub.url, home=tmp_path / "home", STAIR_ES_HOME=str(tmp_path / "data"))
    error = json.loads(failed.stdout)
    assert (error["code"], str(tmp_path / "data") in error["error"]) == ("model-not-kept", True)


def test_the_dense_model_of_photos_can_be_replaced(public_hub: HubServer, tmp_path: Path) -> None:
    from support.models.tiny_dense import write_blip

    home, other = tmp_path / "home", write_blip(tmp_path / "other", seed=9)
    first = resolve_model("photos", public_hub.url, home)["id"]
    assert resolve_model("photos", public_hub.url, home, STAIR_ES_D2S_DENSE_MODEL=str(other))["id"] != first


def test_list_shows_the_cache_without_downloads(public_hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"

    def list_cached() -> dict[str, bool]:
        models = json.loads(run_command("models", "--json", url=public_hub.url, home=home).stdout)["models"]
        return {each["name"]: each["cached"] for each in models if each["origin"] == "hub"}

    assert list_cached() == {"photos": False, "photos-small": False, "pages": False, "siglip2": False}
    assert not public_hub.downloads
    assert resolve_model("pages", public_hub.url, home)["code"] == "remote-code-not-trusted"
    resolve_model("photos-small", public_hub.url, home)
    head = HUB_MODELS[0].hub_id
    resolve_model(head, public_hub.url, home)
    resolve_model("siglip2", public_hub.url, home)
    assert list_cached() == {"photos": True, "photos-small": True, "pages": False, "siglip2": True}
    shutil.rmtree(home / "hub" / f"models--{HUB_MODELS[0].dense_id}".replace("/", "--"))
    assert list_cached() == {"photos": False, "photos-small": True, "pages": False, "siglip2": True}


@pytest.mark.nightly("a benchmark")
def test_the_benchmark_measures_what_is_here(public_hub: HubServer, tmp_path: Path) -> None:
    home, captions, file = tmp_path / "home", tmp_path / "captions.jsonl", tmp_path / "figures.json"
    for name in ("photos", "pages"):  # of the latter, what is known before the consent
        resolve_model(name, public_hub.url, home)
    public_hub.downloads.clear()
    captions.write_text("".join(json.dumps({"image": str(PHOTO), "caption": text}) + "\n" for text in ("a red bus", "a dog")))
    command = [sys.executable, "benchmarks/hub_models.py", "--captions", str(captions), "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **build_environment(public_hub.url, home)}
    subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)
    assert not public_hub.downloads
    models = {each["entry"]["name"]: each for each in json.loads(file.read_text())["figures"]["models"]}
    errors = {name: each["error"] and each["error"]["code"] for name, each in models.items()}
    expected = {DEFAULT_MODEL: None, "photos": None, "photos-small": "model-not-cached", "pages": "remote-code-not-trusted"}
    assert {name: errors[name] for name in expected} == expected
    assert set(errors) == set(registry.list_short_names())
    photos, repositories = models["photos"], HUB_MODELS[0].repositories
    assert photos["commits"] == dict.fromkeys(repositories, SHA)
    files = [path for repository in repositories for path in (public_hub.root / repository).iterdir()]
    assert photos["file_bytes"] == sum(path.stat().st_size for path in files)
    assert [each["report"]["texts"] for each in photos["sets"]] == [40, 2]
    for figures in photos["sets"]:
        assert min(figures["images_per_s"], figures["texts_per_s"]) > 0
        rows = [row for row in figures["report"]["rows"] if row["method"] in ("STAIR", "dense kNN")]
        assert [len(row["exact"]["hit"]) for row in rows] == [3] * 4


def test_encode_reads_a_short_name_from_the_environment(public_hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    completed = run_command("encode", "--text", "dog", "--json", url=public_hub.url, home=home, STAIR_ES_MODEL="photos")
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["tokens"]


def test_code_costs_no_download_before_the_consent(public_hub: HubServer, tmp_path: Path) -> None:
    home, refusal = tmp_path / "home", resolve_model("pages", public_hub.url, tmp_path / "home")
    assert refusal["code"] == "remote-code-not-trusted"
    assert f"{public_hub.url}/naver/v-splade-quality/tree/{SHA}" in refusal["remedy"]
    assert not {"tiny_pages.py", "model.safetensors"} & set(public_hub.downloads)
    for other in ("naver/v-splade-quality", f"naver/v-splade-quality@{SHA[::-1]}"):
        assert resolve_model("pages", public_hub.url, home, tmp_path, **{ENV_TRUST_REMOTE_CODE: other}) == refusal


def answer_question(arguments: tuple[str, ...], answer: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal, answer its question, and return its exit code and all that the terminal showed."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
    running = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=ROOT, start_new_session=True
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while block := os.read(ours, 4096):
            shown += block
            if answer and b"[y/N]" in shown:
                os.write(ours, f"{answer}\n".encode())
                answer = ""
    os.close(ours)
    return running.wait(), shown.decode()


@pytest.mark.nightly("five answers to one question on terminals")
def test_consent_is_asked_once_on_a_terminal(public_hub: HubServer, tmp_path: Path) -> None:
    """A yes is the answer of all further runs, with or without a terminal."""
    variables = {
        **build_environment(public_hub.url, tmp_path / "hf"),
        ENV_HOME: str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path),
    }
    arguments = ("encode", "--text", " red", "--model", "pages", "--json")
    code, shown = answer_question(arguments, "", {**os.environ, **variables, ENV_LOG_FORMAT: "json"})
    assert (code, "[y/N]" in shown, "remote-code-not-trusted" in shown) == (1, False, True)
    code, shown = answer_question(arguments, "no", {**os.environ, **variables})
    assert (code, "remote-code-not-trusted" in shown) == (1, True)
    assert all(fact in "".join(shown.split()) for fact in ("naver/v-splade-quality", SHA, f"{public_hub.url}/naver"))
    code, shown = answer_question(arguments, "y", {**os.environ, **variables})
    assert (code, "[y/N]" in shown, '"red"' in shown) == (0, True, True)
    remembered = json.loads((tmp_path / "home" / "trusted-code.json").read_text())
    assert remembered == [f"naver/v-splade-quality@{SHA}"]
    code, shown = answer_question(arguments, "", {**os.environ, **variables})
    assert (code, "[y/N]" in shown, '"red"' in shown) == (0, False, True)
    completed = run_command(*arguments, url=public_hub.url, home=tmp_path / "hf", **variables)
    assert completed.returncode == 0, completed.stderr
