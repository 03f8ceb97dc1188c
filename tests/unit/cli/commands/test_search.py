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
def lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STAIR_ES_URL", "STAIR_ES_INDEX", "STAIR_ES_FIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAIR_ES_MODEL", "lengths")  # otherwise the model is read from an index
    monkeypatch.setattr(EncoderArguments, "load", lambda _: LengthEncoder())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr; StairError becomes the exit code that `main` returns."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, StairError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", ["search", "query"])
def test_neither_words_nor_image_is_wrong_usage(command: str) -> None:
    assert run(command)[0] == 2
    assert run(command, "  ")[0] == 2


@pytest.mark.usefixtures("lengths")
def test_words_and_images_add_up_with_their_weights(photo: Path) -> None:
    code, out, _ = run("query", "red", "--text", "car", "--image", str(photo), "--weights", "1,2,0.5", "--json")
    should = json.loads(out)["query"]["bool"]["should"]
    boosts = {clause["rank_feature"]["field"]: clause["rank_feature"]["boost"] for clause in should}
    assert (code, boosts) == (0, {"tokens.red": 3.0, "tokens.car": 6.0, "tokens.picture": 0.5})


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize(
    "arguments",
    [
        ("red", "--weights", "1,2"),
        ("red", "--weights", "x"),
        ("red", "--boost", "red"),
        ("red", "--boost", "red=nan"),
        ("red", "--boost", "blue=2"),
        ("red", "--filter", "{"),
        ("red", "--filter", ""),
        ("red", "--after", "page 2"),
        ("red", "--weight-mass", "2"),
        ("red", "--hybrid", "rrf"),
        ("red", "--mute", "red"),
        ("red", "--caption-weight", "2"),
        ("red", "--caption-field", "title"),
        ("+red^-1",),
        ("--exclude", "red"),
        ("red", "--min-weight", "0.5"),
    ],
)
def test_invalid_options_are_rejected(arguments: tuple[str, ...]) -> None:
    code, out, stderr = run("query", *arguments)
    assert (code in (1, 2), out) == (True, "")
    assert stderr


@pytest.mark.usefixtures("lengths")
def test_operators_and_options_are_equivalent() -> None:
    from_words = run("query", "red +car^2 -dog", "--json")
    assert from_words == run("query", "red car", "--require", "car", "--boost", "car=2", "--exclude", "dog", "--json")
    assert from_words[0] == 0
    assert run("query", "red -car", "--literal", "--json")[1].count("-car") == 1


@pytest.mark.parametrize(
    "arguments",
    [("search", "--image", "gone.jpg"), ("query", "--image", "gone.jpg"), ("encode", "gone.jpg"), ("search", "red", "-k", "0")],
)
def test_missing_files_and_bad_numbers_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_a_search_without_pagination_rejects_a_cursor() -> None:
    code, _, stderr = run("search", "red", "--after", "start", "--hybrid", "rrf")
    assert (code, "pages" in stderr) == (2, True)


def test_explain_reads_search_output(tmp_path: Path) -> None:
    file = tmp_path / "a b.jsonl"
    file.write_text("")
    assert parse_document_reference(str(file)) == file.as_uri()
    assert parse_document_reference(f"{file}#line=3") == f"{file.as_uri()}#line=3"
    assert parse_document_reference(str(tmp_path / "gone.jpg")) == (tmp_path / "gone.jpg").as_uri()
    for reference in ("file:///a.jpg", "s3://bucket/a#1.jpg", "4b76", "", "x" * 5000):
        assert parse_document_reference(reference) == reference


def test_encode_needs_one_of_image_and_text(photo: Path) -> None:
    assert run("encode")[0] == 2
    assert run("encode", "--text", " ")[0] == 2
    assert run("encode", str(photo), "--text", "red")[0] == 2


@pytest.mark.usefixtures("lengths")
def test_encode_text_as_json_has_the_heaviest_word_first() -> None:
    code, out, _ = run("encode", "--text", "red lorry", "--json")
    assert code == 0
    assert json.loads(out) == {"text": "red lorry", "tokens": {"lorry": 5.0, "red": 3.0}}
    assert list(json.loads(out)["tokens"]) == ["lorry", "red"]


