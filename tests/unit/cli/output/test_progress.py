"""Progress lines of an ingest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stair_es.cli.output import progress
from stair_es.cli.output.bars import escape_control
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.run_accounting import RunAccounting


@pytest.fixture
def run_accounting(tmp_path: Path) -> Iterator[RunAccounting]:
    with Manifest() as manifest:
        yield RunAccounting(manifest, DeadLetters(tmp_path / "failed.jsonl", "photos"))


@pytest.fixture
def printed_notices(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The notices that are printed, of which each update has one, with their facts."""
    notices: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "print_notice", lambda text, **facts: notices.append((text, facts)))
    return notices


def test_awaited_hosts_are_named_without_control_characters(
    run_accounting: RunAccounting, printed_notices: list[tuple[str, dict[str, Any]]]
) -> None:
    with progress.show_ingest_progress() as update:
        update(run_accounting)
        run_accounting.waiting_message = "waiting 40 s for a\x1b[1m.test (12 URLs)"
        update(run_accounting)
    (before, _), (line, facts) = printed_notices
    assert before.endswith(", 0 failed")
    assert line == f"{before}, {escape_control(run_accounting.waiting_message)}"
    assert facts["waiting"] == run_accounting.waiting_message


def test_failed_images_are_counted_in_the_line_and_in_its_facts(
    run_accounting: RunAccounting, printed_notices: list[tuple[str, dict[str, Any]]]
) -> None:
    with progress.show_ingest_progress() as update:
        run_accounting.outcome_counts["failed"] = 3
        update(run_accounting)
    [(line, facts)] = printed_notices
    assert (", 3 " in line, facts["failed"]) == (True, 3)


def test_download_progress_is_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [0.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "print_notice", lambda text, **facts: lines.append(text))
    with progress.show_download_progress() as update:
        for second in range(1, 21):
            now[0] = float(second)
            update(second * 2_500_000, 100_000_000)
    assert [re.findall(r"\d+", line) for line in lines] == [["25", "100", "30"], ["50", "100", "20"]]
