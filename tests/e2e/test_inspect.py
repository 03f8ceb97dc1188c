"""`stair-es inspect` and `stair-es words` against a real node with the bundled photos, and installed on a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.plugin_metadata import install_colors_plugin

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import make_document_id
from stair_es.model import registry
from stair_es.model.base import ModelSpec

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
STAIR_ES = Path(sys.executable).parent / "stair-es"
CAT = PHOTOS / "tabby-cat.jpg"
INDEX = "test-inspect"
UNIFORMITY = ("--uniformity", "0.3")
"""So that a word which half of the photos have is a candidate for a stop word."""
MODEL = registry.resolve_model(ModelSpec(name="stair-mini")).card.model_id


@pytest.fixture(scope="module")
def cli_environment(node_url: str) -> Iterator[dict[str, str]]:
    """The environment of the command, with a read-only index of the photos."""
    environ = {"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": INDEX, "COLUMNS": "120"}
    CommandRunner(environ).read_output("ingest", PHOTOS)
    yield environ
    with Cluster(Connection(url=node_url)) as cluster:
        for name in cluster.client.indices.get(index=f"{INDEX}*"):
            cluster.client.indices.delete(index=name)


@pytest.fixture(scope="module")
def stored_vectors(cli_environment: dict[str, str]) -> dict[str, dict[str, float]]:
    """URI -> words, as `encode` prints them without a cluster."""
    output = CommandRunner(cli_environment).read_output("encode", *sorted(PHOTOS.glob("*.jpg")), "--json")
    return {one["uri"]: one["tokens"] for one in map(json.loads, output.splitlines())}


@pytest.fixture
def command(cli_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandRunner:
    """Commands in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    return CommandRunner(cli_environment)


def test_an_id_a_uri_and_a_path_are_one_image(command: CommandRunner, stored_vectors: dict[str, dict[str, float]]) -> None:
    arguments = [make_document_id(CAT.as_uri()), CAT.as_uri(), str(CAT), f"file://localhost{CAT}"]
    found = [json.loads(line) for line in command.read_output("inspect", *arguments, "--json").splitlines()]
    assert [one.pop("reference") for one in found] == arguments
    assert all(one == found[0] for one in found)
    words = stored_vectors[CAT.as_uri()]
    assert {row["token"]: row["weight"] for row in found[0]["tokens"]} == words
    assert found[0]["origin"] == "index"
    assert found[0]["sum"] == pytest.approx(sum(words.values()))
    assert found[0]["tokens"][-1]["cumulative"] == pytest.approx(1)
    assert not {"tokens", "thumbnail"} & set(found[0]["fields"])


def test_the_words_as_bars(command: CommandRunner, stored_vectors: dict[str, dict[str, float]]) -> None:
    count = len(stored_vectors[CAT.as_uri()])
    output = command.read_output("inspect", CAT, "-k", "2")
    path, *bars, rest, summary = output.splitlines()[:5]
    assert path == str(CAT)
    assert bars[0].split()[0] == "cat"
    assert all("█" in bar and bar.count("%") == 2 for bar in bars)
    assert f"{count - 2} more word" in rest
    assert f"{count} words" in summary
    assert len(command.read_output("inspect", CAT, "--all").splitlines()) > count
    assert "\x1b" not in output


def test_unindexed_file_is_encoded_with_a_notice(command: CommandRunner, tmp_path: Path) -> None:
    new = tmp_path / "new.jpg"
    new.write_bytes(CAT.read_bytes() + b"x")
    assert f"not in {INDEX}: encoded by {MODEL} now" in command.read_output("inspect", "new.jpg", "-k", "1")
    found = command.read_json("inspect", new, "-k", "1")
    assert (found["origin"], found["id"], found["tokens"][0]["token"]) == ("model", None, "cat")
    shutil.copy(CAT, tmp_path / "copy.jpg")
    result = command.run("inspect", "copy.jpg", "--json")
    assert json.loads(result.stdout)["uri"] == CAT.as_uri()
    assert "copy.jpg" in result.stderr


