"""`stair-es search`, `encode` and `query` against a real node and the default model: as installed, and in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import CommandRunner
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import StairError
from stair_es.feature_names import escape_feature
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.query_encoder import encode_query_image, encode_query_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from opensearchpy import OpenSearch

    from stair_es.types import SparseVector

    Run = Callable[..., subprocess.CompletedProcess[str]]

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("tabby-cat.jpg", "two-spaniels.jpg", "red-panda.jpg")
SCRIPT = Path(sys.executable).parent / "stair-es"


@pytest.fixture
def images(client: OpenSearch, index_name: str) -> dict[str, SparseVector]:
    """URI -> vector of three photos that are in the index."""
    encoder = registry.load_encoder(ModelSpec(name=DEFAULT_MODEL))
    vectors = {(PHOTOS / name).as_uri(): encode_query_image(encoder, PHOTOS / name) for name in NAMES}
    about = {"format_version": INDEX_FORMAT, "model": encoder.model_id, "model_name": DEFAULT_MODEL}
    mappings = {
        "_meta": {"stair_es": about},
        "properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}},
    }
    client.indices.create(index=index_name, body={"settings": {"number_of_replicas": 0}, "mappings": mappings})
    for uri, vector in vectors.items():
        client.index(index=index_name, body={"tokens": {escape_feature(word): weight for word, weight in vector}, "uri": uri})
    client.indices.refresh(index=index_name)
    return vectors


@pytest.fixture
def run(node_url: str, index_name: str) -> Run:
    """Run the console script, which learns of node and index from the environment."""
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "COLUMNS": "100"}

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=300, env=environment
        )

    return script


def answer(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401  JSON
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def command(node_url: str, index_name: str) -> CommandRunner:
    """Run the command in this process, with the same environment."""
    return CommandRunner({"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "COLUMNS": "100"})


def test_search_prints_the_promised_json(run: Run, images: dict[str, SparseVector]) -> None:
    found = answer(run("search", "a", "cat", "--json"))
    keys = {"hits", "took_ms", "query_type", "after", "truncated", "pruned", "weak_below", "unknown_words", "remarks"}
    assert set(found) == keys
    best = found["hits"][0]
    assert set(best) == {"id", "index", "uri", "score", "weak", "duplicates", "contributions"}
    assert best["uri"].endswith("/tabby-cat.jpg")
    exact = encode_query_text(registry.load_encoder(ModelSpec(name=DEFAULT_MODEL)), "a cat").dot(images[best["uri"]])
    assert exact * (1 - 2**-8) <= best["score"] <= exact * (1 + 1e-6)
    assert sum(reason["contribution"] for reason in best["contributions"]) == pytest.approx(exact, rel=1e-6)
    assert {"token", "query_weight", "document_weight", "contribution"} == set(best["contributions"][0])


@pytest.mark.usefixtures("images")
def test_an_image_finds_itself_first(command: CommandRunner) -> None:
    found = command.read_json("search", "--image", str(PHOTOS / "red-panda.jpg"), "-k", "1")
    assert [Path(hit["uri"]).name for hit in found["hits"]] == ["red-panda.jpg"]


@pytest.mark.usefixtures("images")
def test_explain_draws_a_bar_for_each_word_in_common(command: CommandRunner) -> None:
    why = command.read_json("search", "cat", "-k", "1")["hits"][0]["contributions"]
    lines = command.read_output("search", "cat", "-k", "1", "--explain").splitlines()
    drawn = [line.split()[0] for line in lines if " x " in line]
    assert drawn == [reason["token"] for reason in why[: len(drawn)]]
    left = [reason["contribution"] for reason in why[len(drawn) :]]
    told = [line.split() for line in lines if "more words" in line]
    assert told == ([[str(len(left)), "more", "words", "add", f"{sum(left):.4f}"]] if left else [])
    assert sum(left) <= sum(reason["contribution"] for reason in why) / 100
    assert "█" in lines[1]
    assert str(PHOTOS / "tabby-cat.jpg") in lines[0]


@pytest.mark.usefixtures("images")
def test_weak_matches_are_below_a_line(command: CommandRunner) -> None:
    found = command.read_json("search", "cat")
    assert [hit["weak"] for hit in found["hits"]] == [False, True, True]
    assert found["hits"][0]["score"] > found["weak_below"] > found["hits"][1]["score"]
    assert (found["unknown_words"], found["remarks"]) == ([], [])
    lines = command.read_output("search", "cat").splitlines()
    assert lines.index("2 weak matches:") == next(i for i, line in enumerate(lines) if "  2. " in line) - 1
    assert command.read_output("search", "elephant").startswith("no good match, only weak ones:\n  1. ")
    rest = command.read_json("search", "cat", "-k", "1", "--after", json.dumps(_read_cursor(command)))
    assert rest["weak_below"] == found["weak_below"]
    assert [hit["weak"] for hit in rest["hits"]] == [True]


def _read_cursor(command: CommandRunner) -> object:
    return command.read_json("search", "cat", "-k", "1")["after"]


@pytest.mark.usefixtures("images")
def test_unknown_words_are_named_and_find_weak_matches_only(command: CommandRunner, run: Run) -> None:
    found = command.read_json("search", "elefant AND xyzzy")
    assert [each["word"] for each in found["unknown_words"]] == ["elefant", "xyzzy"]
    assert found["unknown_words"][0]["suggestions"][0] == "elephant"
    assert "words are not combined with AND" in found["remarks"][0]
    assert all(hit["weak"] for hit in found["hits"])
    done = run("search", "xyzzy")
    assert "'xyzzy' is not a word of this model" in done.stderr
    assert done.stdout.startswith("no good match, only weak ones:")


@pytest.mark.usefixtures("images")
def test_the_body_of_query_finds_the_same_in_any_client(command: CommandRunner, client: OpenSearch, index_name: str) -> None:
    body = command.read_json("query", "dog", "-k", "2")
    theirs = [(hit["_id"], hit["_score"]) for hit in client.search(index=index_name, body=body)["hits"]["hits"]]
    ours = [(hit["id"], hit["score"]) for hit in command.read_json("search", "dog", "-k", "2")["hits"]]
    assert theirs == ours
    assert theirs


def test_encode_prints_the_words_that_are_in_the_index(command: CommandRunner, images: dict[str, SparseVector]) -> None:
    for uri, vector in images.items():
        assert command.read_json("encode", str(PHOTOS / Path(uri).name)) == {"uri": uri, "tokens": vector.to_dict()}


def test_an_empty_result_is_not_a_failure_and_is_reported(
    run: Run, command: CommandRunner, client: OpenSearch, index_name: str
) -> None:
    about = {
        "format_version": INDEX_FORMAT,
        "model": registry.resolve_model(ModelSpec(name=DEFAULT_MODEL)).card.model_id,
        "model_name": DEFAULT_MODEL,
    }
    mappings = {"_meta": {"stair_es": about}, "properties": {"tokens": {"type": "rank_features"}}}
    client.indices.create(index=index_name, body={"settings": {"number_of_replicas": 0}, "mappings": mappings})
    done = run("search", "cat", "--json")
    assert answer(done)["hits"] == []
    assert "nothing found" in done.stderr
    assert command.read_output("search", "cat") == ""


def test_a_missing_index_fails_with_the_remedy(run: Run) -> None:
    done = run("search", "cat", "--json")
    assert done.returncode == 1
    assert "stair-es ingest FOLDER" in json.loads(done.stdout)["remedy"]
    assert "stair-es ingest FOLDER" in done.stderr


def test_an_empty_query_is_reported(
    images: dict[str, SparseVector], node_url: str, index_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAIR_ES_URL", node_url)
    monkeypatch.setenv("STAIR_ES_INDEX", index_name)

    def ask(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["search", *arguments, "--model", DEFAULT_MODEL])
        return result.exit_code, str(result.exception) if isinstance(result.exception, StairError) else result.stderr

    code, output = ask("cat", "--filter", "urii:x")
    assert code == 1
    assert "the filter refers to the field 'urii', which no index that the name resolves to has\nDid you mean uri?" in output
    code, output = ask("dog +submarine +cat")
    assert (code, "nothing found: no image has +submarine\n" in output) == (0, True)
    code, output = ask("+tabby +spaniel")
    assert (code, "nothing found: no image has all of +tabby (1), +spaniel (1)\n" in output) == (0, True)
    code, output = ask("+cat", "--min-score", "9")
    assert "has a word in common with the query and meets its conditions" in output
    code, output = ask("cat", "--filter", "uri:>a")
    assert "the filter compares 'uri' as text, since it is a keyword field" in output
