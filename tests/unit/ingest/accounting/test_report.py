import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from stair_es.cluster.token_index.sync import TokenIndexReport
from stair_es.errors import IngestError, UsageError
from stair_es.ingest.accounting import dead_letters
from stair_es.ingest.accounting.dead_letters import KIND, DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.state import Batch, Outcome
from stair_es.sources.base import ListingFailure, SourceItem, SourceOptions
from stair_es.sources.io.local_file import FileLocator, InlineBytes

A, B, C = (SourceItem(f"file:///{name}", "file:///", FileLocator(f"file:///{name}"), "1-2", {"caption": name}) for name in "abc")


Make = Callable[..., RunAccounting]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def make_(*items: SourceItem) -> RunAccounting:
            accounting = RunAccounting(stack.enter_context(Manifest(tmp_path)), DeadLetters(tmp_path / "failed.jsonl", "photos"))
            for item in items:
                assert accounting.record_listed(item.uri, item.source)
            return accounting

        yield make_


def test_each_image_once_and_failed_ones_as_lines(make: Make, tmp_path: Path) -> None:
    accounting = make(A, B, C)
    assert not accounting.record_listed(A.uri, A.source)
    accounting.dead_letters.prepare_file()
    accounting.record_batch(
        Batch([Outcome(A, "written", "write", id="1"), Outcome(B, "failed", "decode", "why\nnot")], {"read": 1.0})
    )
    assert accounting.done_count == 2
    accounting.record_batch(Batch([Outcome(C, "unchanged", "read", id="1")], {"read": 0.5, "write": 2.0}))
    accounting.close()
    assert [(reason.stage, reason.images) for reason in accounting.get_failure_reasons()] == [("decode", 1)]
    assert accounting.get_counts() == {"seen": 3, "written": 1, "failed": 1, "unchanged": 1}
    assert dict(accounting.stage_seconds) == {"read": 1.5, "write": 2.0}
    assert accounting.manifest.count_documents() == 1
    assert [accounting.manifest.get_status(uri) for uri in (A.uri, B.uri, "other")] == ["stored", "failed", "unlisted"]
    [line] = (tmp_path / "failed.jsonl").read_text().splitlines()
    letter = json.loads(line)
    assert (letter["uri"], letter["stage"], letter["reason"]) == ("file:///b", "decode", "why\nnot")


def test_dead_letters_keep_their_items(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    inline, hole = SourceItem("mem:1", "mem:", InlineBytes(b"x")), ListingFailure("file:///d", "file:///", "forbidden")
    for item in (A, inline, hole.to_item()):
        letters.add(Outcome(item, "failed", "read", "why"))
    letters.close()
    with (tmp_path / "failed.jsonl").open("a") as file:
        file.write("no json\n\n[1]\n")
    first, *others = KIND.open(str(letters.path), SourceOptions()).list_items()
    assert first == A
    assert [type(other) for other in others] == [ListingFailure] * 4
    assert [other.uri for other in others][:2] == ["mem:1", "file:///d"]
    assert letters.path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "table.jsonl").write_text('{"url": "a"}\n')
    with pytest.raises(UsageError, match="contains no dead letters"):
        KIND.open(str(tmp_path / "table.jsonl"), SourceOptions())
    with pytest.raises(UsageError, match="no dead-letter file"):
        KIND.open(str(tmp_path / "none"), SourceOptions())


def test_no_dead_letter_no_file(make: Make, tmp_path: Path) -> None:
    accounting = make(A)
    accounting.record_batch(Batch([Outcome(A, "written", "write")]))
    accounting.close()
    assert not (tmp_path / "failed.jsonl").exists()


def test_an_image_without_outcome_fails_the_run(make: Make, tmp_path: Path) -> None:
    accounting = make(A, B)
    accounting.record_batch(Batch([Outcome(A, "written", "write")]))
    with pytest.raises(IngestError, match="1 images without an outcome"):
        accounting.close()


@pytest.mark.parametrize("item", [A, B])
def test_an_image_twice_or_never_listed_fails_the_run(make: Make, tmp_path: Path, item: SourceItem) -> None:
    accounting = make(A)
    accounting.record_batch(Batch([Outcome(A, "written", "write")]))
    with pytest.raises(IngestError, match="unexpected outcome"):
        accounting.record_batch(Batch([Outcome(item, "written", "write")]))


def test_lost_images_fail_the_run(make: Make, tmp_path: Path) -> None:
    accounting = make(A)
    with pytest.raises(IngestError, match="without an outcome"):
        accounting.record_batch(Batch([A]))