def test_compare_reports_outdated_words(command: CommandRunner, tmp_path: Path) -> None:
    found = command.read_json("inspect", CAT, "--compare")
    assert found["compare"] == {"is_same": True, "differences": [], "reasons": []}
    with install_colors_plugin(tmp_path):
        other = command.read_json("inspect", make_document_id(CAT.as_uri()), "--compare", "--model", "colors")
    assert other["compare"]["is_same"] is False
    assert [MODEL in reason and "colors-1" in reason for reason in other["compare"]["reasons"]] == [True]
    plain, compared = (command.read_output("inspect", CAT, "-k", "1", *more).splitlines() for more in ((), ("--compare",)))
    [comparison] = [line for line in compared if line not in plain]
    assert MODEL in comparison


def test_missing_images_are_reported_and_the_others_shown(command: CommandRunner, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    result = command.run("inspect", "nope", CAT, "broken.jpg", "--json")
    assert (result.exit_code, json.loads(result.stdout)["reference"]) == (3, str(CAT))
    assert "neither in" in result.stderr
    assert "broken.jpg" in result.stderr
    assert "2 of 3" in result.stderr
    for arguments, code in ((["nope"], "nothing-to-show"), ([CAT, "--index", "absent-index"], "index-not-found")):
        error = command.read_error("inspect", *arguments)
        assert (error.exit_code, error.code) == (1, code)
    for wrong in (("--json", "--csv"), ("-k", "3", "--all")):
        assert command.read_error("inspect", CAT, *wrong).exit_code == 2


def test_references_come_from_stdin(cli_environment: dict[str, str]) -> None:
    def inspect_stdin(stdin: str, *options: str) -> subprocess.CompletedProcess[str]:
        arguments: list[str | Path] = [STAIR_ES, "inspect", "-", *options]
        environ = {**os.environ, **cli_environment}
        return subprocess.run(arguments, input=stdin, capture_output=True, text=True, check=False, timeout=300, env=environ)

    ids = "".join(f"{make_document_id((PHOTOS / name).as_uri())}\r\n" for name in ("koala.jpg", "bison.jpg")) + "\n"
    result = inspect_stdin(ids, "--csv", "-k", "2")
    assert result.returncode == 0, result.stderr
    header, *rows = csv.reader(io.StringIO(result.stdout))
    assert header == ["reference", "id", "uri", "origin", "rank", "token", "weight", "share", "cumulative"]
    assert [Path(row[2]).name for row in rows] == ["koala.jpg"] * 2 + ["bison.jpg"] * 2
    assert inspect_stdin("\n").returncode == 2


def test_a_terminal_with_colors_shows_the_thumbnail(cli_environment: dict[str, str]) -> None:
    output = run_on_terminal([STAIR_ES, "inspect", CAT, "-k", "1"], {**cli_environment, "COLORTERM": "truecolor"})
    assert len(re.findall(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▄", output)) > 300
    for more, plain in (([], {"NO_COLOR": "1"}), (["--no-thumbnail"], {}), ([], {"TERM": "dumb"})):
        assert "▄" not in run_on_terminal([STAIR_ES, "inspect", CAT, "-k", "1", *more], {**cli_environment, **plain})


def test_a_table_is_escaped_on_a_terminal_only(cli_environment: dict[str, str]) -> None:
    code = r"from stair_es.cli.output.csv import emit_csv; emit_csv(['word'], [['\x1b]0;title\x07']])"
    command: list[str | Path] = [sys.executable, "-c", code]
    assert run_on_terminal(command, cli_environment).splitlines() == ["word", r"\x1b]0;title\x07"]
    assert (
        subprocess.run(command, env={**os.environ, **cli_environment}, capture_output=True, check=True).stdout
        == b"word\n\x1b]0;title\x07\n"
    )


def run_on_terminal(command: list[str | Path], cli_environment: dict[str, str]) -> str:
    master, end = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **cli_environment}
    with subprocess.Popen(command, stdout=end, stderr=subprocess.DEVNULL, env=env) as running:
        os.close(end)
        out = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux reports the end of a pseudoterminal like this
                break
            if not part:
                break
            out += part
    os.close(master)
    assert running.returncode == 0
    return out.decode()


def test_word_figures_match_the_encoded_photos(command: CommandRunner, stored_vectors: dict[str, dict[str, float]]) -> None:
    found, images = command.read_json("words", *UNIFORMITY), stored_vectors
    assert (found["documents"], found["images"], found["missed_count"], found["without_uri"]) == (40, 40, 0, 0)
    assert {row["token"] for row in found["tokens"]} == {word for image in images.values() for word in image}
    for row in found["tokens"]:
        has = [image[row["token"]] for image in images.values() if row["token"] in image]
        assert row["images"] == len(has)
        assert row["mean_weight"] == pytest.approx(sum(has) / len(has))
        assert images[row["example"]][row["token"]] == row["max_weight"] == max(has)
    assert [row["images"] for row in found["tokens"]] == sorted((row["images"] for row in found["tokens"]), reverse=True)
    assert "animal" in found["stop_words"]["tokens"]
    assert found["unused"]["vocabulary"] == MODEL
    assert found["unused"]["count"] == found["unused"]["vocabulary_size"] - found["distinct_tokens"]


def test_a_table_a_csv_and_unused_words(command: CommandRunner, stored_vectors: dict[str, dict[str, float]]) -> None:
    images = list(stored_vectors.values())
    table = command.read_output("words", "-k", "2", *UNIFORMITY)
    assert table.startswith(f"{INDEX}: 40 images, {sum(map(len, images)) / 40:.1f} words per image")
    assert "stop-word candidates" in table
    rows = list(csv.DictReader(io.StringIO(command.read_output("words", "--csv", "--match", "cat*", "--sort", "max"))))
    most = {word: max(image.get(word, 0) for image in images) for image in images for word in image if word.startswith("cat")}
    assert {"cat", "cattle"} <= set(most)
    assert [row["token"] for row in rows] == sorted(most, key=lambda word: -most[word])
    unused = command.read_output("words", "--unused").splitlines()
    assert len(unused) == len(set(unused)) > 1000
    assert "cat" not in unused
    assert command.read_error("words", "--json", "--csv").exit_code == 2


def test_a_sample_is_called_an_estimate(command: CommandRunner) -> None:
    result = command.run("words", "--sample", "10", "--seed", "3", "--json")
    found = json.loads(result.stdout)
    assert (found["images"], found["sample"]) == (10, {"size": 10, "seed": 3})
    assert "estimates" in result.stderr
    assert command.read_json("words", "--sample", "10", "--seed", "3") == found


def test_candidates_become_a_valid_policy_without_overwriting(command: CommandRunner, tmp_path: Path) -> None:
    command.read_output("words", "--policy", "stop.json", "-k", "1", *UNIFORMITY)
    expected = command.read_json("words", *UNIFORMITY)["stop_words"]["tokens"]
    assert expected
    assert json.loads((tmp_path / "stop.json").read_text())["mute"] == expected
    plan = command.read_json("policy", "plan", "stop.json", "--samples", "0")
    assert set(plan["rules"]) == {f"mute {word}" for word in expected}
    second = command.read_error("words", "--policy", "stop.json", *UNIFORMITY)
    assert (second.code, second.exit_code) == ("file-exists", 2)
    assert command.read_error("words", "--policy", "no-folder/stop.json").exit_code == 2
    none = command.run("words", "--policy", "none.json", "--uniformity", "1")
    assert none.exit_code == 0
    assert "no stop-word candidates" in none.stderr
    assert not (tmp_path / "none.json").exists()


def test_words_of_an_empty_index(command: CommandRunner) -> None:
    absent = command.read_error("words", "--index", "absent-index")
    assert (absent.code, "--index absent-index" in absent.remedy) == ("index-not-found", True)
