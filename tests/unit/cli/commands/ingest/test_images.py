"""`stair-es ingest` before its first request: checks of the options, and their errors."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from support.commands import CommandRunner
from support.deploy_files import check_arguments
from typer.main import get_command

from stair_es.cli.commands.ingest.arguments import FirstRunOnly
from stair_es.cli.commands.ingest.images import build_retry_command
from stair_es.cli.main import app
from stair_es.cli.options.decorator import add_failure_facts, prepare_command
from stair_es.errors import StairError

NOWHERE = {"STAIR_ES_URL": "http://127.0.0.1:1", "STAIR_ES_INDEX": "", "RAY_ADDRESS": ""}


def _read_error(*arguments: str) -> StairError:
    return CommandRunner(NOWHERE, "ingest").read_error(*arguments)


def read_failure(*arguments: str) -> dict[str, Any]:
    """Return the last line of stdout, which is JSON."""
    stdout = CommandRunner(NOWHERE, "ingest").run(*arguments, "--json").stdout
    values: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return values


@pytest.fixture
def photo_folder(tmp_path: Path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return str(folder)


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        ("PHOTOS --no-swap --force-swap", "option-conflict", "--force-swap"),
        ("PHOTOS --field caption", "invalid-column-mapping", "'caption'"),
        ("PHOTOS --field a=b,a=c", "field-given-twice", "'a'"),
        ("PHOTOS --field a=b,a:int=c", "field-given-twice", "'a'"),
        ("PHOTOS --field a:number=b", "unknown-column-type", "'a:number'"),
        ("PHOTOS --field tokens:int=b", "reserved-field-name", "tokens"),
        ("PHOTOS --field tokens=b", "reserved-field-name", "tokens"),
        ("PHOTOS --format nothing", "unknown-source-kind", "nothing"),
        ("PHOTOS --enrich :x", "invalid-plugin-options", ":x"),
        ("PHOTOS --enrich unheard-of", "unknown-enricher", "'unheard-of'"),
        ("PHOTOS --enrich filename:color=red", "unknown-enricher-option", "color"),
        ("PHOTOS --sink unheard-of", "unknown-sink", "'unheard-of'"),
        ("PHOTOS --sink cluster:color=red", "unknown-sink-option", "color"),
        ("PHOTOS --sink cluster:retain_indices=many", "invalid-sink-option", "retain_indices=many"),
        ("PHOTOS --model unheard-of", "unknown-model", "unheard-of"),
        ("PHOTOS/nothing", "no-such-file", "nothing"),
        ("PHOTOS --runner ray --ray-address nonsense", "not-a-ray-address", ""),
        ("PHOTOS --dead-letters PHOTOS", "dead-letters-not-writable", "PHOTOS"),
    ],
)
def test_wrong_usage_is_reported_with_its_cause(photo_folder: str, options: str, code: str, fact: str) -> None:
    if "ray" in options:
        pytest.importorskip("ray")
    error = _read_error("-i", "a", *(option.replace("PHOTOS", photo_folder) for option in options.split()))
    assert error.code == code
    assert fact.replace("PHOTOS", photo_folder) in str(error)
    assert error.remedy


def test_a_run_needs_a_source_and_the_name_of_an_index(photo_folder: str) -> None:
    assert _read_error().code == "no-sources"
    assert _read_error(photo_folder, "-i", "No Name").code == "invalid-index-name"


def test_retry_and_dead_letters_may_not_be_the_same_file(tmp_path: Path) -> None:
    dead_letters = tmp_path / "failed.jsonl"
    dead_letters.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for same in (dead_letters, tmp_path / "link" / "failed.jsonl", tmp_path / "link" / ".." / tmp_path.name / "failed.jsonl"):
        error = _read_error("-i", "a", "--retry-failed", str(dead_letters), "--dead-letters", str(same))
        assert error.code == "option-conflict"
        assert dead_letters.exists()


def test_a_failed_run_is_json_too(photo_folder: str) -> None:
    values = read_failure(photo_folder, "-i", "a")
    assert "127.0.0.1:1" in values["error"]
    assert values["seen"] == values["written"] == 0


def test_a_full_temporary_folder_is_json_too(photo_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    values = read_failure(photo_folder, "-i", "a")
    assert values["code"] == "run-list-not-writable"
    assert str(tmp_path / "none") in values["error"]
    assert "TMPDIR" in values["remedy"]


@pytest.mark.parametrize(
    ("failure", "message"),
    [(ZeroDivisionError("no"), "ZeroDivisionError: no"), (OSError(28, "No space", "f.txt"), "f.txt: No space")],
)
def test_a_broken_plugin_is_json_too(failure: Exception, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    @prepare_command
    def fail_after_three(*, as_json: bool) -> None:
        add_failure_facts(lambda: {"seen": 3})
        raise failure

    with pytest.raises(type(failure)):
        fail_after_three(as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert (values["error"], values["seen"]) == (message, 3)


def _write_dead_letters(folder: Path, **more: str) -> str:
    letter = {"uri": "file:///a", "source": "file:///", "stage": "read", "reason": "why", "locator": None, **more}
    path = folder / "dead letters.jsonl"
    path.write_text(json.dumps(letter) + "\n")
    return str(path)


def test_a_retry_into_another_index_must_be_explicit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead_letters = _write_dead_letters(tmp_path, index="photos")
    error = _read_error("--retry-failed", dead_letters)
    assert error.code == "dead-letters-of-other-index"
    assert ("'photos'" in error.message, "'images'" in error.message, "--index photos" in error.remedy) == (True, True, True)
    for arguments in (["--index", "photos"], ["--index", "others"]):
        assert "127.0.0.1:1" in _read_error("--retry-failed", dead_letters, *arguments).message
    assert "127.0.0.1:1" in _read_error("--retry-failed", _write_dead_letters(tmp_path)).message  # they don't say
    monkeypatch.setitem(NOWHERE, "STAIR_ES_INDEX", "others")
    assert "'others'" in _read_error("--retry-failed", _write_dead_letters(tmp_path, index="photos")).message


def test_the_retry_command_has_the_options_of_the_run(tmp_path: Path) -> None:
    root: Any = get_command(app)
    above = root.make_context("stair-es", ["--config", "my file.toml", "ingest"])
    first_run_only = ["--format", "csv", "--field", "a=b", "--resync", "--json"]
    settings = ["--url", "http://h:9200", "--model", "starter", "--url-timeout", "5.0"]
    enrichers = ["--enrich", "filename", "--enrich"]
    build = ["--impact-field", "--no-token-index", "--sink"]
    ray = ["--ray-address", "***"]
    plugins = [*enrichers, "more:a=b", *build, "mine:key=secret,b=c", *ray]
    arguments = ["pictures", *first_run_only, *settings, *plugins]
    context = root.commands["ingest"].make_context("ingest", arguments, parent=above)
    command = build_retry_command(_write_dead_letters(tmp_path), "photos", context)
    dead_letters, words = tmp_path / "dead letters.jsonl", shlex.split(command)
    assert words[:7] == ["stair-es", "--config", "my file.toml", "ingest", "--retry-failed", str(dead_letters), "--index"]
    assert words[7:] == ["photos", *settings, *enrichers, "more:a=...", *build, "mine:key=...,b=...", *ray]
    check_arguments(words[3:])
    assert build_retry_command("f", "i", None).split() == ["stair-es", "ingest", "--retry-failed", "f", "--index", "i"]


def test_a_retry_repeats_options_unless_they_are_marked() -> None:
    @prepare_command
    def ingest_images(
        *, size: Annotated[int, typer.Option("--size")] = 1, once: Annotated[bool, typer.Option("--once"), FirstRunOnly] = False
    ) -> None:
        """Do nothing."""

    new_app = typer.Typer()
    new_app.command()(ingest_images)
    command: Any = get_command(new_app)
    context = command.make_context("ingest", ["--size", "2", "--once"])
    assert build_retry_command("f", "i", context).split()[-4:] == ["--index", "i", "--size", "2"]
