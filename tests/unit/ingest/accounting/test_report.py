"""Accounting of a run: outcomes, dead letters and reports."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from support.errors import expect_error

from stair_es.cluster.token_index.sync import TokenIndexReport
from stair_es.errors import IngestError, ReadError, UsageError
from stair_es.ingest.accounting import dead_letters
from stair_es.ingest.accounting.counted_images import CountedImages
from stair_es.ingest.accounting.dead_letters import KIND, DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.state import Batch, ImageState, Outcome
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.registry import open_source
from stair_es.types import Json

A, B, C = (SourceItem(f"file:///{name}", "file:///", FileLocator(f"file:///{name}"), "1-2", {"caption": name}) for name in "abc")
FAILED = Outcome(A, "failed", "read", "why")
WRITTEN = Outcome(A, "written", "write", id="1")

CreateAccounting = Callable[..., RunAccounting]


@pytest.fixture
def create_accounting(tmp_path: Path) -> Iterator[CreateAccounting]:
    """Creates the accounting of a run that has listed the given items."""
    with ExitStack() as stack:

        def create_with_items(*items: SourceItem) -> RunAccounting:
            manifest = stack.enter_context(Manifest(tmp_path, by_content=True))
            accounting = RunAccounting(manifest, DeadLetters(tmp_path / "failed.jsonl", "photos"))
            assert accounting.accept_listed(items) == list(items)
            return accounting

        yield create_with_items


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "failed.jsonl", "photos")


def build_item(number: int, source: str = "file:///", **fields: Json) -> SourceItem:
    return SourceItem(f"{source}{number}", source, FileLocator(f"file:///{number}"), None, fields)


def write_letter(letters: DeadLetters) -> None:
    letters.add(FAILED)
    letters.close()


def read_letters(letters: DeadLetters) -> list[dict[str, Any]]:
    return [json.loads(line) for line in letters.path.read_text().splitlines()]


def list_letters(path: Path, **options: Any) -> list[SourceItem | ListingFailure]:  # noqa: ANN401
    return list(KIND.open(str(path), SourceOptions(**options)).list_items())


def test_each_image_once_and_failed_ones_as_lines(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting(A, B)
    assert accounting.accept_listed([A, C, B, C]) == [C]
    assert accounting.accept_listed([]) == []
    accounting.dead_letters.prepare_file()
    accounting.record_batch(Batch([WRITTEN, Outcome(B, "failed", "decode", "why\nnot")], {"read": 1.0}))
    assert accounting.done_count == 2
    accounting.record_batch(Batch([Outcome(C, "unchanged", "read", id="1")], {"read": 0.5, "write": 2.0}))
    accounting.close()
    assert [(reason.stage, reason.images) for reason in accounting.get_failure_reasons()] == [("decode", 1)]
    assert accounting.get_counts() == {"seen": 3, "written": 1, "failed": 1, "unchanged": 1, "forgotten": 0}
    assert dict(accounting.stage_seconds) == {"read": 1.5, "write": 2.0}
    assert accounting.manifest.count_documents() == 1
    assert [accounting.manifest.get_status(uri) for uri in (A.uri, B.uri, "other")] == ["stored", "failed", "unlisted"]
    [letter] = read_letters(accounting.dead_letters)
    assert (letter["uri"], letter["stage"], letter["reason"]) == ("file:///b", "decode", "why\nnot")


def test_dead_letters_keep_their_items(letters: DeadLetters) -> None:
    inline, failure = SourceItem("mem:1", "mem:", InlineBytes(b"x")), ListingFailure("file:///d", "file:///", "forbidden")
    for item in (A, inline, failure.to_item()):
        letters.add(Outcome(item, "failed", "read", "why"))
    letters.close()
    with letters.path.open("a") as file:
        file.write("no json\n\n[1]\n")
    first, *others = list_letters(letters.path)
    assert first == A
    assert [type(other) for other in others] == [ListingFailure] * 4
    assert [other.uri for other in others][:2] == ["mem:1", "file:///d"]
    assert letters.path.stat().st_mode & 0o777 == 0o600


def test_other_files_are_not_opened_as_dead_letters(tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_text('{"url": "a"}\n')
    for name, code in {"table.jsonl": "not-a-dead-letter-file", "none": "no-dead-letter-file"}.items():
        with expect_error(code, UsageError):
            KIND.open(str(tmp_path / name), SourceOptions())


def test_no_dead_letter_no_file(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting(A)
    accounting.record_batch(Batch([WRITTEN]))
    accounting.close()
    assert not accounting.dead_letters.path.exists()


def test_an_image_without_outcome_fails_the_run(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting(A, B)
    accounting.record_batch(Batch([WRITTEN]))
    with expect_error("counts-do-not-add-up") as caught:
        accounting.close()
    assert "1 images" in caught.value.message


@pytest.mark.parametrize(
    ("image", "code"),
    [(WRITTEN, "unexpected-outcome"), (WRITTEN._replace(item=B), "unexpected-outcome"), (A, "images-without-outcome")],
    ids=["twice", "never listed", "lost"],
)
def test_inconsistent_outcomes_fail_the_run(create_accounting: CreateAccounting, image: ImageState, code: str) -> None:
    accounting = create_accounting(A)
    accounting.record_batch(Batch([WRITTEN]))
    with expect_error(code, IngestError):
        accounting.record_batch(Batch([image]))


def test_dead_letters_are_replaced_or_fail_at_once(letters: DeadLetters, tmp_path: Path) -> None:
    letters.path.write_text("\n")
    letters.prepare_file()
    assert not letters.path.exists()
    write_letter(letters)
    letters.close()
    letters.prepare_file()
    assert not letters.path.exists()
    with expect_error("dead-letters-not-writable"):
        DeadLetters(tmp_path, "photos").prepare_file()


def test_dead_letters_of_running_runs_are_kept(tmp_path: Path) -> None:
    first, second = (DeadLetters(tmp_path / "failed.jsonl", "photos") for _ in range(2))
    first.prepare_file()
    second.prepare_file()  # neither has a letter yet: they will share the file
    first.add(FAILED)
    second.check_writable()
    with expect_error("dead-letters-in-use") as caught:
        second.prepare_file()
    assert str(first.path) in caught.value.message
    second.add(Outcome(A, "failed", "read", "another"))
    first.close()
    second.close()
    assert [letter["reason"] for letter in read_letters(first)] == ["why", "another"]
    second.prepare_file()
    assert not first.path.exists()


def test_no_dead_letter_goes_to_a_removed_file(letters: DeadLetters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run removes the file between its opening and its lock."""
    lock_file = dead_letters._lock_file

    def remove_and_lock(file: IO[str], *, exclusive: bool) -> bool:
        monkeypatch.setattr(dead_letters, "_lock_file", lock_file)
        letters.path.unlink()
        return lock_file(file, exclusive=exclusive)

    monkeypatch.setattr(dead_letters, "_lock_file", remove_and_lock)
    write_letter(letters)
    assert len(read_letters(letters)) == 1


