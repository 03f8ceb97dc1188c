"""The table of versions: known gaps must fail as expected, anything else is a failure."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from check_versions import judge, run_checks
from support.markdown import read_table_rows
from support.versions import commands as version_commands
from support.versions.bench import Bench, WrongOutput
from support.versions.checks import CHECKS, NEEDS
from support.versions.commands import CommandError, CommandRunner
from support.versions.nodes import VERSIONS, KnownFailure
from support.versions.page import Outcome, Record, write_page

GAP = KnownFailure(message="no such query", cause="plugin")


def build_record(*outcomes: Outcome, label: str = "OpenSearch 2.19.1", failure: str = "") -> Record:
    return Record(
        label=label,
        origin="server and modules",
        java="21.0.8 (Vendor)",
        missing_modules=("lang-expression",),
        began="2026-11-26T19:50",
        seconds=61.4,
        stair_es="0.1.0",
        outcomes=outcomes,
        failure=failure,
    )


@pytest.mark.parametrize(
    ("gap", "problem", "status"),
    [
        (None, None, "ok"),
        (None, CommandError("no such query"), "failed"),
        (None, WrongOutput("another photo"), "failed"),
        (GAP, None, "failed"),
        (GAP, CommandError("error: no such query here"), "plugin"),
        (GAP, CommandError("out of memory"), "failed"),
        (GAP, WrongOutput("no such query"), "failed"),
        (GAP, KeyError("no such query"), "failed"),
    ],
)
def test_only_known_gaps_may_be_missing(gap: KnownFailure | None, problem: Exception | None, status: str) -> None:
    assert judge("search", gap, problem).status == status


def test_dependent_checks_are_skipped() -> None:
    def fail_check(_bench: object) -> None:
        raise CommandError("no such query")

    checks = {"template publish": fail_check, "template search": fail_check, "doctor": lambda _bench: None}
    version = replace(VERSIONS[0], gaps={"template publish": GAP}, stand_in=frozenset({"doctor", "template search"}))
    outcomes = run_checks(None, version, checks)  # type: ignore[arg-type]
    assert [outcome.status for outcome in outcomes] == ["plugin", "not tried", "stand-in"]


def test_every_gap_and_need_names_a_check() -> None:
    for version in VERSIONS:
        assert set(version.gaps) <= set(CHECKS), version.label
    assert {*NEEDS, *NEEDS.values()} <= set(CHECKS)


def test_the_page_has_every_check_and_every_message() -> None:
    unsupported = Outcome(check="search", status="engine", message="it takes <3.3> | newer\nLeave `a_b` and a_b out.")
    failed = Outcome(check="doctor", status="failed", message="TimeoutExpired: *late*")
    record = build_record(Outcome(check="words", status="ok"), unsupported, failed)
    page = write_page([record, build_record(label="Elasticsearch 9.5.3", failure="no Java")], ["words", "search", "doctor"])
    rows = read_table_rows(page)
    assert [record.label, record.java, record.origin, *record.missing_modules] in [row[:4] for row in rows]
    for row in (["`words`", "ok", "-"], ["`search`", "no", "-"], ["`doctor`", "**failed**", "-"]):
        assert row in rows
    messages = {row[0]: row[1:] for row in rows if len(row) == 4}
    escaped = r"it takes \<3.3> \| newer<br>Leave `a_b` and a\_b out."
    assert messages["`search`"] == [record.label, "every cluster", escaped]
    assert messages["`doctor`"] == [record.label, "**unexpected**", r"TimeoutExpired: \*late\*"]
    assert ["Elasticsearch 9.5.3", "**unexpected**", "no Java"] in messages.values()


def test_messages_that_differ_in_the_version_alone_are_one_row() -> None:
    labels = ("OpenSearch 2.19.1", "OpenSearch 3.9.0", "Elasticsearch 7.17.29")
    outcomes = [Outcome(check="words", status="engine", message=f"not on {label}") for label in labels]
    page = write_page([build_record(outcome, label=label) for outcome, label in zip(outcomes, labels, strict=True)], ["words"])
    [row] = [row for row in read_table_rows(page) if row[-1].endswith("VERSION")]
    assert re.findall(r"[A-Z]\w+|\d[\d.]+", row[1]) == ["OpenSearch", "2.19.1", "3.9.0", "Elasticsearch", "7.17.29"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = build_record(Outcome(check="words", status="ok"), failure="late")
    kept.write(tmp_path / "deep" / "record.json")
    assert Record.read(tmp_path / "deep" / "record.json") == kept
    assert kept.failed


def test_messages_are_the_same_in_every_run(tmp_path: Path) -> None:
    commands = CommandRunner("https://127.0.0.1:23456", tmp_path, {})
    message = f"one index\nerror: https://127.0.0.1:23456: p-20261126-194222-605515 in {tmp_path}\nLook again.\n"
    first, second = commands.format_error(message).splitlines()
    assert first.split() == ["https://127.0.0.1:9200:", "p-TIMESTAMP", "in", "FOLDER"]
    assert second == message.splitlines()[-1]


def test_commands_see_no_other_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_API_KEY", "of another cluster")
    commands = CommandRunner("http://127.0.0.1:1", tmp_path, {"STAIR_ES_USER": "admin"})
    assert "STAIR_ES_API_KEY" not in commands.environ
    assert commands.environ["STAIR_ES_USER"] == "admin"
    assert Bench(commands).photos.is_dir()


def test_messages_that_quote_errors_are_complete(tmp_path: Path) -> None:
    commands = CommandRunner("http://127.0.0.1:1234", tmp_path, {})
    message = "http://127.0.0.1:1234 answered 400: parse error: no such field\nName another field."
    output = f"using the model x\nerror[response-error]: {message}\n"
    assert commands.format_error(output) == message.replace("1234", "9200")


def test_a_page_that_never_serves_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hangs := tmp_path / "hangs").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(version_commands, "STAIR_ES", hangs)
    monkeypatch.setattr(version_commands, "_START_TIMEOUT_S", 0.2)
    commands = CommandRunner("http://127.0.0.1:1234", tmp_path, {})
    with pytest.raises(subprocess.TimeoutExpired), commands.serve():
        pass
