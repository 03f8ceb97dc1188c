"""`stair-es ingest` before its first request: checks of the options, and their errors."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from support.deploy_files import check_arguments
from typer.main import get_command
from typer.testing import CliRunner

from stair_es.cli.commands.ingest.arguments import FirstRunOnly
from stair_es.cli.commands.ingest.images import build_retry_command
from stair_es.cli.main import app
from stair_es.cli.options.decorator import add_failure_facts, prepare_command
from stair_es.errors import StairError, UsageError

RUNNER = CliRunner()
NOWHERE = {"STAIR_ES_URL": "http://127.0.0.1:1", "STAIR_ES_INDEX": "", "RAY_ADDRESS": ""}


def _fails(*arguments: str) -> StairError:
    result = RUNNER.invoke(app, ["ingest", *arguments], env=NOWHERE)
    assert isinstance(result.exception, StairError), result.output
    return result.exception


@pytest.fixture
def photos(tmp_path: Path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither SOURCE nor --retry-failed"),
        (["{photos}", "-i", "a", "--no-swap", "--force-swap"], "are mutually exclusive"),
        (["{photos}", "-i", "No Name"], "not an index name"),
        (["{photos}", "-i", "a", "--field", "caption"], "not a column mapping: 'caption'"),
        (["{photos}", "-i", "a", "--field", "a=b,a=c"], "field 'a' twice"),
        (["{photos}", "-i", "a", "--field", "a=b,a:int=c"], "field 'a' twice"),
        (["{photos}", "-i", "a", "--field", "a:number=b"], "no such type: 'a:number'"),
        (["{photos}", "-i", "a", "--field", "tokens:int=b"], "same name as a field of stair-es"),
        (["{photos}", "-i", "a", "--field", "tokens=b"], "same name as a field of stair-es"),
        (["{photos}", "-i", "a", "--format", "nothing"], "nothing"),
        (["{photos}", "-i", "a", "--enrich", ":x"], "not the name of an enricher"),
        (["{photos}", "-i", "a", "--enrich", "unheard-of"], "unknown enricher 'unheard-of'"),
        (["{photos}", "-i", "a", "--enrich", "filename:color=red"], "no option color"),
        (["{photos}", "-i", "a", "--sink", "unheard-of"], "unknown sink 'unheard-of'"),
        (["{photos}", "-i", "a", "--sink", "cluster:color=red"], "no option color"),
        (["{photos}", "-i", "a", "--model", "unheard-of"], "unknown model"),
        (["{photos}/nothing", "-i", "a"], "nothing"),
        (["{photos}", "-i", "a", "--runner", "ray", "--ray-address", "nonsense"], "not a Ray address"),
    ],
)
def test_wrong_usage_is_reported_with_its_cause(photos: str, arguments: list[str], message: str) -> None:
    if "ray" in arguments:
        pytest.importorskip("ray")
    error = _fails(*(argument.format(photos=photos) for argument in arguments))
    assert any(part in str(error) for part in message.split("|")), error
    assert error.remedy


def test_retry_and_dead_letters_may_not_be_the_same_file(tmp_path: Path) -> None:
    dead_letters = tmp_path / "failed.jsonl"
    dead_letters.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for same in (dead_letters, tmp_path / "link" / "failed.jsonl", tmp_path / "link" / ".." / tmp_path.name / "failed.jsonl"):
        error = _fails("-i", "a", "--retry-failed", str(dead_letters), "--dead-letters", str(same))
        assert isinstance(error, UsageError)
        assert dead_letters.exists()


def test_options_given_with_the_sink_are_not_overridden_by_defaults(photos: str) -> None:
    error = _fails(photos, "-i", "a", "--sink", "cluster:retain_indices=many")
    assert isinstance(error, UsageError)
    assert "retain_indices=many" in error.message


def test_a_failed_run_is_json_too(photos: str) -> None:
    result = RUNNER.invoke(app, ["ingest", photos, "-i", "a", "--json"], env=NOWHERE)
    value = json.loads(result.stdout.strip().splitlines()[-1])
    assert "127.0.0.1:1" in value["error"]
    assert value["seen"] == value["written"] == 0


def test_a_full_temporary_folder_and_a_broken_plugin_are_json_too(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    result = RUNNER.invoke(app, ["ingest", photos, "-i", "a", "--json"], env=NOWHERE)
    value = json.loads(result.stdout.strip().splitlines()[-1])
    assert str(tmp_path / "none") in value["error"]
    assert "TMPDIR" in value["remedy"]
    for failure, message in (
        (ZeroDivisionError("no"), "ZeroDivisionError: no"),
        (OSError(28, "No space", "f.txt"), "f.txt: No space"),
    ):
        with pytest.raises(type(failure)):
            _fail_after_three(failure)
        value = json.loads(capsys.readouterr().out)
        assert (value["error"], value["seen"]) == (message, 3)


def _fail_after_three(failure: Exception) -> None:
    @prepare_command
    def fail(*, as_json: bool) -> None:
        add_failure_facts(lambda: {"seen": 3})
        raise failure

    fail(as_json=True)


def test_unwritable_dead_letters_are_reported_before_any_request(photos: str, tmp_path: Path) -> None:
    error = _fails(photos, "-i", "a", "--dead-letters", str(tmp_path))
    assert f"can't write dead letters to {tmp_path}" in error.message


def _write_dead_letters(folder: Path, **more: str) -> str:
    letter = {"uri": "file:///a", "source": "file:///", "stage": "read", "reason": "why", "locator": None, **more}
    path = folder / "dead letters.jsonl"
    path.write_text(json.dumps(letter) + "\n")
    return str(path)


def test_a_retry_into_another_index_must_be_explicit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead_letters = _write_dead_letters(tmp_path, index="photos")
    error = _fails("--retry-failed", dead_letters)
    assert "belong to the index 'photos', and this run would write into 'images'" in error.message
    assert "--index photos" in error.remedy
    for arguments in (["--index", "photos"], ["--index", "others"]):
        assert "127.0.0.1:1" in _fails("--retry-failed", dead_letters, *arguments).message
    assert "127.0.0.1:1" in _fails("--retry-failed", _write_dead_letters(tmp_path)).message  # they don't say
    monkeypatch.setitem(NOWHERE, "STAIR_ES_INDEX", "others")
    assert "would write into 'others'" in _fails("--retry-failed", _write_dead_letters(tmp_path, index="photos")).message


def test_the_retry_command_has_the_options_of_the_run(tmp_path: Path) -> None:
    root: Any = get_command(app)
    above = root.make_context("stair-es", ["--config", "my file.toml", "ingest"])
    kept_options = (
        "--format csv --field a=b --resync --json --impact-field --no-token-index -m starter --url-timeout 5 --url http://h:9200"
    )
    plugins = "--enrich filename --enrich more:a=b --sink mine:key=secret,b=c --ray-address ***"
    arguments = ["pictures", *kept_options.split(), *plugins.split()]
    context = root.commands["ingest"].make_context("ingest", arguments, parent=above)
    command = build_retry_command(_write_dead_letters(tmp_path), "photos", context)
    dead_letters, words = tmp_path / "dead letters.jsonl", shlex.split(command)
    assert words[:7] == ["stair-es", "--config", "my file.toml", "ingest", "--retry-failed", str(dead_letters), "--index"]
    assert " ".join(words[7:]) == (
        "photos --url http://h:9200 --model starter --url-timeout 5.0 --enrich filename --enrich more:a=... --impact-field"
        " --no-token-index --sink mine:key=...,b=... --ray-address ***"
    )
    check_arguments(words[3:])
    assert build_retry_command("f", "i", None) == "stair-es ingest --retry-failed f --index i"


def test_a_retry_repeats_options_unless_they_are_marked() -> None:
    @prepare_command
    def ingest(
        *,
        size: Annotated[int, typer.Option("--size")] = 1,
        once: Annotated[bool, typer.Option("--once"), FirstRunOnly] = False,
    ) -> None:
        """Do nothing."""

    new_app = typer.Typer()
    new_app.command()(ingest)
    command: Any = get_command(new_app)
    context = command.make_context("ingest", ["--size", "2", "--once"])
    assert build_retry_command("f", "i", context) == "stair-es ingest --retry-failed f --index i --size 2"
