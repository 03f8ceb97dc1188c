"""The installed command against a real node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from opensearchpy import OpenSearch
from support.commands import CommandRunner

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
STAIR_ES = Path(sys.executable).parent / "stair-es"
INDEX = f"test-commands-{os.getpid()}"
"""Of this process: each worker deletes its own index."""

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


def _build_runner(node_url: str, index: str, folder: Path, command: Path = STAIR_ES) -> Run:
    """Runs a command with node and index in its environment."""
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index, "COLUMNS": "100"}

    def run_command(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments], cwd=folder, capture_output=True, text=True, check=False, env={**environment, **more}
        )

    return run_command


@pytest.fixture
def stair_es(node_url: str, index_name: str, tmp_path: Path, warm_script: Path) -> Run:
    return _build_runner(node_url, index_name, tmp_path, warm_script)


@pytest.fixture
def stair_es_of_photos(
    node_url: str, ingested_photos: subprocess.CompletedProcess[str], tmp_path: Path, warm_script: Path
) -> Run:
    """The same, with a read-only index of the photos."""
    assert ingested_photos.returncode == 0, ingested_photos.stderr
    return _build_runner(node_url, INDEX, tmp_path, warm_script)


@pytest.fixture(scope="module")
def ingested_photos(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.CompletedProcess[str]]:
    """The ingest that wrote that index."""
    yield _build_runner(node_url, INDEX, tmp_path_factory.mktemp("ingest"))("ingest", PHOTOS, "--json")
    with Cluster(Connection(url=node_url)) as cluster:
        cluster.client.indices.delete(index=f"{INDEX}-*")


def _read_last_json(result: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401
    return json.loads(result.stdout.splitlines()[-1])


def test_ingest_then_search_by_words_and_by_image(
    stair_es_of_photos: Run, ingested_photos: subprocess.CompletedProcess[str]
) -> None:
    stair_es, result = stair_es_of_photos, ingested_photos
    report = _read_last_json(result)
    count = len(list(PHOTOS.glob("*.jpg")))
    assert {"seen", "written", "unchanged", "failed", "seconds", "index", "dead_letters"} <= set(report)
    assert (report["seen"], report["written"], report["failed"], report["dead_letters"]) == (count, count, 0, None)
    assert result.stdout.count("\n") == 1
    assert "runner: local" in result.stderr

    second = _read_last_json(stair_es("ingest", PHOTOS, "--json"))
    assert (second["written"], second["unchanged"]) == (0, count)

    expected = {"a cup of coffee": "espresso.jpg", "a small dog": "two-spaniels.jpg", "red parrot": "scarlet-macaw.jpg"}
    for words, name in expected.items():
        hits = _read_last_json(stair_es("search", words, "--json", "-k", "3"))["hits"]
        assert name in hits[0]["uri"], words
        for hit in hits:
            total = sum(reason["contribution"] for reason in hit["contributions"])
            assert 0.9960 * total <= hit["score"] <= total * (1 + 1e-6)
    by_picture = _read_last_json(stair_es("search", "--image", PHOTOS / "tabby-cat.jpg", "--json"))
    assert by_picture["hits"][0]["uri"] == (PHOTOS / "tabby-cat.jpg").as_uri()
    assert by_picture["took_ms"] >= 0

    output = stair_es("search", "a cup of coffee", "--explain", "-k", "2").stdout
    assert "espresso.jpg" in output
    assert "coffee" in output


def test_failed_images_give_exit_code_3_and_a_file(stair_es: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(PHOTOS / "koala.jpg", folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    result = stair_es("ingest", folder, "--json")
    report = _read_last_json(result)
    assert (result.returncode, report["seen"], report["written"], report["failed"]) == (3, 2, 1, 1)
    [line] = Path(report["dead_letters"]).read_text().splitlines()
    assert json.loads(line)["stage"] == "decode"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "fact"),
    [
        (["ingest"], 2, "no-sources", "SOURCE"),
        (["ingest", "no-such-folder"], 2, "no-such-file", "no-such-folder"),
        (["ingest", "."], 1, "no-images", ""),
        (["ingest", PHOTOS, "--index", "Not A Name"], 2, "invalid-index-name", "Not A Name"),
        (["ingest", PHOTOS, "--model", "none"], 2, "unknown-model", "none"),
        (["ingest", PHOTOS, "--url", "elsewhere"], 2, "invalid-server-url", "http"),
        (["ingest", PHOTOS, "--url", "http://127.0.0.1:9"], 1, "cluster-unreachable", "127.0.0.1:9"),
        (["search"], 2, "no-input", "--text"),
    ],
)
def test_errors_have_codes_and_exit_codes(
    node_url: str,
    index_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str | Path],
    exit_code: int,
    code: str,
    fact: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CommandRunner({"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}).read_error(*arguments)
    assert (error.exit_code, error.code, fact in str(error)) == (exit_code, code, True)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "facts"),
    [
        (["search", "dog", "--index", "not-there"], 1, ("error[index-not-found]: ", "not-there")),
        (["nonsense"], 2, ("nonsense",)),
    ],
)
def test_usage_errors_name_the_mistake(
    stair_es: Run, arguments: list[str | Path], exit_code: int, facts: tuple[str, ...]
) -> None:
    result = stair_es(*arguments)
    assert result.returncode == exit_code, result.stderr
    assert [fact for fact in facts if fact not in result.stderr] == []
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_failed_runs_are_reported_as_json(stair_es: Run) -> None:
    result = stair_es("ingest", PHOTOS, "--json", "--url", "http://127.0.0.1:9")
    assert result.returncode == 1
    assert _read_last_json(result)["code"] == "cluster-unreachable"


@pytest.mark.parametrize("command", [[], ["node", "up"]])
def test_help_has_examples(stair_es: Run, command: list[str]) -> None:
    result = stair_es(*command, "--help")
    assert result.returncode == 0
    assert " ".join(["stair-es", *command]) in result.stdout.replace("\n", " ")


def test_a_run_killed_in_the_middle_is_finished_by_the_next(
    stair_es: Run, tmp_path: Path, node_url: str, index_name: str, client: OpenSearch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for copy in range(3):
        for photo in PHOTOS.glob("*.jpg"):
            (folder / f"{copy}-{photo.name}").write_bytes(photo.read_bytes() + bytes([copy]))
    count = len(list(folder.iterdir()))
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}
    with subprocess.Popen(
        [STAIR_ES, "ingest", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        while process.poll() is None and _count_documents(client, index_name) < 16:
            time.sleep(0.05)
        process.kill()
    assert 16 <= _count_documents(client, index_name) < count
    report = _read_last_json(stair_es("ingest", folder, "--json"))
    assert (report["seen"], report["failed"]) == (count, 0)
    assert report["written"] + report["unchanged"] == count
    assert report["written"] > 0
    assert report["unchanged"] >= 16
    assert _read_last_json(stair_es("ingest", folder, "--json"))["unchanged"] == count
    assert _count_documents(client, index_name) == count


def _count_documents(client: OpenSearch, alias: str) -> int:
    if not client.indices.exists_alias(name=alias):
        return 0
    client.indices.refresh(index=alias)
    return int(client.count(index=alias)["count"])


def test_runs_that_start_together_share_one_index(
    node_url: str, index_name: str, client: OpenSearch, tmp_path: Path, warm_script: Path
) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))[:6]
    for photo in photos:
        shutil.copy(photo, tmp_path)
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}
    command = [str(warm_script), "ingest", str(tmp_path), "--json"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    reports = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({report["index"] for report in reports}) == 1
    assert list(client.indices.get_alias(name=index_name)) == [reports[0]["index"]]
    assert _count_documents(client, index_name) == len(photos)


@pytest.mark.parametrize("command", ["search {} -k 40", "search {} --json", "query {}", "encode --text {}"])
@pytest.mark.usefixtures("ingested_photos")
def test_a_closed_pipe_is_not_a_failure(command: str, node_url: str) -> None:
    words = command.format("cat").split()
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": INDEX}
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen([STAIR_ES, *words], stdout=writer, stderr=subprocess.PIPE, env=environment) as process:
        os.close(writer)
        _, stderr = process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in stderr
    assert b"BrokenPipe" not in stderr


def test_undecodable_arguments_are_usage_errors(stair_es: Run) -> None:
    for command in (["search"], ["query"], ["encode", "--text"]):
        result = stair_es(*command, os.fsdecode(b"dog \xff"))
        assert result.returncode == 2
        assert "not valid text" in result.stderr