@pytest.mark.usefixtures("lengths")
def test_encode_writes_one_object_a_line_for_several_images(photo: Path) -> None:
    code, out, _ = run("encode", str(photo), str(photo), "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [{"uri": photo.as_uri(), "tokens": {"picture": 1.0}}] * 2


@pytest.mark.usefixtures("lengths")
def test_encode_continues_after_a_bad_image_and_fails_at_the_end(photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    code, out, stderr = run("encode", str(bad), str(photo), "--json")
    assert code == 1
    vector, error = map(json.loads, out.splitlines())
    assert vector["uri"] == photo.as_uri()
    assert (error["code"], set(error)) == ("images-not-decoded", {"error", "code", "remedy"})
    assert "1 of 2" in stderr


@pytest.mark.usefixtures("lengths")
def test_encode_for_people_draws_bars() -> None:
    code, out, _ = run("encode", "--text", "red lorry")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["red", "lorry", "red"]
    assert "█" in out


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize("command", [("search",), ("query",), ("encode", "--text")])
def test_unknown_words_fail(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_URL", "http://127.0.0.1:9")  # without a URL the embedded node would be started
    code, out, stderr = run(*command, "unknown")
    assert (code, out) == (1, "")
    assert "none of the words of 'unknown'" in stderr


@pytest.mark.usefixtures("lengths")
def test_query_as_json_prints_only_the_body() -> None:
    code, out, _ = run("query", "red", "lorry", "-k", "3", "--json")
    vector = SparseVector.from_mapping({"red": 3.0, "lorry": 5.0})
    assert code == 0
    assert json.loads(out) == build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=1024, k=3).body


@pytest.mark.usefixtures("lengths")
def test_query_reports_truncated_tokens() -> None:
    code, out, stderr = run("query", "red lorry", "--max-clauses", "1", "--json")
    assert code == 0
    assert len(json.loads(out)["query"]["bool"]["should"]) == 1
    assert "1 lightest" in stderr
    assert "not sent (red)" in run("query", "red lorry", "--weight-mass", "0.5")[2]
    assert "not sent: ##lorry" in run("query", "red ##lorry", "--query-type", "impacts")[2]


@pytest.mark.usefixtures("lengths")
def test_query_for_people_is_a_curl_command_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_URL", "https://me:secret@search.example:9200")
    monkeypatch.setenv("STAIR_ES_INDEX", "my photos")
    code, out, stderr = run("query", "it's red")
    assert code == 0
    words = shlex.split(out)
    assert words[0] == "curl"
    assert "https://search.example:9200/my%20photos/_search" in words
    assert "secret" not in out + stderr
    assert "-u USER:PASSWORD" in stderr


@pytest.mark.usefixtures("lengths")
def test_query_without_a_cluster_uses_the_default_model_with_a_notice(monkeypatch: pytest.MonkeyPatch, free_url: str) -> None:
    monkeypatch.delenv("STAIR_ES_MODEL")
    code, out, stderr = run("query", "red", "--url", free_url, "--json")
    assert code == 0
    assert json.loads(out)["query"]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.red"
    assert f"using {DEFAULT_MODEL}, since the model of the index can't be read" in stderr


def test_body_survives_the_shell_for_any_words() -> None:
    vector = SparseVector.from_mapping({"it's": 3.0, '"; rm -rf $HOME `x` \\': 2.0, "\n[]": 1.0})
    body = build_search_request(SearchQuery(vector=vector), "rank_features", max_clauses=1024).body
    words = shlex.split(format_curl_command(body, "http://127.0.0.1:9200", "images"))
    assert json.loads(words[-1]) == body
    echoed = subprocess.run(
        ["sh", "-c", "printf %s " + shlex.quote(words[-1])], capture_output=True, text=True, check=True, timeout=10
    )
    assert json.loads(echoed.stdout) == body


@pytest.mark.usefixtures("lengths")
def test_a_search_pipeline_is_in_the_address() -> None:
    code, out, _ = run("query", "red", "--pipeline", "two phase", "--index", "photos")
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
        "unknown_words": [{"word": "redd", "suggestions": ["red"]}],
        "remarks": ["a remark"],
        "truncated": {"dust": 0.5},
        "pruned": {},
    }


def test_commands_have_help_with_examples_and_load_nothing_heavy() -> None:
    commands = ("search", "encode", "query", "explain")
    probe = (
        "import sys; from stair_es.cli.main import app\n"
        f"for command in {commands}:\n"
        "    try: app([command, '--help'])\n    except SystemExit: print('=====')\n"
        "sys.exit(','.join({'torch', 'onnxruntime', 'opensearchpy', 'PIL'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    *shown, rest = result.stdout.split("=====\n")
    assert rest == ""
    for command, text in zip(commands, shown, strict=True):
        assert f"stair-es {command}" in text
        assert "Examples" in text


def test_the_installed_command_keeps_stdout_for_results() -> None:
    result = _script("search")
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing to search for" in result.stderr


def test_an_unreachable_cluster_is_one_error_without_a_traceback(free_url: str) -> None:
    result = _script("search", "red car", "--json", "--url", free_url)
    assert result.returncode == 1
    assert free_url in json.loads(result.stdout)["error"]
    assert free_url in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def free_url() -> str:
    """A URL where nothing listens: port 9 (discard) is below the ports of user processes."""
    return "http://127.0.0.1:9"


def _script(*arguments: str, **environment: str) -> Any:  # noqa: ANN401  CompletedProcess is only generic for the type checker
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_U")}
    return subprocess.run(
        [str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environ, "COLUMNS": "120", **environment},
    )


def test_unsupported_fit_is_an_error(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAIR_ES_FIT", raising=False)
    code, _, stderr = run("encode", str(photo), "--fit", "crop")
    assert code == 1
    assert "only its own fit, 'squash', not 'crop'" in stderr
    monkeypatch.setenv("STAIR_ES_FIT", "stretch")
    for command in (["encode", str(photo)], ["query", "dog"], ["search", "dog", "--url", "http://127.0.0.1:9"]):
        assert "not 'stretch'" in run(*command, "--model", DEFAULT_MODEL)[2]
    assert run("encode", str(photo), "--fit", "zoom")[0] == 2


@pytest.mark.usefixtures("lengths")
def test_words_may_begin_with_a_minus() -> None:
    expected = run("query", "--json", "--", "beach -people -indoor")
    assert expected[0] == 0
    assert expected[1].count("must_not") == 1
    for words in (
        ("-people", "-indoor", "beach", "--json"),
        ("-people -indoor beach", "--json"),
        ("--json", "-k", "10", "-people", "beach", "-indoor"),
        ("-k10", "-people", "--json", "--", "beach", "-indoor"),
    ):
        assert json.loads(run("query", *words)[1])["query"] == json.loads(expected[1])["query"], words
    assert run("query", "beach", "--text", "-people", "--json") == run("query", "beach", "--text=-people", "--json")
    assert run("query", "cat", "--weights", "-1", "--json")[0] == 1  # the value of the option


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--indx", "photos", "beach"), "No such option:? '?--indx"),  # with quotes in some versions of Typer
        (("-index", "photos", "beach"), "'-index' may be the option --index or a word to exclude"),
        (("-json", "beach"), "'-json' may be the option --json"),
        (("-x", "beach"), "Put a word that begins with a minus after `--`"),
    ],
)
def test_mistyped_options_are_errors(arguments: tuple[str, ...], message: str) -> None:
    code, out, output = run("query", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, " ".join(output.replace("│", " ").split())), output


@pytest.mark.usefixtures("lengths")
def test_the_language_of_query_strings_is_remarked_in_words() -> None:
    assert "words are not combined with AND, read here as text" in run("query", "tiger AND lion")[2]
    assert "not combined with OR or NOT, read" in run("query", "tiger OR NOT lion")[2]
    assert "quotes are read as text" in run("query", '"red car"')[2]
    for plain in ("tiger and lion", "ROCK AND ROLL", "5'10\" tall"):
        assert "read as" not in run("query", plain)[2]
    assert "read as" not in run("query", "tiger AND lion", "--literal")[2]


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize("command", [("query", "--image"), ("search", "--image"), ("encode",)])
@pytest.mark.parametrize("image", ["gone.jpg", ".", "https://anna:hunter2@images.test/a.jpg", "ftp://images.test/a.jpg"])
def test_invalid_image_is_wrong_usage(command: tuple[str, ...], image: str) -> None:
    code, out, stderr = run(*command, image)
    assert (code, out) == (2, "")
    assert "hunter2" not in stderr


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize("command", [("query", "--image"), ("encode",)])
def test_a_url_into_this_machine_is_rejected(command: tuple[str, ...]) -> None:
    code, out, stderr = run(*command, "http://127.0.0.1:9/a.jpg?token=hunter2")
    assert (code, out) == (1, "")
    assert "refused: the address is loopback (--allow-private-urls)" in stderr
    assert "hunter2" not in stderr
