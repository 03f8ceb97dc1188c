"""Progress lines of an ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from stair_es.cli.output import progress
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.run_accounting import RunAccounting


def test_awaited_hosts_are_named_without_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[tuple[str, object]] = []
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "print_notice", lambda text, **facts: notices.append((text, facts["waiting"])))
    with Manifest() as manifest, progress.show_ingest_progress() as update:
        accounting = RunAccounting(manifest, DeadLetters(tmp_path / "failed.jsonl", "photos"))
        update(accounting)
        accounting.waiting_message = "waiting 40 s for a\x1b[1m.test (12 URLs)"
        update(accounting)
    assert notices[0][0].endswith(", 0 failed")
    assert notices[1] == (notices[0][0] + r", waiting 40 s for a\x1b[1m.test (12 URLs)", accounting.waiting_message)


def test_failed_images_are_counted_in_the_line_and_in_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[tuple[str, object]] = []
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "print_notice", lambda text, **facts: notices.append((text, facts["failed"])))
    with Manifest() as manifest, progress.show_ingest_progress() as update:
        accounting = RunAccounting(manifest, DeadLetters(tmp_path / "failed.jsonl", "photos"))
        accounting.outcome_counts["failed"] = 3
        update(accounting)
    [(line, failed)] = notices
    assert (", 3 " in line, failed) == (True, 3)


def test_download_progress_is_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    now, output = [0.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "print_notice", lambda text, **facts: output.append(text))
    with progress.show_download_progress() as update:
        for second in range(1, 21):
            now[0] = float(second)
            update(second * 2_500_000, 100_000_000)
    assert output == ["fetched 25 of 100 MB, 30 s left", "fetched 50 of 100 MB, 20 s left"]