def test_outcomes_of_one_batch_are_unique(create_accounting: CreateAccounting) -> None:
    with expect_error("unexpected-outcome") as caught:
        create_accounting(A, B).record_batch(Batch([Outcome(B, "unchanged", "check", id="2"), WRITTEN, WRITTEN]))
    assert A.uri in caught.value.message


@pytest.mark.parametrize("by_content", [False, True])
def test_manifest_finds_documents_of_content(tmp_path: Path, by_content: bool) -> None:
    with Manifest(tmp_path, by_content=by_content) as manifest:
        manifest.add_images([C, A, B])
        assert not manifest.has_document("id")
        manifest.record_outcomes([(A.uri, A.source, "id"), (C.uri, C.source, "id")])
        manifest.record_outcomes([(B.uri, B.source, "")])
        assert (manifest.has_document("id"), manifest.has_document("other")) == (True, False)
        assert manifest.find_image("id") == ((C.uri, C.source) if by_content else None)
        assert (manifest.count_documents(), len(manifest)) == (1 if by_content else 2, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ['{"path": "a.jpg"}\n', "[1]\n", "path,caption\n"])
def test_other_files_are_not_replaced(letters: DeadLetters, content: str) -> None:
    letters.path.write_text(content)
    with expect_error("not-a-dead-letter-file", IngestError):
        letters.prepare_file()
    assert letters.path.read_text() == content


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    DeadLetters(pipe, "photos").prepare_file()
    assert pipe.is_fifo()
    write_letter(DeadLetters(Path(os.devnull), "photos"))