def test_dead_letters_are_replaced_or_fail_at_once(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    path.write_text("\n")
    DeadLetters(path, "photos").prepare_file()
    assert not path.exists()
    with pytest.raises(IngestError, match="can't write dead letters"):
        DeadLetters(tmp_path, "photos").prepare_file()


def test_dead_letters_of_running_runs_are_kept(tmp_path: Path) -> None:
    first, second = (DeadLetters(tmp_path / "failed.jsonl", "photos") for _ in range(2))
    first.prepare_file()
    second.prepare_file()  # neither has a letter yet: they will share the file
    first.add(Outcome(A, "failed", "read", "why"))
    second.check_writable()
    with pytest.raises(IngestError, match=r"another run is writing dead letters to .*failed\.jsonl"):
        second.prepare_file()
    second.add(Outcome(A, "failed", "read", "another"))
    first.close()
    second.close()
    assert [json.loads(line)["reason"] for line in first.path.read_text().splitlines()] == ["why", "another"]
    second.prepare_file()
    assert not first.path.exists()


def test_a_dead_letter_is_never_written_to_a_file_that_was_just_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is removed by another run between its opening and its lock."""
    letters, locked = DeadLetters(tmp_path / "failed.jsonl", "photos"), dead_letters._lock_file

    def lock_late(file: IO[str], *, exclusive: bool) -> bool:
        monkeypatch.setattr(dead_letters, "_lock_file", locked)
        letters.path.unlink()
        return locked(file, exclusive=exclusive)

    monkeypatch.setattr(dead_letters, "_lock_file", lock_late)
    letters.add(Outcome(A, "failed", "read", "why"))
    letters.close()
    assert len(letters.path.read_text().splitlines()) == 1


def test_manifest_keeps_uris_on_request(tmp_path: Path) -> None:
    for keep in (False, True):
        with Manifest(tmp_path, keep_uris=keep) as manifest:
            manifest.add_image(A.uri, A.source)
            manifest.record_outcomes([(A.uri, "id")])
            assert manifest.has_document("id")
            assert not manifest.has_document("other")
            assert manifest.find_image("id") == ((A.uri, A.source) if keep else None)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_dead_letters(tmp_path: Path) -> None:
    table = tmp_path / "items.jsonl"
    for content in ('{"path": "a.jpg"}\n', "[1]\n", "path,caption\n"):
        table.write_text(content)
        with pytest.raises(IngestError, match="something other than dead letters"):
            DeadLetters(table, "photos").prepare_file()
        assert table.read_text() == content
    letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    letters.add(Outcome(A, "failed", "read", "why"))
    letters.close()
    letters.close()
    DeadLetters(letters.path, "photos").prepare_file()
    assert not letters.path.exists()


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    DeadLetters(pipe, "photos").prepare_file()
    assert pipe.is_fifo()
    letters = DeadLetters(Path(os.devnull), "photos")
    letters.add(Outcome(A, "failed", "read", "why"))
    letters.close()


def test_the_most_frequent_reasons_are_reported_regardless_of_numbers_in_them(make: Make) -> None:
    items = [SourceItem(f"file:///{i}", "file:///", FileLocator(f"file:///{i}")) for i in range(1200)]
    accounting = make(*items)
    reasons = [
        "HTTP 404",
        *(f"{i} bytes exceed the limit" for i in range(30)),
        *(f"name {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(1169)),
    ]
    accounting.record_batch(
        Batch([Outcome(item, "failed", "read", reason) for item, reason in zip(items, reasons, strict=False)])
    )
    accounting.dead_letters.close()
    first, *others = accounting.get_failure_reasons()
    assert (first.images, first.reason) == (30, "0 bytes exceed the limit")
    assert len(others) == 2


def test_reasons_are_grouped_by_host_with_an_example(make: Make) -> None:
    reasons = [
        "127.0.0.1: 404 Not Found",
        "10.255.255.1: 404 Not Found",
        "10.255.255.1: 404 Not Found",
        "cut off: 3 bytes",
        "cut off: 4 bytes",
    ]
    items = [SourceItem(f"file:///{i}", "file:///", FileLocator(f"file:///{i}")) for i in range(len(reasons))]
    accounting = make(*items)
    accounting.record_batch(Batch([Outcome(item, "failed", "read", reason) for item, reason in zip(items, reasons, strict=True)]))
    found = {(why.reason, why.images, why.example) for why in accounting.get_failure_reasons()}
    assert found == {
        ("127.0.0.1: 404 Not Found", 1, "file:///0"),
        ("10.255.255.1: 404 Not Found", 2, "file:///1"),
        ("cut off: 3 bytes", 2, "file:///3"),
    }
    accounting.close()


def test_empty_run_offers_no_resume(make: Make) -> None:
    accounting = make(A, B, C)
    accounting.record_batch(Batch([Outcome(A, "failed", "list", "why")]))
    assert accounting.describe_stop("images") == "the run stopped; none of 3 images was stored"
    accounting.record_batch(Batch([Outcome(B, "written", "write", id="1")]))
    assert accounting.describe_stop("images") == "the run stopped with 1 of 3 images stored; the next run resumes from there"
    accounting.dead_letters.close()


@pytest.mark.parametrize(
    ("failed", "words", "complete", "allowed"), [(0, 0, True, True), (1, 0, False, True), (0, 1, False, False)]
)
def test_failed_images_may_be_allowed_and_failed_words_not(failed: int, words: int, complete: bool, allowed: bool) -> None:
    numbers = ("seen", "written", "unchanged", "removed", "documents", "seconds", "bulk_requests", "bulk_retries")
    rest: dict[str, Any] = {
        **dict.fromkeys(numbers, 0),
        **dict.fromkeys(("index", "alias", "not_swapped_reason", "model", "runner"), ""),
    }
    report = IngestReport(
        **rest,
        failed=failed,
        stage_seconds={},
        encoder_idle=None,
        swapped=False,
        deleted_indices=(),
        dead_letters=None,
        token_index=TokenIndexReport(index="", identity="", written=0, deleted=0, failed=words, images=0),
    )
    assert (report.is_complete(), report.is_complete(allow_failed=True)) == (complete, allowed)
