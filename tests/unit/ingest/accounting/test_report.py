import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from stair_es.cluster.token_index.sync import TokenIndexReport
from stair_es.errors import IngestError, ReadError, UsageError
from stair_es.ingest.accounting import dead_letters
from stair_es.ingest.accounting.dead_letters import KIND, DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.state import Batch, Outcome
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.registry import open_source

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


def _fail(source: str, count: int, *, name: str = "t.jsonl#line={}", reason: str = "not JSON: column {}") -> list[Outcome]:
    items = (ListingFailure(f"{source}/{name.format(i)}", source, reason.format(i)) for i in range(1, count + 1))
    return [Outcome(item.to_item(), "failed", "list", item.reason) for item in items]


def _read_letters(accounting: RunAccounting) -> list[dict[str, Any]]:
    return [json.loads(line) for line in accounting.dead_letters.path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "reason", "uri"),
    [
        ("t.jsonl#line={}", "not JSON: column {}", "file:///t.jsonl#lines=1001-5000"),
        ("t.parquet#row={}", "not of type int: 'name {}'", "file:///t.parquet#rows=1001-5000"),
        ("t.tar#{}.jpg", "a link", "file:///t.tar#1001.jpg..5000.jpg"),
        ("{}.jpg", "not found", "file:///1001.jpg..file:///5000.jpg"),
    ],
)
def test_many_failures_of_a_source_share_a_line(make: Make, name: str, reason: str, uri: str) -> None:
    accounting = make()
    for outcome in _fail("file://", 5000, name=name, reason=reason):
        assert accounting.accept_listed(ListingFailure(outcome.item.uri, "file://", outcome.reason)) is None
    accounting.close()
    *letters, shared = _read_letters(accounting)
    assert accounting.get_counts() == {"seen": 5000, "written": 0, "unchanged": 0, "failed": 5000}
    assert [letter["uri"] for letter in letters] == [f"file:///{name.format(i)}" for i in range(1, 1001)]
    assert (shared["uri"], shared["images"], shared["stage"]) == (uri, 4000, "list")
    assert len(accounting.manifest) == 1000
    assert [reason.images for reason in accounting.get_failure_reasons()] == [5000]


def test_different_reasons_share_a_few_lines(make: Make) -> None:
    accounting = make()
    for i, outcome in enumerate(_fail("file://", 9000)):
        accounting.accept_listed(ListingFailure(outcome.item.uri, "file://", "why " + "abcdefghij"[i % 10] * (1 + i // 10 % 9)))
    accounting.close()
    shared = _read_letters(accounting)[1000:]
    assert len(shared) == 21
    assert sum(letter["images"] for letter in shared) == 8000


def test_lines_of_a_source_have_a_total_size(make: Make) -> None:
    accounting = make()
    accounting.dead_letters.set_sources([_Source("file:///")], SourceOptions())
    items = [SourceItem(f"file:///{i}", "file:///", FileLocator(f"file:///{i}"), None, {"text": "x" * 9000}) for i in range(500)]
    for item in items:
        assert accounting.accept_listed(item) == item
        accounting.record_outcomes([Outcome(item, "failed", "read", "not found")])
    accounting.close()
    assert accounting.dead_letters.path.stat().st_size < 1_010_000
    assert 1 + sum(letter.get("images", 0) for letter in _read_letters(accounting)) > 390


@pytest.mark.parametrize(("each", "lines"), [(10, 3000), (100, 1201)])
def test_failures_between_stored_images_have_their_lines(make: Make, each: int, lines: int) -> None:
    """Of a table in which some images fail, all are named."""
    accounting = make()
    for i, outcome in enumerate(_fail("file://", 3000)):
        if i % each == 0:
            stored = SourceItem(f"file:///stored{i}", "file://", FileLocator(f"file:///stored{i}"))
            accounting.accept_listed(stored)
            accounting.record_outcomes([Outcome(stored, "written", "write", id=str(i))])
        accounting.accept_listed(ListingFailure(outcome.item.uri, "file://", outcome.reason))
    accounting.close()
    assert lines <= len(_read_letters(accounting)) <= lines + 110


class _Source:
    ignored: Mapping[str, int] = {}

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        yield from ()


def test_images_that_only_their_line_can_retry_have_one(make: Make) -> None:
    accounting = make()
    accounting.dead_letters.set_sources([_Source("stdin:"), _Source("file:///t.txt")], SourceOptions())
    for source in ("stdin:", "file:///t.txt"):
        for i in range(1500):
            item = SourceItem(f"{source}{i}", source, FileLocator(f"file:///{i}"))
            accounting.accept_listed(item)
            accounting.record_outcomes([Outcome(item, "failed", "read", "not found")])
    accounting.close()
    letters = _read_letters(accounting)
    assert [letter["source"] for letter in letters] == ["stdin:"] * 1500 + ["file:///t.txt"] * 1001


def test_a_shared_line_reads_its_source_again(make: Make, tmp_path: Path) -> None:
    table = tmp_path / "t.data"
    options = SourceOptions(format="jsonl", image_column="photo", columns={"note": "text"})
    lines = [json.dumps({"photo": f"{i}.jpg", "text": f"t{i}"} if i > 1990 else [i]) for i in range(2000)]
    table.write_text("\n".join(lines))
    accounting = make()
    source = open_source(str(table), options)
    accounting.dead_letters.set_sources([source], options)
    for found in source.list_items():
        if item := accounting.accept_listed(found):
            accounting.record_outcomes([Outcome(item, "failed", "read", "not found")])
    accounting.close()
    assert len(_read_letters(accounting)) == 1002
    table.write_text("\n".join([*(json.dumps({"photo": f"{i}.jpg", "text": "t"}) for i in range(1500)), *lines[1500:]]))
    retried = list(KIND.open(str(accounting.dead_letters.path), SourceOptions(format="dead-letters")).list_items())
    images = {item.uri.rpartition("/")[2]: item for item in retried if isinstance(item, SourceItem)}
    assert set(images) == {f"{i}.jpg" for i in (*range(1500), *range(1991, 2000))}
    assert images["1999.jpg"].fields == {"note": "t1999"}
    assert {found.source for found in retried} == {table.as_uri()}
    assert sum(isinstance(found, ListingFailure) for found in retried) == 491


def test_a_shared_line_of_a_lost_source_fails(make: Make, tmp_path: Path) -> None:
    accounting = make()
    accounting.dead_letters.set_sources([_Source((tmp_path / "gone").as_uri())], SourceOptions())
    for outcome in _fail((tmp_path / "gone").as_uri(), 1200):
        accounting.accept_listed(ListingFailure(outcome.item.uri, outcome.item.source, outcome.reason))
    accounting.close()
    [lost] = KIND.open(str(accounting.dead_letters.path), SourceOptions()).list_items()
    assert isinstance(lost, SourceItem)
    assert lost.locator.to_json() == _read_letters(accounting)[-1]["locator"]
    with pytest.raises(ReadError):
        lost.locator.read(ReadLimits())


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"uri": 1, "source": 2, "locator": null}', b'{"locator": {"kind": "source"}}']
)
def test_a_hostile_dead_letter_fails_alone(tmp_path: Path, line: bytes) -> None:
    letters = DeadLetters(tmp_path / "failed.jsonl", "photos")
    letters.add(Outcome(A, "failed", "read", "why"))
    letters.close()
    with letters.path.open("ab") as file:
        file.write(line + b"\n")
    found = list(KIND.open(str(letters.path), SourceOptions()).list_items())
    assert sorted(type(each).__name__ for each in found) == ["ListingFailure", "SourceItem"]