def record_failures(accounting: RunAccounting, reasons: Sequence[str]) -> None:
    outcomes = [Outcome(build_item(i), "failed", "read", reason) for i, reason in enumerate(reasons)]
    accounting.accept_listed([outcome.item for outcome in outcomes])
    accounting.record_batch(Batch([*outcomes]))
    accounting.close()


def test_frequent_reasons_are_grouped_without_their_numbers(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting()
    reasons = ["HTTP 404", *(f"{i} bytes are too many" for i in range(30))]
    reasons += [f"name {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(1169)]
    record_failures(accounting, reasons)
    first, *others = accounting.get_failure_reasons()
    assert (first.images, first.example) == (30, "file:///1")
    assert len(others) == 2


def test_reasons_are_grouped_by_host_with_an_example(create_accounting: CreateAccounting) -> None:
    one_host, other_host, cut_off = "127.0.0.1: 404", "10.255.255.1: 404", "cut off: {}"
    accounting = create_accounting()
    record_failures(accounting, [one_host, other_host, other_host, cut_off.format(3), cut_off.format(4)])
    assert {(reason.reason, reason.images, reason.example) for reason in accounting.get_failure_reasons()} == {
        (one_host, 1, "file:///0"),
        (other_host, 2, "file:///1"),
        (cut_off.format(3), 2, "file:///3"),
    }


def test_empty_run_offers_no_resume(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting(A, B, C)
    accounting.record_batch(Batch([Outcome(A, "failed", "list", "why")]))
    stopped = accounting.describe_stop("images")
    assert (re.findall(r"\d+", stopped), "resumes" in stopped) == (["3"], False)
    accounting.record_batch(Batch([Outcome(B, "written", "write", id="1")]))
    stopped = accounting.describe_stop("images")
    assert (re.findall(r"\d+", stopped), "resumes" in stopped) == (["1", "3"], True)
    accounting.dead_letters.close()


@pytest.mark.parametrize(
    ("failed_images", "failed_tokens", "complete", "allowed"), [(0, 0, True, True), (1, 0, False, True), (0, 1, False, False)]
)
def test_failed_images_may_be_allowed_and_failed_tokens_not(
    failed_images: int, failed_tokens: int, complete: bool, allowed: bool
) -> None:
    counts = ("seen", "written", "unchanged", "forgotten", "removed", "documents", "seconds", "bulk_requests", "bulk_retries")
    names = ("index", "alias", "not_swapped_reason", "model", "runner")
    others: dict[str, Any] = {**dict.fromkeys(counts, 0), **dict.fromkeys(names, "")}
    report = IngestReport(
        **others,
        failed=failed_images,
        stage_seconds={},
        encoder_idle=None,
        start_seconds=None,
        swapped=False,
        deleted_indices=(),
        dead_letters=None,
        token_index=TokenIndexReport(index="", identity="", written=0, deleted=0, failed=failed_tokens, images=0),
    )
    assert (report.is_complete(), report.is_complete(allow_failed=True)) == (complete, allowed)


def build_failures(
    source: str, count: int, *, name: str = "t.jsonl#line={}", reason: str = "not JSON: column {}"
) -> list[ListingFailure]:
    return [ListingFailure(f"{source}/{name.format(i)}", source, reason.format(i)) for i in range(1, count + 1)]


def record_outcome(accounting: RunAccounting, outcome: Outcome) -> None:
    assert accounting.accept_listed([outcome.item]) == [outcome.item]
    accounting.record_outcomes([outcome])


@pytest.mark.parametrize(
    ("name", "reason", "uri"),
    [
        ("t.jsonl#line={}", "not JSON: column {}", "file:///t.jsonl#lines=1001-5000"),
        ("t.parquet#row={}", "not of type int: 'name {}'", "file:///t.parquet#rows=1001-5000"),
        ("t.tar#{}.jpg", "a link", "file:///t.tar#1001.jpg..5000.jpg"),
        ("{}.jpg", "not found", "file:///1001.jpg..file:///5000.jpg"),
    ],
)
def test_many_failures_of_a_source_share_a_line(create_accounting: CreateAccounting, name: str, reason: str, uri: str) -> None:
    accounting = create_accounting()
    for failure in build_failures("file://", 5000, name=name, reason=reason):
        assert accounting.accept_listed([failure]) == []
    accounting.close()
    *letters, shared = read_letters(accounting.dead_letters)
    assert accounting.get_counts() == {"seen": 5000, "written": 0, "unchanged": 0, "failed": 5000, "forgotten": 0}
    assert [letter["uri"] for letter in letters] == [f"file:///{name.format(i)}" for i in range(1, 1001)]
    assert (shared["uri"], shared["images"], shared["stage"]) == (uri, 4000, "list")
    assert len(accounting.manifest) == 1000
    assert [reason.images for reason in accounting.get_failure_reasons()] == [5000]


def test_rows_that_failed_in_another_order_are_a_range() -> None:
    counted = CountedImages("read", "no image", "file:///t.parquet#row=9", "file:///t.parquet#row=10")
    assert counted.uri == "file:///t.parquet#rows=9-10"
    assert replace(counted, first=counted.last, last=counted.first).uri == counted.uri


def test_different_reasons_share_a_few_lines(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting()
    for i, failure in enumerate(build_failures("file://", 9000)):
        accounting.accept_listed([replace(failure, reason="why " + "abcdefghij"[i % 10] * (1 + i // 10 % 9))])
    accounting.close()
    shared = read_letters(accounting.dead_letters)[1000:]
    assert len(shared) == 21
    assert sum(letter["images"] for letter in shared) == 8000


class _EmptySource:
    ignored: Mapping[str, int] = {}

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        yield from ()


def test_lines_of_a_source_have_a_total_size(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting()
    accounting.dead_letters.set_sources([_EmptySource("file:///")], SourceOptions())
    for i in range(500):
        record_outcome(accounting, Outcome(build_item(i, text="x" * 9000), "failed", "read", "not found"))
    accounting.close()
    assert accounting.dead_letters.path.stat().st_size < 1_010_000
    assert 1 + sum(letter.get("images", 0) for letter in read_letters(accounting.dead_letters)) > 390


@pytest.mark.parametrize(("each", "lines"), [(10, 3000), (100, 1201)])
def test_failures_between_stored_images_have_their_lines(create_accounting: CreateAccounting, each: int, lines: int) -> None:
    """Of a table in which some images fail, all are named."""
    accounting = create_accounting()
    for i, failure in enumerate(build_failures("file://", 3000)):
        if i % each == 0:
            record_outcome(accounting, Outcome(build_item(i, "file://"), "written", "write", id=str(i)))
        accounting.accept_listed([failure])
    accounting.close()
    assert lines <= len(read_letters(accounting.dead_letters)) <= lines + 110


def test_images_that_only_their_line_can_retry_have_one(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting()
    sources = ("stdin:", "file:///t.txt")
    accounting.dead_letters.set_sources(list(map(_EmptySource, sources)), SourceOptions())
    for source in sources:
        for i in range(1500):
            record_outcome(accounting, Outcome(build_item(i, source), "failed", "read", "not found"))
    accounting.close()
    assert [letter["source"] for letter in read_letters(accounting.dead_letters)] == [
        *["stdin:"] * 1500,
        *["file:///t.txt"] * 1001,
    ]


def test_a_shared_line_reads_its_source_again(create_accounting: CreateAccounting, tmp_path: Path) -> None:
    table = tmp_path / "t.data"
    options = SourceOptions(format="jsonl", image_column="photo", columns={"note": "text"})
    lines = [json.dumps({"photo": f"{i}.jpg", "text": f"t{i}"} if i > 1990 else [i]) for i in range(2000)]
    table.write_text("\n".join(lines))
    accounting = create_accounting()
    source = open_source(str(table), options)
    accounting.dead_letters.set_sources([source], options)
    for found in source.list_items():
        for item in accounting.accept_listed([found]):
            accounting.record_outcomes([Outcome(item, "failed", "read", "not found")])
    accounting.close()
    assert len(read_letters(accounting.dead_letters)) == 1002
    table.write_text("\n".join([*(json.dumps({"photo": f"{i}.jpg", "text": "t"}) for i in range(1500)), *lines[1500:]]))
    retried = list_letters(accounting.dead_letters.path, format="dead-letters")
    images = {item.uri.rpartition("/")[2]: item for item in retried if isinstance(item, SourceItem)}
    assert set(images) == {f"{i}.jpg" for i in (*range(1500), *range(1991, 2000))}
    assert images["1999.jpg"].fields == {"note": "t1999"}
    assert {found.source for found in retried} == {table.as_uri()}
    assert sum(isinstance(found, ListingFailure) for found in retried) == 491


def test_a_shared_line_of_a_lost_source_fails(create_accounting: CreateAccounting, tmp_path: Path) -> None:
    accounting = create_accounting()
    uri = (tmp_path / "gone").as_uri()
    accounting.dead_letters.set_sources([_EmptySource(uri)], SourceOptions())
    for failure in build_failures(uri, 1200):
        accounting.accept_listed([failure])
    accounting.close()
    [lost] = list_letters(accounting.dead_letters.path)
    assert isinstance(lost, SourceItem)
    assert lost.locator.to_json() == read_letters(accounting.dead_letters)[-1]["locator"]
    with pytest.raises(ReadError):
        lost.locator.read(ReadLimits())


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"uri": 1, "source": 2, "locator": null}', b'{"locator": {"kind": "source"}}'],
    ids=["deep", "other types", "incomplete"],
)
def test_a_hostile_dead_letter_fails_alone(letters: DeadLetters, line: bytes) -> None:
    write_letter(letters)
    with letters.path.open("ab") as file:
        file.write(line + b"\n")
    assert sorted(type(each).__name__ for each in list_letters(letters.path)) == ["ListingFailure", "SourceItem"]


def test_letters_of_an_image_are_removed(letters: DeadLetters) -> None:
    for item in (A, B):
        letters.add(Outcome(item, "failed", "read", "why"))
    letters.close()
    with letters.path.open("a") as file:
        file.write("no json\n")
    assert letters.remove_images(lambda uri: uri == "file:///other") == 0
    assert letters.remove_images(lambda uri: uri == A.uri) == 1
    assert [line[:8] for line in letters.path.read_text().splitlines()] == ['{"uri": ', "no json"]
    assert A.uri not in letters.path.read_text()
    assert letters.path.stat().st_mode & 0o777 == 0o600
    letters.path.write_text(letters.path.read_text().partition("\n")[0])
    assert letters.remove_images(lambda uri: uri == B.uri) == 1
    assert list(letters.path.parent.iterdir()) == []


@pytest.mark.parametrize("place", [0, -1])
def test_a_letter_of_many_images_stays_without_the_name_of_a_removed_one(create_accounting: CreateAccounting, place: int) -> None:
    accounting = create_accounting()
    accounting.dead_letters.set_sources([open_source("/")], SourceOptions())
    failures = build_failures("file:///", 1500, name="{}.jpg", reason="'{}.jpg' not found")
    accounting.accept_listed(failures)
    accounting.close()
    letters = accounting.dead_letters
    [group] = [letter for letter in read_letters(letters) if "images" in letter]
    name = group["uri"].split("..")[place]
    assert letters.remove_images(lambda uri: uri == name) == 1
    [redacted] = [letter for letter in read_letters(letters) if "images" in letter]
    assert (redacted["uri"], redacted["images"], redacted["locator"]) == ("file:///", group["images"], group["locator"])
    assert Path(name).name not in redacted["reason"]


def test_letters_of_a_running_ingest_and_other_files_are_not_changed(letters: DeadLetters, tmp_path: Path) -> None:
    letters.add(FAILED)
    with expect_error("dead-letters-in-use"):
        DeadLetters(letters.path, "photos").remove_images(lambda _: True)
    letters.close()
    (other := tmp_path / "table.jsonl").write_text('{"uri": "file:///a"}\n')
    with expect_error("not-a-dead-letter-file"):
        DeadLetters(other, "photos").remove_images(lambda _: True)
    with expect_error("dead-letters-not-writable"):
        DeadLetters(tmp_path / "missing.jsonl", "photos").remove_images(lambda _: True)
    assert (len(read_letters(letters)), other.exists()) == (1, True)


def test_forgotten_images_are_neither_failed_nor_missing(create_accounting: CreateAccounting) -> None:
    accounting = create_accounting(A, B)
    accounting.record_batch(Batch([WRITTEN, Outcome(B, "forgotten", "check")]))
    accounting.close()
    assert accounting.get_counts() == {"seen": 2, "written": 1, "unchanged": 0, "failed": 0, "forgotten": 1}
    assert (accounting.manifest.count_documents(), accounting.manifest.get_status(B.uri)) == (1, "stored")
    assert not accounting.dead_letters.path.exists()
