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

from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.config.defaults import DEFAULT_MODEL
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


def create_index(client: OpenSearch, name: str) -> None:
    """Create an index of the default model without documents."""
    model_id = registry.resolve_model(ModelSpec(name=DEFAULT_MODEL)).card.model_id
    metadata = {"format_version": INDEX_FORMAT, "model": model_id, "model_name": DEFAULT_MODEL}
    mappings = {
        "_meta": {"stair_es": metadata},
        "properties": {"tokens": {"type": "rank_features"}, "uri": {"type": "keyword"}},
    }
    client.indices.create(index=name, body={"settings": {"number_of_replicas": 0}, "mappings": mappings})


@pytest.fixture
def indexed_images(client: OpenSearch, index_name: str) -> dict[str, SparseVector]:
    """URI -> vector of three photos that are in the index."""
    encoder = registry.load_encoder(ModelSpec(name=DEFAULT_MODEL))
    vectors = {(PHOTOS / name).as_uri(): encode_query_image(encoder, PHOTOS / name) for name in NAMES}
    create_index(client, index_name)
    for uri, vector in vectors.items():
        client.index(index=index_name, body={"tokens": {escape_feature(word): weight for word, weight in vector}, "uri": uri})
    client.indices.refresh(index=index_name)
    return vectors


@pytest.fixture
def run_script(node_url: str, index_name: str) -> Run:
    """Return a function that runs the console script with node and index in its environment."""
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "COLUMNS": "100"}

    def run_installed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=300, env=environment
        )

    return run_installed


