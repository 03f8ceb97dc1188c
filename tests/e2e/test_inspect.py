"""`stair-es inspect` and `stair-es words`, installed, against a real node with the bundled photos."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support.plugin_metadata import write_entry_points

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import make_document_id
from stair_es.model import registry
from stair_es.model.base import ModelSpec

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
STAIR_ES = Path(sys.executable).parent / "stair-es"
CAT = PHOTOS / "tabby-cat.jpg"
INDEX = "test-inspect"
UNIFORMITY = ("--uniformity", "0.3")
"""So that a word which half of the photos have is a candidate for a stop word."""
MODEL = registry.resolve_model(ModelSpec(name="stair-mini")).card.model_id

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def cli_environment(node_url: str) -> Iterator[dict[str, str]]:
    """The environment of the script, with a read-only index of the photos."""
    environ = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": INDEX, "COLUMNS": "120"}
    subprocess.run([STAIR_ES, "ingest", PHOTOS], check=True, capture_output=True, env=environ)
    yield environ
    with Cluster(Connection(url=node_url)) as cluster:
        for name in cluster.client.indices.get(index=f"{INDEX}*"):
            cluster.client.indices.delete(index=name)


@pytest.fixture(scope="module")
def stored_vectors(cli_environment: dict[str, str]) -> dict[str, dict[str, float]]:
    """URI -> words, as `encode` prints them without a cluster."""
    command: list[str | Path] = [STAIR_ES, "encode", *sorted(PHOTOS.glob("*.jpg")), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=cli_environment)
    return {one["uri"]: one["tokens"] for one in map(json.loads, result.stdout.splitlines())}


@pytest.fixture
def run_cli(cli_environment: dict[str, str], tmp_path: Path, warm_script: Path) -> Run:
    def run_script(*arguments: str | Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [warm_script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            input=stdin,
            timeout=300,
            env={**cli_environment, **more},
        )

    return run_script


def parse_json(result: subprocess.CompletedProcess[str], code: int = 0) -> Any:  # noqa: ANN401  JSON
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


def test_an_id_a_uri_and_a_path_are_one_image(run_cli: Run) -> None:
    arguments = [make_document_id(CAT.as_uri()), CAT.as_uri(), str(CAT), f"file://localhost{CAT}"]
    result = run_cli("inspect", *arguments, "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one.pop("reference") for one in found] == arguments
    assert all(one == found[0] for one in found)
    words = json.loads(run_cli("encode", CAT, "--json").stdout)["tokens"]
    assert {row["token"]: row["weight"] for row in found[0]["tokens"]} == words
    assert found[0]["origin"] == "index"
    assert found[0]["sum"] == pytest.approx(sum(words.values()))
    assert found[0]["tokens"][-1]["cumulative"] == pytest.approx(1)
    assert not {"tokens", "thumbnail"} & set(found[0]["fields"])


def test_the_words_as_bars(run_cli: Run, stored_vectors: dict[str, dict[str, float]]) -> None:
    count = len(stored_vectors[CAT.as_uri()])
    result = run_cli("inspect", CAT, "-k", "2")
    assert result.returncode == 0, result.stderr
    path, *bars, rest, summary = result.stdout.splitlines()[:5]
    assert path == str(CAT)
    assert bars[0].split()[0] == "cat"
    assert all("█" in bar and bar.count("%") == 2 for bar in bars)
    assert f"{count - 2} more word" in rest
    assert f"{count} words" in summary
    assert len(run_cli("inspect", CAT, "--all").stdout.splitlines()) > count
    assert "\x1b" not in result.stdout


def test_unindexed_file_is_encoded_with_a_notice(run_cli: Run, tmp_path: Path) -> None:
    new = tmp_path / "new.jpg"
    new.write_bytes(CAT.read_bytes() + b"x")
    result = run_cli("inspect", "new.jpg", "-k", "1")
    assert f"not in {INDEX}: encoded by {MODEL} now" in result.stdout
    found = parse_json(run_cli("inspect", new, "--json", "-k", "1"))
    assert (found["origin"], found["id"], found["tokens"][0]["token"]) == ("model", None, "cat")
    shutil.copy(CAT, tmp_path / "copy.jpg")
    result = run_cli("inspect", "copy.jpg", "--json")
    assert parse_json(result)["uri"] == CAT.as_uri()
    assert "copy.jpg" in result.stderr


def test_compare_reports_outdated_words(run_cli: Run, tmp_path: Path) -> None:
    found = parse_json(run_cli("inspect", CAT, "--compare", "--json"))
    assert found["compare"] == {"is_same": True, "differences": [], "reasons": []}
    write_entry_points(site := tmp_path / "site", "example", "colors = stair_es_example.colors:KIND")
    path = os.pathsep.join(map(str, (site, ROOT / "examples" / "plugin" / "src", os.environ.get("PYTHONPATH", ""))))
    arguments = ("inspect", make_document_id(CAT.as_uri()), "--compare", "--json", "--model", "colors")
    other = parse_json(run_cli(*arguments, PYTHONPATH=path))
    assert other["compare"]["is_same"] is False
    assert [MODEL in reason and "colors-1" in reason for reason in other["compare"]["reasons"]] == [True]
    plain, compared = (run_cli("inspect", CAT, "-k", "1", *more).stdout.splitlines() for more in ((), ("--compare",)))
    [comparison] = [line for line in compared if line not in plain]
    assert MODEL in comparison


def test_missing_images_are_reported_and_the_others_shown(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    result = run_cli("inspect", "nope", CAT, "broken.jpg", "--json")
    assert parse_json(result, 3)["reference"] == str(CAT)
    assert "neither in" in result.stderr
    assert "broken.jpg" in result.stderr
    assert "2 of 3" in result.stderr
    none = run_cli("inspect", "nope")
    assert (none.returncode, none.stdout) == (1, "")
    assert "error[nothing-to-show]: " in none.stderr
    absent = run_cli("inspect", CAT, "--index", "absent-index")
    assert absent.returncode == 1
    assert "error[index-not-found]: " in absent.stderr
    for wrong in (("--json", "--csv"), ("-k", "3", "--all")):
        assert run_cli("inspect", CAT, *wrong).returncode == 2


def test_references_come_from_stdin(run_cli: Run) -> None:
    ids = "".join(f"{make_document_id((PHOTOS / name).as_uri())}\r\n" for name in ("koala.jpg", "bison.jpg")) + "\n"
    result = run_cli("inspect", "-", "--csv", "-k", "2", stdin=ids)
    assert result.returncode == 0, result.stderr
    header, *rows = csv.reader(io.StringIO(result.stdout))
    assert header == ["reference", "id", "uri", "origin", "rank", "token", "weight", "share", "cumulative"]
    assert [Path(row[2]).name for row in rows] == ["koala.jpg"] * 2 + ["bison.jpg"] * 2
    assert run_cli("inspect", "-", stdin="\n").returncode == 2


def test_a_terminal_with_colors_shows_the_thumbnail(cli_environment: dict[str, str]) -> None:
    output = run_on_terminal([STAIR_ES, "inspect", CAT, "-k", "1"], {**cli_environment, "COLORTERM": "truecolor"})
    assert len(re.findall(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▄", output)) > 300
    for more, plain in (([], {"NO_COLOR": "1"}), (["--no-thumbnail"], {}), ([], {"TERM": "dumb"})):
        assert "▄" not in run_on_terminal([STAIR_ES, "inspect", CAT, "-k", "1", *more], {**cli_environment, **plain})


def test_a_table_is_escaped_on_a_terminal_only(cli_environment: dict[str, str]) -> None:
    code = r"from stair_es.cli.output.csv import emit_csv; emit_csv(['word'], [['\x1b]0;title\x07']])"
    command: list[str | Path] = [sys.executable, "-c", code]
    assert run_on_terminal(command, cli_environment).splitlines() == ["word", r"\x1b]0;title\x07"]
    assert subprocess.run(command, env=cli_environment, capture_output=True, check=True).stdout == b"word\n\x1b]0;title\x07\n"


def run_on_terminal(command: list[str | Path], cli_environment: dict[str, str]) -> str:
    master, end = pty.openpty()
    env = {"TERM": "xterm-256color", "COLORTERM": "truecolor", **cli_environment}
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


def test_word_figures_match_the_encoded_photos(run_cli: Run, stored_vectors: dict[str, dict[str, float]]) -> None:
    found, images = parse_json(run_cli("words", "--json", *UNIFORMITY)), stored_vectors
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


def test_a_table_a_csv_and_unused_words(run_cli: Run, stored_vectors: dict[str, dict[str, float]]) -> None:
    images = list(stored_vectors.values())
    table = run_cli("words", "-k", "2", *UNIFORMITY)
    assert table.stdout.startswith(f"{INDEX}: 40 images, {sum(map(len, images)) / 40:.1f} words per image")
    assert "stop-word candidates" in table.stdout
    rows = list(csv.DictReader(io.StringIO(run_cli("words", "--csv", "--match", "cat*", "--sort", "max").stdout)))
    most = {word: max(image.get(word, 0) for image in images) for image in images for word in image if word.startswith("cat")}
    assert {"cat", "cattle"} <= set(most)
    assert [row["token"] for row in rows] == sorted(most, key=lambda word: -most[word])
    unused = run_cli("words", "--unused").stdout.splitlines()
    assert len(unused) == len(set(unused)) > 1000
    assert "cat" not in unused
    assert run_cli("words", "--json", "--csv").returncode == 2


def test_a_sample_is_called_an_estimate(run_cli: Run) -> None:
    result = run_cli("words", "--sample", "10", "--seed", "3", "--json")
    found = parse_json(result)
    assert (found["images"], found["sample"]) == (10, {"size": 10, "seed": 3})
    assert "estimates" in result.stderr
    assert parse_json(run_cli("words", "--sample", "10", "--seed", "3", "--json")) == found


def test_candidates_become_a_valid_policy_without_overwriting(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("words", "--policy", "stop.json", "-k", "1", *UNIFORMITY)
    assert result.returncode == 0, result.stderr
    expected = parse_json(run_cli("words", "--json", *UNIFORMITY))["stop_words"]["tokens"]
    assert expected
    assert json.loads((tmp_path / "stop.json").read_text())["mute"] == expected
    plan = parse_json(run_cli("policy", "plan", "stop.json", "--json", "--samples", "0"))
    assert set(plan["rules"]) == {f"mute {word}" for word in expected}
    second = run_cli("words", "--policy", "stop.json", *UNIFORMITY)
    assert second.returncode == 2
    assert "error[file-exists]: " in second.stderr
    assert run_cli("words", "--policy", "no-folder/stop.json").returncode == 2
    none = run_cli("words", "--policy", "none.json", "--uniformity", "1")
    assert none.returncode == 0
    assert "no stop-word candidates" in none.stderr
    assert not (tmp_path / "none.json").exists()


def test_words_of_an_empty_index(run_cli: Run) -> None:
    absent = run_cli("words", "--index", "absent-index")
    assert absent.returncode == 1
    assert "error[index-not-found]: " in absent.stderr
    assert "--index absent-index" in absent.stderr
