"""`search`, `encode` and `query`: usage, output formats and streams, with a toy encoder."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stair_es.cli.commands.search import format_curl_command, parse_document_reference, to_json
from stair_es.cli.main import app
from stair_es.cli.options.search import EncoderArguments
from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import StairError
from stair_es.model.base import Encoder, ModelCard
from stair_es.model.vocabularies.unknown_words import UnknownWord
from stair_es.search.query import EMPTY_VECTOR, SearchQuery
from stair_es.search.request import build_search_request
from stair_es.search.results import Hit, SearchResult, explain_score
from stair_es.types import ImageSpec, Pixels, SparseVector

SCRIPT = Path(sys.executable).parent / "stair-es"


class LengthEncoder(Encoder):
    """Toy encoder: the weight of a word is its length; an image has one word."""

    card = ModelCard(name="lengths", model_id="lengths-1", image_spec=ImageSpec(size_px=4), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        return [SparseVector.from_mapping({"picture": 1.0}) for _ in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_mapping({w: float(len(w)) for w in text.split() if w != "unknown"}) for text in texts]


@pytest.fixture
def use_length_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STAIR_ES_URL", "STAIR_ES_INDEX", "STAIR_ES_FIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAIR_ES_MODEL", "lengths")  # otherwise the model is read from an index
    monkeypatch.setattr(EncoderArguments, "load", lambda _: LengthEncoder())


@pytest.fixture
def photo_path(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def run_command(*arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr, those of a StairError as `main` returns and prints them."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, StairError):
        error = result.exception
        return error.exit_code, result.stdout, f"error[{error.code}]: {error}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def read_json(*arguments: str) -> Any:  # noqa: ANN401  JSON
    """Return what a successful command prints with `--json`."""
    code, out, stderr = run_command(*arguments, "--json")
    assert code == 0, stderr
    return json.loads(out)


UNUSABLE_IMAGES = {
    "gone.jpg": "no-such-file",
    ".": "no-such-file",
    "ftp://images.test/a.jpg": "no-such-file",
    "https://anna:hunter2@images.test/a.jpg": "url-with-login",
}


@pytest.mark.usefixtures("use_length_encoder")
@pytest.mark.parametrize(
    ("command", "exit_code", "error"),
    [
        ("search", 2, "error[no-input]"),
        ("search '  '", 2, "error[no-input]"),
        ("query", 2, "error[no-input]"),
        ("query '  '", 2, "error[no-input]"),
        ("encode", 2, "error[no-input]"),
        ("encode --text ' '", 2, "error[no-input]"),
        ("encode PHOTO --text red", 2, "error[option-conflict]"),
        ("encode PHOTO --fit zoom", 2, "--fit"),
        ("search red -k 0", 2, "-k"),
        ("search red --after start --hybrid rrf", 2, "error[rrf-not-pageable]"),
        ("query red --weights 1,2", 1, "error[weights-count]"),
        ("query red --weights x", 2, "error[invalid-weights]"),
        ("query red --weights -1", 1, "error[inputs-cancel-out]"),  # -1 is no word to exclude
        ("query red --boost red", 2, "error[invalid-boost]"),
        ("query red --boost red=nan", 2, "error[invalid-boost]"),
        ("query red --boost blue=2", 1, "error[no-such-token-to-boost]"),
        ("query red --filter {", 1, "error[filter-not-json]"),
        ("query red --filter ''", 1, "error[filter-empty]"),
        ("query red --after 'page 2'", 2, "error[invalid-cursor]"),
        ("query red --weight-mass 2", 1, "error[invalid-weight-mass]"),
        ("query red --hybrid rrf", 2, "error[rrf-without-body]"),
        ("query red --mute red", 1, "error[all-tokens-muted]"),
        ("query red --hybrid none --caption-weight 2", 2, "error[option-without-hybrid]"),
        ("query red --hybrid none --caption-field title", 2, "error[option-without-hybrid]"),
        ("query red --min-weight 0.5", 1, "error[min-weight-without-words]"),
        ("query +red^-1", 1, "error[invalid-boost]"),
        ("query --exclude red", 2, "error[no-input]"),
        ("query --indx photos beach", 2, "--indx"),
        ("query -index photos beach", 2, "error[option-or-word]: '-index'"),
        ("query -json beach", 2, "error[option-or-word]: '-json'"),
        ("query -x beach", 2, "`--`"),
        ("search unknown --url http://127.0.0.1:9", 1, "error[cluster-unreachable]"),
        ("query unknown --url http://127.0.0.1:9", 1, "error[no-known-word]"),
        ("encode --text unknown", 1, "error[no-known-word]"),
        ("query --image http://127.0.0.1:9/a.jpg?token=hunter2", 1, "error[address-not-allowed]"),
        ("encode http://127.0.0.1:9/a.jpg?token=hunter2", 1, "error[address-not-allowed]"),
        *(
            (f"{command} {image}", 2, f"error[{code}]")
            for command in ("search --image", "query --image", "encode")
            for image, code in UNUSABLE_IMAGES.items()
        ),
    ],
)
def test_errors_have_codes_and_show_no_secret(photo_path: Path, command: str, exit_code: int, error: str) -> None:
    code, out, stderr = run_command(*(str(photo_path) if word == "PHOTO" else word for word in shlex.split(command)))
    assert (code, out) == (exit_code, "")
    assert error in stderr
    assert "hunter2" not in stderr


@pytest.mark.usefixtures("use_length_encoder")
def test_words_and_images_add_up_with_their_weights(photo_path: Path) -> None:
    body = read_json("query", "red", "--text", "car", "--image", str(photo_path), "--weights", "1,2,0.5")
    features = [clause["rank_feature"] for clause in body["query"]["bool"]["should"]]
    boosts = {feature["field"]: feature["boost"] for feature in features}
    assert boosts == {"tokens.red": 3.0, "tokens.car": 6.0, "tokens.picture": 0.5}


@pytest.mark.usefixtures("use_length_encoder")
def test_operators_and_options_are_equivalent() -> None:
    options = ("--require", "car", "--boost", "car=2", "--exclude", "dog")
    assert read_json("query", "red +car^2 -dog") == read_json("query", "red car", *options)
    assert run_command("query", "red -car", "--literal", "--json")[1].count("-car") == 1


def test_explain_reads_search_output(tmp_path: Path) -> None:
    file = tmp_path / "a b.jsonl"
    file.write_text("")
    assert parse_document_reference(str(file)) == file.as_uri()
    assert parse_document_reference(f"{file}#line=3") == f"{file.as_uri()}#line=3"
    assert parse_document_reference(str(tmp_path / "gone.jpg")) == (tmp_path / "gone.jpg").as_uri()
    for reference in ("file:///a.jpg", "s3://bucket/a#1.jpg", "4b76", "", "x" * 5000):
        assert parse_document_reference(reference) == reference


@pytest.mark.usefixtures("use_length_encoder")
def test_encode_text_as_json_has_the_heaviest_word_first() -> None:
    values = read_json("encode", "--text", "red lorry")
    assert values["text"] == "red lorry"
    assert list(values["tokens"].items()) == [("lorry", 5.0), ("red", 3.0)]


@pytest.mark.usefixtures("use_length_encoder")
def test_encode_writes_one_object_a_line_for_several_images(photo_path: Path) -> None:
    code, out, _ = run_command("encode", str(photo_path), str(photo_path), "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [{"uri": photo_path.as_uri(), "tokens": {"picture": 1.0}}] * 2


@pytest.mark.usefixtures("use_length_encoder")
def test_encode_continues_after_a_bad_image_and_fails_at_the_end(photo_path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    code, out, stderr = run_command("encode", str(bad), str(photo_path), "--json")
    assert code == 1
    vector, error = map(json.loads, out.splitlines())
    assert vector["uri"] == photo_path.as_uri()
    assert (error["code"], set(error)) == ("images-not-decoded", {"error", "code", "remedy"})
    assert "1 of 2" in stderr


@pytest.mark.usefixtures("use_length_encoder")
def test_encode_for_people_draws_bars() -> None:
    code, out, _ = run_command("encode", "--text", "red lorry")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["red", "lorry", "red"]
    assert "█" in out


@pytest.mark.usefixtures("use_length_encoder")
def test_query_as_json_prints_only_the_body() -> None:
    query = SearchQuery(vector=SparseVector.from_mapping({"red": 3.0, "lorry": 5.0}))
    expected = build_search_request(query, "rank_features", max_clauses=1024, k=3).body
    assert read_json("query", "red", "lorry", "-k", "3") == expected


@pytest.mark.usefixtures("use_length_encoder")
def test_query_reports_truncated_tokens() -> None:
    code, out, stderr = run_command("query", "red lorry", "--max-clauses", "1", "--json")
    assert code == 0
    assert len(json.loads(out)["query"]["bool"]["should"]) == 1
    assert "1 lightest" in stderr
    assert "not sent (red)" in run_command("query", "red lorry", "--weight-mass", "0.5")[2]
    assert "not sent: ##lorry" in run_command("query", "red ##lorry", "--query-type", "impacts")[2]


@pytest.mark.usefixtures("use_length_encoder")
def test_query_for_people_is_a_curl_command_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_URL", "https://me:secret@search.example:9200")
    monkeypatch.setenv("STAIR_ES_INDEX", "my photos")
    code, out, stderr = run_command("query", "it's red")
    assert code == 0
    words = shlex.split(out)
    assert words[0] == "curl"
    assert "https://search.example:9200/my%20photos/_search" in words
    assert "secret" not in out + stderr
    assert "-u USER:PASSWORD" in stderr


@pytest.mark.usefixtures("use_length_encoder")
def test_a_notice_names_the_default_model(monkeypatch: pytest.MonkeyPatch, unused_url: str) -> None:
    monkeypatch.delenv("STAIR_ES_MODEL")
    code, out, stderr = run_command("query", "red", "--url", unused_url, "--json")
    assert code == 0
    assert json.loads(out)["query"]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.red"
    assert DEFAULT_MODEL in stderr


def test_body_survives_the_shell_for_any_words() -> None:
    vector = SparseVector.from_mapping({"it's": 3.0, '"; rm -rf $HOME `x` \\': 2.0, "\n[]": 1.0})
    body = build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=1024).body
    words = shlex.split(format_curl_command(body, "http://127.0.0.1:9200", "images"))
    assert json.loads(words[-1]) == body
    script = "printf %s " + shlex.quote(words[-1])
    echoed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=10)
    assert json.loads(echoed.stdout) == body


@pytest.mark.usefixtures("use_length_encoder")
def test_a_search_pipeline_is_in_the_address() -> None:
    code, out, _ = run_command("query", "red", "--pipeline", "two phase", "--index", "photos")
    assert (code, "/photos/_search?search_pipeline=two%20phase" in out) == (0, True)
    assert '"sort"' not in out  # the processor rescores, which excludes sorting


def test_search_json_has_the_documented_keys() -> None:
    query = SparseVector.from_mapping({"red": 2.0})
    source = {"tokens": {"red": 3.0}, "width": 640}
    hit = Hit(
        id="ab",
        index="photos-1",
        uri="file:///a.jpg",
        score=5.99,
        weak=True,
        contributions=explain_score(query, {"red": 3.0}),
        source=source,
        duplicates=(Hit(id="cd", index="photos-2", uri="file:///b.jpg", score=5.5, contributions=(), source={}),),
    )
    truncated = SparseVector.from_mapping({"dust": 0.5})
    result = SearchResult(
        hits=(hit,),
        took_ms=4,
        truncated=truncated,
        pruned=EMPTY_VECTOR,
        query_type="rank_features",
        after=[5.99, "file:///a.jpg"],
        weak_below=7.0,
        unknown_words=(UnknownWord(word="redd", suggestions=("red",)),),
        remarks=("a remark",),
    )
    contribution = {"token": "red", "query_weight": 2.0, "document_weight": 3.0, "contribution": 6.0}
    location = {"id": "ab", "index": "photos-1", "uri": "file:///a.jpg", "score": 5.99, "weak": True}
    duplicates = [{"id": "cd", "index": "photos-2", "uri": "file:///b.jpg"}]
    assert json.loads(json.dumps(to_json(result, ["width", "price"]))) == {
        "hits": [
            {**location, "fields": {"width": 640, "price": None}, "duplicates": duplicates, "contributions": [contribution]}
        ],
        "took_ms": 4,
        "query_type": "rank_features",
        "after": [5.99, "file:///a.jpg"],
        "weak_below": 7.0,
        "conditions": [],
        "unknown_words": [{"word": "redd", "suggestions": ["red"], "searched_for": None}],
        "remarks": ["a remark"],
        "truncated": {"dust": 0.5},
        "pruned": {},
    }


def test_the_installed_command_keeps_stdout_for_results() -> None:
    result = run_script("search")
    assert (result.returncode, result.stdout) == (2, "")
    assert "error[no-input]: " in result.stderr


def test_an_unreachable_cluster_is_one_error_without_a_traceback(unused_url: str) -> None:
    result = run_script("search", "red car", "--json", "--url", unused_url)
    assert result.returncode == 1
    assert unused_url in json.loads(result.stdout)["error"]
    assert unused_url in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def unused_url() -> str:
    """A URL where nothing listens: port 9 (discard) is below the ports of user processes."""
    return "http://127.0.0.1:9"


def run_script(*arguments: str) -> Any:  # noqa: ANN401  CompletedProcess is only generic for the type checker
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_U")}
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=120, env=environ)


def test_unsupported_fit_is_an_error(photo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAIR_ES_FIT", raising=False)
    code, _, stderr = run_command("encode", str(photo_path), "--fit", "crop")
    assert code == 1
    assert all(fact in stderr for fact in ("error[fit-not-supported]: ", "'squash'", "'crop'"))
    monkeypatch.setenv("STAIR_ES_FIT", "stretch")
    for command in (["encode", str(photo_path)], ["query", "dog"], ["search", "dog", "--url", "http://127.0.0.1:9"]):
        assert "'stretch'" in run_command(*command, "--model", DEFAULT_MODEL)[2]


@pytest.mark.usefixtures("use_length_encoder")
def test_words_may_begin_with_a_minus() -> None:
    _, expected, _ = run_command("query", "--json", "--", "beach -people -indoor")
    assert expected.count("must_not") == 1
    for words in (
        ("-people", "-indoor", "beach", "--json"),
        ("-people -indoor beach", "--json"),
        ("--json", "-k", "10", "-people", "beach", "-indoor"),
        ("-k10", "-people", "--json", "--", "beach", "-indoor"),
    ):
        assert json.loads(run_command("query", *words)[1])["query"] == json.loads(expected)["query"], words
    assert run_command("query", "beach", "--text", "-people", "--json") == run_command(
        "query", "beach", "--text=-people", "--json"
    )


@pytest.mark.usefixtures("use_length_encoder")
def test_the_language_of_query_strings_is_remarked_in_words() -> None:
    without_remark = run_command("query", "tiger lion")[2]
    assert "AND" in run_command("query", "tiger AND lion")[2]
    assert {"OR", "NOT"} <= set(re.findall(r"\w+", run_command("query", "tiger OR NOT")[2]))
    for plain in ('"red car"', "tiger and lion", "ROCK AND ROLL", "5'10\" tall"):
        assert run_command("query", plain)[2] == without_remark
    assert run_command("query", "tiger AND lion", "--literal")[2] == without_remark
