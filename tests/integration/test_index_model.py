"""Searches use the model that the index names, unless another one is named; it is never downloaded for that alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from support.models import tiny_sparse
from support.models.tiny_checkpoints import (
    build_d2s_config,
    build_vdr_config,
    draw_d2s_weights,
    draw_vdr_weights,
    write_checkpoint,
)
from support.servers.hub_server import HubServer, build_environment, serve_hub
from support.warm_commands import run_warm

from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.config.defaults import DEFAULT_MODEL, DataDir
from stair_es.errors import StairError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.used_folders import record_model_folder

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    RunScript = Callable[..., subprocess.CompletedProcess[str]]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "tabby-cat.jpg"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def run_script(node_url: str, index_name: str, tmp_path: Path) -> RunScript:
    """Run the command, which learns of node and index from the environment; its hub can't be reached."""
    inherited = {name: value for name, value in os.environ.items() if name != "STAIR_ES_MODEL"}
    hub = build_environment(NOWHERE, tmp_path / "hf")
    environment = {**inherited, **hub, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}

    def run_arguments(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_warm(arguments, {**environment, **variables})

    return run_arguments


@pytest.fixture
def cli(node_url: str, index_name: str) -> CommandRunner:
    """Run the command on the node and index, with models that no hub is asked for."""
    return CommandRunner({"STAIR_ES_MODEL": None, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name})


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "my models" / "tiny", build_vdr_config(), draw_vdr_weights())


@pytest.fixture
def model_hub(tmp_path: Path) -> Iterator[HubServer]:
    with serve_hub(tmp_path / "repositories") as server:
        write_checkpoint(server.root / "org" / "tiny", build_vdr_config(), draw_vdr_weights())
        yield server