def parse_output(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401  JSON
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def command_runner(node_url: str, index_name: str) -> CommandRunner:
    """Run the command in this process, with the same environment."""
    return CommandRunner({"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "COLUMNS": "100"})


def test_search_prints_the_promised_json(run_script: Run, indexed_images: dict[str, SparseVector]) -> None:
    found = parse_output(run_script("search", "a", "cat", "--json"))
    keys = {
        "hits",
        "took_ms",
        "query_type",
        "after",
        "truncated",
        "pruned",
        "weak_below",
        "conditions",
        "unknown_words",
        "remarks",
    }
    assert set(found) == keys
    best = found["hits"][0]
    assert set(best) == {"id", "index", "uri", "score", "weak", "duplicates", "contributions"}
    assert best["uri"].endswith("/tabby-cat.jpg")
    exact = encode_query_text(registry.load_encoder(ModelSpec(name=DEFAULT_MODEL)), "a cat").dot(indexed_images[best["uri"]])
    assert exact * (1 - 2**-8) <= best["score"] <= exact * (1 + 1e-6)
    assert sum(reason["contribution"] for reason in best["contributions"]) == pytest.approx(exact, rel=1e-6)
    assert {"token", "query_weight", "document_weight", "contribution"} == set(best["contributions"][0])


@pytest.mark.usefixtures("indexed_images")
def test_an_image_finds_itself_first(command_runner: CommandRunner) -> None:
    found = command_runner.read_json("search", "--image", str(PHOTOS / "red-panda.jpg"), "-k", "1")
    assert [Path(hit["uri"]).name for hit in found["hits"]] == ["red-panda.jpg"]


@pytest.mark.usefixtures("indexed_images")
def test_explain_draws_a_bar_for_each_word_in_common(command_runner: CommandRunner) -> None:
    contributions = command_runner.read_json("search", "cat", "-k", "1")["hits"][0]["contributions"]
    lines = command_runner.read_output("search", "cat", "-k", "1", "--explain").splitlines()
    drawn_tokens = [line.split()[0] for line in lines if " x " in line]
    assert drawn_tokens == [reason["token"] for reason in contributions[: len(drawn_tokens)]]
    rest_contributions = [reason["contribution"] for reason in contributions[len(drawn_tokens) :]]
    rest_facts = {str(len(rest_contributions)), f"{sum(rest_contributions):.4f}"}
    assert any(rest_facts <= set(line.split()) for line in lines) == bool(rest_contributions)
    assert sum(rest_contributions) <= sum(reason["contribution"] for reason in contributions) / 100
    assert "█" in lines[1]
    assert str(PHOTOS / "tabby-cat.jpg") in lines[0]


@pytest.mark.usefixtures("indexed_images")
def test_weak_matches_are_below_a_heading(command_runner: CommandRunner) -> None:
    found = command_runner.read_json("search", "cat")
    assert [hit["weak"] for hit in found["hits"]] == [False, True, True]
    assert found["hits"][0]["score"] > found["weak_below"] > found["hits"][1]["score"]
    assert (found["unknown_words"], found["remarks"]) == ([], [])
    lines = command_runner.read_output("search", "cat").splitlines()
    second = next(number for number, line in enumerate(lines) if line.startswith("  2. "))
    assert lines[second - 1].startswith("2 ")  # the heading of the weak matches
    assert command_runner.read_output("search", "elephant").splitlines()[1].startswith("  1. ")  # below a heading
    cursor = command_runner.read_json("search", "cat", "-k", "1")["after"]
    rest = command_runner.read_json("search", "cat", "-k", "1", "--after", json.dumps(cursor))
    assert rest["weak_below"] == found["weak_below"]
    assert [hit["weak"] for hit in rest["hits"]] == [True]


@pytest.mark.usefixtures("indexed_images")
def test_unknown_words_find_weak_matches_only(command_runner: CommandRunner, run_script: Run) -> None:
    found = command_runner.read_json("search", "elefant AND xyzzy")
    assert [(each["word"], each["searched_for"]) for each in found["unknown_words"]] == [("elefant", "elephant"), ("xyzzy", None)]
    assert "AND" in found["remarks"][0]
    assert all(hit["weak"] for hit in found["hits"])
    for text in ("xyzzy", "catnip", "merci"):  # also what the text network has pieces of
        done = run_script("search", text, "--json")
        assert (done.returncode, json.loads(done.stdout)["code"]) == (1, "no-known-word")


@pytest.mark.usefixtures("indexed_images")
def test_what_is_searched_instead_of_a_word_is_said(command_runner: CommandRunner, run_script: Run) -> None:
    cat, found = (command_runner.read_json("search", text) for text in ("a cat", "a photo of a katze"))
    assert [(hit["uri"], hit["score"], hit["weak"]) for hit in found["hits"]] == [
        (hit["uri"], hit["score"], hit["weak"]) for hit in cat["hits"]
    ]
    assert found["unknown_words"] == [{"word": "katze", "suggestions": [], "searched_for": "cat"}]
    assert "'cat'" in run_script("search", "katze").stderr
    remarks = command_runner.read_json("search", "winter")["remarks"]
    assert any("'winter'" in remark for remark in remarks)


@pytest.mark.usefixtures("indexed_images")
def test_the_body_of_query_finds_the_same_in_any_client(
    command_runner: CommandRunner, client: OpenSearch, index_name: str
) -> None:
    body = command_runner.read_json("query", "dog", "-k", "2")
    theirs = [(hit["_id"], hit["_score"]) for hit in client.search(index=index_name, body=body)["hits"]["hits"]]
    ours = [(hit["id"], hit["score"]) for hit in command_runner.read_json("search", "dog", "-k", "2")["hits"]]
    assert theirs == ours
    assert theirs


def test_encode_prints_the_words_that_are_in_the_index(
    command_runner: CommandRunner, indexed_images: dict[str, SparseVector]
) -> None:
    for uri, vector in indexed_images.items():
        assert command_runner.read_json("encode", str(PHOTOS / Path(uri).name)) == {"uri": uri, "tokens": vector.to_dict()}


def test_an_empty_result_is_not_a_failure(
    run_script: Run, command_runner: CommandRunner, client: OpenSearch, index_name: str
) -> None:
    create_index(client, index_name)
    done = run_script("search", "cat", "--json")
    assert parse_output(done)["hits"] == []
    assert done.stderr
    assert command_runner.read_output("search", "cat") == ""


def test_a_missing_index_fails_with_the_remedy(run_script: Run) -> None:
    done = run_script("search", "cat", "--json")
    assert done.returncode == 1
    assert "stair-es ingest" in json.loads(done.stdout)["remedy"]
    assert "error[index-not-found]: " in done.stderr


@pytest.mark.usefixtures("indexed_images")
def test_filters_with_unknown_fields_fail(command_runner: CommandRunner) -> None:
    error = command_runner.read_error("search", "cat", "--filter", "urii:x")
    assert (error.code, error.exit_code) == ("no-such-filter-field", 1)
    assert "'urii'" in error.message
    assert "uri?" in error.remedy


@pytest.mark.usefixtures("indexed_images")
@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["dog +submarine +cat"], ["+submarine"]),
        (["+tabby +spaniel"], ["+tabby (1)", "+spaniel (1)"]),
        (["+cat", "--min-score", "9"], ["conditions"]),
        (["cat", "--filter", "uri:>a"], ["'uri'", "keyword"]),
    ],
    ids=["missing", "exclusive", "min-score", "text comparison"],
)
def test_reasons_for_few_hits_are_reported(command_runner: CommandRunner, arguments: list[str], facts: list[str]) -> None:
    result = command_runner.run("search", *arguments)
    assert result.exit_code == 0
    assert [fact for fact in facts if fact not in result.stderr] == []