def parse_output(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401  JSON
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_error(done: subprocess.CompletedProcess[str], code: str, *facts: str) -> None:
    assert done.returncode == 1, done.stdout
    assert f"error[{code}]: " in done.stderr
    assert [fact for fact in facts if fact not in done.stderr] == [], done.stderr


def check_unfetched(error: StairError, *facts: str) -> None:
    assert (error.exit_code, error.code) == (1, "query-model-not-fetched")
    assert [fact for fact in facts if fact not in f"{error.message}\n{error.remedy}"] == []


def create_index(client: OpenSearch, index: str, model_name: str, model: str = "unknown-1") -> None:
    about = {"format_version": INDEX_FORMAT, "model": model, "model_name": model_name, "settings": {}}
    mappings = {"_meta": {"stair_es": about}, "properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}}}
    client.indices.create(index=index, body={"settings": {"number_of_replicas": 0}, "mappings": mappings})
    client.index(index=index, id="a", body={"tokens": {"dog": 1.0}, "uri": "file:///a.jpg"}, params={"refresh": "true"})


def test_query_commands_use_the_model_of_the_index(cli: CommandRunner, model_folder: Path, index_name: str) -> None:
    written = cli.run("ingest", str(PHOTO), "--model", str(model_folder))
    assert written.exit_code == 0, written.output
    assert "stair-es models" not in written.stderr  # a model was named
    words = cli.read_json("encode", "--text", "dog", "--index", index_name)["tokens"]
    assert words == cli.read_json("encode", "--text", "dog", "--model", str(model_folder))["tokens"]
    [hit] = cli.read_json("search", "dog")["hits"]
    assert {reason["token"] for reason in hit["contributions"]} <= set(words)
    clauses = cli.read_json("query", "dog", "--hybrid", "none")["query"]["bool"]["should"]
    assert {clause["rank_feature"]["field"] for clause in clauses} == {f"tokens.{word}" for word in words}
    assert cli.read_json("explain", str(PHOTO), "dog")["rank"] == 1

    for error in (
        cli.read_error("search", "dog", STAIR_ES_MODEL=DEFAULT_MODEL),
        cli.read_error("search", "dog", "--model", DEFAULT_MODEL),
        cli.read_error("encode", "--text", "dog", "--index", index_name, "--model", DEFAULT_MODEL),
    ):
        assert (error.exit_code, error.code) == (1, "other-model")
        assert f"--model '{model_folder}'" in error.remedy


def test_fit_of_the_index_is_used_with_its_model(cli: CommandRunner, model_folder: Path, index_name: str) -> None:
    """The tiny VDR crops by itself; the photograph isn't square."""
    written = cli.run("ingest", str(PHOTO), "--model", str(model_folder), "--fit", "pad")
    assert written.exit_code == 0, written.output
    encode = ("encode", str(PHOTO))
    padded, own = (cli.read_json(*encode, "--model", str(model_folder), *fit) for fit in (("--fit", "pad"), ()))
    assert padded != own
    assert cli.read_json(*encode, "--index", index_name) == padded
    assert cli.read_json(*encode, "--index", index_name, "--model", str(model_folder)) == padded
    assert cli.read_json("search", "--image", str(PHOTO))["hits"]
    assert cli.read_json("inspect", str(PHOTO), "--compare")["compare"]
    query = cli.read_json("query", "--image", str(PHOTO))
    assert query == cli.read_json("query", "--image", str(PHOTO), "--model", str(model_folder), "--fit", "pad")
    assert "index model" not in cli.run("doctor", "--json").stdout
    for command in (("search", "dog"), (*encode, "--index", index_name)):
        error = cli.read_error(*command, "--fit", "crop")
        assert error.exit_code == 1
        assert f"--model '{model_folder}' --fit pad" in str(error)


def test_an_index_of_texts_names_its_tower(cli: CommandRunner, tmp_path: Path, index_name: str) -> None:
    (tmp_path / "captions.txt").write_text("a red bus\n")
    written = cli.run("ingest-texts", str(tmp_path / "captions.txt"), "--index", index_name, "--text-tower", "table")
    assert written.exit_code == 0, written.output
    words = cli.read_json("encode", "--text", "a dog", "--index", index_name)
    assert words == cli.read_json("encode", "--text", "a dog", "--text-tower", "table")


@pytest.mark.parametrize(
    "command",
    [
        ("search", "dog"),
        ("query", "dog"),
        ("explain", "a", "dog"),
        ("inspect", str(PHOTO)),
        ("encode", "--text", "dog", "--index"),
        ("serve", "--port", "0"),
        ("encoder", "--port", "0", "--index"),
    ],
    ids=lambda command: str(command[0]),
)
def test_model_of_an_index_is_not_fetched(
    run_script: RunScript, model_hub: HubServer, client: OpenSearch, index_name: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    create_index(client, index_name, "org/tiny")
    command = (*command, index_name) if command[-1] == "--index" else command
    done = run_script(*command, **build_environment(model_hub.url, tmp_path / "hf"))
    check_error(done, "query-model-not-fetched", index_name, "--model org/tiny")
    assert model_hub.request_paths == []


@pytest.mark.parametrize("command", [("search", "dog"), ("serve", "--port", "0")], ids=lambda command: str(command[0]))
def test_folders_named_by_an_index_are_not_read(
    run_script: RunScript, client: OpenSearch, model_folder: Path, index_name: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The error doesn't tell either whether the folder is there."""
    errors = []
    for path in (model_folder, tmp_path / "absent"):
        create_index(client, index_name, str(path))
        done = run_script(*command)
        check_error(done, "query-model-not-fetched", f"--model {shlex.quote(str(path))}")
        errors.append(done.stderr.replace(f"'{path}'", "X").replace(str(path), "X"))
        client.indices.delete(index=index_name)
    assert errors[0] == errors[1]


def test_a_cached_model_is_used(
    run_script: RunScript, model_hub: HubServer, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    cache = build_environment(model_hub.url, tmp_path / "hf")
    words = parse_output(run_script("encode", "--text", "dog", "--model", "org/tiny", "--json", **cache))["tokens"]
    card = registry.resolve_model(ModelSpec(name=str(model_hub.root / "org" / "tiny"))).card
    create_index(client, index_name, "org/tiny", card.model_id)
    model_hub.request_paths.clear()
    assert parse_output(run_script("encode", "--text", "dog", "--index", index_name, "--json", **cache))["tokens"] == words
    assert model_hub.request_paths == []
    assert parse_output(run_script("search", "dog", "--json"))["hits"][0]["id"] == "a"  # no hub is reached at all


def test_the_dense_model_of_a_folder_is_not_fetched_either(
    run_script: RunScript, model_hub: HubServer, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    head = write_checkpoint(tmp_path / "head", build_d2s_config("org/tiny"), draw_d2s_weights())
    record_model_folder(str(head), DataDir.from_env())
    create_index(client, index_name, str(head))
    done = run_script("search", "dog", **build_environment(model_hub.url, tmp_path / "hf"))
    check_error(done, "query-model-not-fetched", "org/tiny")
    assert model_hub.request_paths == []


def test_code_of_a_checkpoint_is_not_trusted_because_of_an_index(
    cli: CommandRunner, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    tiny_sparse.write_image_model(tmp_path / "own code")
    (tmp_path / "own code" / "tiny_splade.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    record_model_folder(str(tmp_path / "own code"), DataDir.from_env())
    create_index(client, index_name, str(tmp_path / "own code"))
    error = cli.read_error("search", "dog")
    assert (error.exit_code, error.code) == (1, "remote-code-not-trusted")
    assert "STAIR_ES_TRUST_REMOTE_CODE" in error.remedy
    assert not (tmp_path / "ran").exists()


def test_missing_models_are_reported(cli: CommandRunner, client: OpenSearch, index_name: str) -> None:
    create_index(client, index_name, "a-plugin-of-mine")
    check_unfetched(cli.read_error("search", "dog"), "a-plugin-of-mine", "--model FOLDER")


def test_query_uses_the_default_model_without_an_index(cli: CommandRunner) -> None:
    done = cli.run("query", "dog", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["query"]
    assert DEFAULT_MODEL in done.stderr


def test_default_model_points_to_the_others(cli: CommandRunner, tmp_path: Path) -> None:
    first = cli.run("ingest", str(PHOTO))
    assert first.exit_code == 0, first.output
    assert first.stderr.count("stair-es models") == 1
    assert "stair-es models" not in first.stdout
    again = cli.run("ingest", str(PHOTO))  # nothing is written
    named = cli.run("ingest", str(PHOTO), "--thumbnail-px", "0", STAIR_ES_MODEL=DEFAULT_MODEL)
    scripted = cli.run("ingest", str(PHOTO), "--thumbnail-px", "16", "--json")
    (tmp_path / "stair-es.toml").write_text(f'model = "{DEFAULT_MODEL}"\n')
    configured = cli.run("--config", str(tmp_path / "stair-es.toml"), "ingest", str(PHOTO), "--thumbnail-px", "32")
    for quiet in (again, named, scripted, configured):
        assert quiet.exit_code == 0, quiet.output
        assert "stair-es models" not in quiet.stdout + quiet.stderr
